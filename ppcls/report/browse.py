"""``ppcls data browse``: what the network really sees, drawn back into pictures."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppcls.config import Config
from ppcls.data.image import decode
from ppcls.data.loader import Batch, DataLoader
from ppcls.data.pipeline import Pipeline
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.normalize import NormalizeImage
from ppcls.data.worker import sample_generator
from ppcls.engine.batch import Mixing, ToTensors, build_reader
from ppcls.engine.device import require_paddle
from ppcls.engine.distributed import World
from ppcls.engine.logging import make_logger
from ppcls.errors import DataError
from ppcls.report.grid import Tile, as_html, as_png
from ppcls.report.page import counted, document, text, write
from ppcls.report.samples import class_names_of

COLUMNS = 8  # at most, where rows have no meaning of their own
NAMED = 3  # classes of a target that are named
LEAST_SHARE = 0.005  # of a target that is named: what smoothing gives the others is not


@dataclass(frozen=True)
class View:
    """What to draw.

    Attributes:
        mode: whose reader.
        count: pictures.
        repeat: draws of each: in that many epochs.
        original: also as they are in their files.
        epoch: the (first) epoch, from 1.
    """

    mode: Literal["Train", "Eval"] = "Train"
    count: int = 16
    repeat: int = 1
    original: bool = False
    epoch: int = 1


def browse(config: Config, view: View, out: Path) -> None:
    """Draws samples as the network gets them; writes ``browse.png`` and ``browse.html``.

    Raises:
        ConfigError: the configuration has no such reader.
        DataError: the data set is wrong, or a picture cannot be read.
    """
    config.require(f"DataLoader.{view.mode}", purpose="browsing")
    require_paddle()
    import paddle

    paddle.set_device("cpu")
    getattr(config.DataLoader, view.mode).loader.num_workers = 0
    reader = build_reader(config, view.mode, World(), make_logger(stream=sys.stderr))
    rows = Drawing(config, reader, view).rows()
    title = f"{config.path}: {view.mode}, from epoch {view.epoch} on"
    what = "Left: the file. " if view.original else ""
    note = f"<p>{text(what)}After all transforms, with the normalisation undone.</p>\n"
    write(out / "browse.png", as_png(rows))
    write(out / "browse.html", document(title, note + as_html(rows)))
    sys.stdout.write(f"{counted(sum(map(len, rows)), 'picture')}: {out / 'browse.png'}, ")
    sys.stdout.write(f"{out / 'browse.html'}\n")


class Drawing:
    """Tiles of the samples of a reader."""

    def __init__(self, config: Config, reader: DataLoader, view: View):
        self._reader = reader
        self._dataset: Any = reader.dataset
        self._view = view
        self._names = self._dataset.class_names or class_names_of(config) or []
        self._to_tensors = ToTensors(reader.dataset.pipeline)
        self._mixing = Mixing.of(config, World()) if view.mode == "Train" else None

    def rows(self) -> list[list[Tile]]:
        """The tiles in rows: one row a sample if there are several of each."""
        if self._view.repeat > 1:
            return self._repeated()
        tiles: list[tuple[int, Tile]] = []
        for batch in self._reader.epoch(self._view.epoch):
            tiles += self._seen(batch, self._view.epoch)
            if len(tiles) >= self._view.count:
                break
        del tiles[self._view.count :]
        if self._view.original:
            return [[self._original(index), tile] for index, tile in tiles]
        columns = min(COLUMNS, math.ceil(math.sqrt(len(tiles))))
        flat = [tile for _, tile in tiles]
        return [flat[first : first + columns] for first in range(0, len(flat), columns)]

    def _repeated(self) -> list[list[Tile]]:
        """Each sample in several epochs; mixing takes its partners among those shown."""
        chosen: dict[int, None] = {}  # a set that keeps its order
        size = (0, 0)
        for batch in self._reader.epoch(self._view.epoch):
            size = (batch.images.shape[2], batch.images.shape[1])
            chosen.update(dict.fromkeys(batch.indices.tolist()))
            if len(chosen) >= self._view.count:
                break
        indices = np.asarray(list(chosen)[: self._view.count], np.int64)
        rows = [[self._original(int(i))] if self._view.original else [] for i in indices]
        for epoch in range(self._view.epoch, self._view.epoch + self._view.repeat):
            batch = self._drawn(indices, epoch, size)
            for number, (_, tile) in enumerate(self._seen(batch, epoch)):
                rows[number // batch.views].append(tile)
        return rows

    def _drawn(self, indices: np.ndarray, epoch: int, size: tuple[int, int]) -> Batch:
        """These samples as an epoch augments them."""
        sized = hasattr(self._reader.sampler, "sizes")
        read = [
            self._dataset.sample(
                int(index),
                sample_generator(self._reader.seed, epoch, int(index)),
                size if sized else None,
            )
            for index in indices
        ]
        shapes = {image.shape for image, _ in read}
        if len(shapes) > 1:
            raise DataError(f"expected pictures of one size, received {sorted(shapes)}")
        images, targets = (np.stack(arrays) for arrays in zip(*read, strict=True))
        if (views := self._dataset.views) > 1:
            images = np.concatenate(images.swapaxes(0, 1))
        return Batch(images, np.concatenate([targets] * views), indices, views=views)

    def _seen(self, batch: Batch, epoch: int) -> Iterator[tuple[int, Tile]]:
        """(sample, tile) of a batch, after everything that training does to it.

        Of a sample with several views, all tiles follow each other.
        """
        images, targets = self._to_tensors(batch)
        if self._mixing is not None:
            images, targets = self._mixing(images, targets, epoch, batch.number)
        pixels = restored(images.numpy(), self._dataset.pipeline)
        targets = targets.numpy()
        for row in np.arange(len(pixels)).reshape(batch.views, -1).T.reshape(-1):
            sample = int(batch.indices[row % batch.pictures])
            words = [target_text(targets[row], self._names), Path(self._dataset.path(sample)).name]
            yield sample, Tile(pixels[row], words)

    def _original(self, index: int) -> Tile:
        data = self._dataset.source.read(self._dataset.row(index))
        image = data if isinstance(data, np.ndarray) else decode(data)
        label = target_text(self._dataset.labels[index], self._names)
        return Tile(image, [f"file: {label}", Path(self._dataset.path(index)).name])


def restored(images: np.ndarray, pipeline: Pipeline) -> np.ndarray:
    """Pictures again: normalisations undone, RGB, uint8 [N, height, width, 3].

    Args:
        images: float32 [N, 3, height, width], as the network gets them.
    """
    pixels = images.transpose(0, 2, 3, 1).astype(np.float64)
    scaling = [t for t in pipeline.transforms if isinstance(t, NormalizeImage)]
    # Behind another one, a normalisation for bytes does nothing.
    scaling = [t for i, t in enumerate(scaling) if i == 0 or not getattr(t, "bytes_only", False)]
    for transform in reversed(scaling):
        pixels = (pixels * transform.std + transform.mean) / transform.scale
    if any(isinstance(t, DecodeImage) and not t.to_rgb for t in pipeline.transforms):
        pixels = pixels[..., ::-1]
    return pixels.round().clip(0, 255).astype(np.uint8)


def target_text(target: np.ndarray, names: list[str]) -> str:
    """A target as a person writes it: ``cat``, ``cat, dog`` (both), or ``0.70 x cat + 0.30 x dog``.

    Args:
        target: int64 [], or float32 [classes].
    """

    def name(label: int) -> str:
        return names[label] if label < len(names) else str(label)

    if target.ndim == 0:
        return name(int(target))
    order = np.argsort(-target, kind="stable")
    order = order[target[order] >= LEAST_SHARE]
    if (target[order] == 1).all():
        return ", ".join(name(int(label)) for label in order) or "none"
    parts = [f"{target[label]:.2f} x {name(int(label))}" for label in order[:NAMED]]
    more = f" + {len(order) - NAMED} more" if len(order) > NAMED else ""
    return " + ".join(parts) + more
