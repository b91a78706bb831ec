"""Reading pictures one after the other, and taking the time of each stage."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ppcls.data.image import use_one_thread
from ppcls.data.loader import DataLoader
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.worker import sample_generator
from ppcls.engine.diagnosis import COLLATING, DECODING, READING, Pictures
from ppcls.errors import DataError

LONGEST = 10.0  # seconds, after which a stage is over even if not all batches are done
SOME = 32  # pictures that a figure needs, however long they take


def measure_pictures(reader: DataLoader, batches: int) -> Pictures:
    """Reads pictures in this process as one worker would, and adds up what each stage takes.

    Raises:
        DataError: a picture cannot be read and the data set does not skip it, or none can.
    """
    threads = cv2.getNumThreads()
    use_one_thread()
    worker = _Worker(reader)
    found = worker.found
    until = time.perf_counter() + LONGEST
    try:
        for draws, size in _drawn(reader, 1):  # not counted: the first one sets things up
            _Worker(reader).read(int(draws[0]), size)
        for draws, size in _drawn(reader, batches):
            images = []
            for draw in draws.tolist():
                image = worker.read(draw, size)
                images += [] if image is None else [image]
                if found.count >= SOME and time.perf_counter() > until:
                    break
            if images:
                worker.collate(images)
            if time.perf_counter() > until:
                break
    finally:
        cv2.setNumThreads(threads)
    if not found.count:
        raise DataError(f"none of {found.unreadable} pictures can be read, e.g. {found.example}")
    return found


def _drawn(reader: DataLoader, batches: int) -> Iterator[tuple[np.ndarray, tuple[int, int] | None]]:
    """The first batches of an epoch, and the size of each if the sampler says one."""
    sampler: Any = reader.sampler
    drawn = sampler.batches(0)[:batches]
    sizes = sampler.sizes(0)[:batches] if hasattr(sampler, "sizes") else [None] * len(drawn)
    yield from zip(drawn, sizes, strict=True)


class _Worker:
    """Reads pictures stage by stage, and takes the time of each."""

    def __init__(self, reader: DataLoader):
        self.found = Pictures()
        self._reader = reader
        self._dataset: Any = reader.dataset
        self._sized: dict[tuple[int, int] | None, list[Any]] = {}

    def read(self, draw: int, size: tuple[int, int] | None) -> np.ndarray | None:
        """One picture; None if it cannot be read and is left out."""
        index = draw % len(self._dataset)
        try:
            image = self._stages(index, draw, size)
        except Exception as error:  # whatever a transform raises
            reason = str(error) or type(error).__name__
            reason = f"{self._dataset.describe(index)}: {reason}"
            if self._dataset.on_error != "skip":
                raise DataError(reason) from error
            self.found.unreadable += 1
            self.found.example = reason
            return None
        self.found.count += 1
        return image

    def collate(self, images: list[np.ndarray]) -> None:
        """Copies pictures into a batch."""

        def stack() -> None:
            batch = np.empty((len(images), *images[0].shape), images[0].dtype)
            for place, image in zip(batch, images, strict=True):
                place[:] = image

        self._timed(COLLATING, stack)

    def _stages(self, index: int, draw: int, size: tuple[int, int] | None) -> np.ndarray:
        dataset, found = self._dataset, self.found
        data = self._timed(READING, lambda: dataset.source.read(dataset.row(index)))
        found.encoded = isinstance(data, bytes)
        found.packed = not Path(dataset.path(index)).is_file()
        found.bytes += len(data) if found.encoded else data.nbytes
        rng = sample_generator(self._reader.seed, 0, draw)
        transforms = list(self._transforms(size))
        if isinstance(transforms[0], DecodeImage):
            image = self._decoded(data, transforms, rng, draw)
        else:
            image = data
        times = 1
        for transform in transforms:
            if transform.per_view and dataset.views > 1:
                times = dataset.views - 1
            for _ in range(times):
                result = self._timed(type(transform).__name__, partial(transform, image, rng))
            image = result
            if transform.per_view:
                times = dataset.views
        found.target = min(side for side in image.shape if side != 3)
        return image

    def _decoded(
        self, data: Any, transforms: list[Any], rng: np.random.Generator, draw: int
    ) -> np.ndarray:
        """Pixels; what was done to get them is taken off the transforms."""
        decoding, found = transforms.pop(0), self.found
        crops = found.encoded and transforms and isinstance(transforms[0], RandCropImage)
        if crops and self._dataset.pipeline.decodes_parts:
            crop = transforms.pop(0)
            found.crops = True
            image = self._timed(DECODING, lambda: decoding.ordered(crop.from_file(data, rng)))
            width, height = Image.open(io.BytesIO(data)).size
        else:
            if crops:
                self._time_part(transforms[0], data, draw)
            image = self._timed(DECODING, lambda: decoding(data, rng))
            height, width = image.shape[1:] if decoding.channel_first else image.shape[:2]
        found.width += width
        found.height += height
        found.short += min(width, height)
        return image

    def _transforms(self, size: tuple[int, int] | None) -> list[Any]:
        if size not in self._sized:
            transforms = self._dataset.pipeline.image_transforms
            if size is not None:
                transforms = [transform.of_size(size) for transform in transforms]
            self._sized[size] = transforms
            self.found.needed |= {type(t).__name__ for t in transforms if t.size is not None}
        return self._sized[size]

    def _time_part(self, crop: RandCropImage, data: bytes, draw: int) -> None:
        """What decoding only what the crop keeps would take."""
        rng = sample_generator(self._reader.seed, 0, draw)
        started = time.perf_counter()
        crop.from_file(data, rng)
        self.found.part += time.perf_counter() - started

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        started, busy = time.perf_counter(), time.thread_time()
        result = work()
        self.found.add(stage, time.perf_counter() - started, time.thread_time() - busy)
        return result
