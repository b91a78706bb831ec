"""The data loader: batches of an epoch, read in this process or in forked ones."""

from __future__ import annotations

import logging
import multiprocessing
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from ppcls.data.pool import Draws, ReaderPool
from ppcls.data.worker import BatchRead, Dataset, Size, read_batch, sample_generator
from ppcls.errors import ArgumentError, DataError

PROBED = 32  # pictures that are tried to learn the size of a sample

logger = logging.getLogger(__name__)


class Sampler(Protocol):
    """What the loader asks of a sampler."""

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The draws of each batch of this rank in this epoch.

        Their number never changes, unless there is a method ``batches_in(epoch)`` that gives it.

        A draw is the sample's index + the number of samples x how often the epoch has drawn it
        before. A sampler that also chooses the size of the pictures has a method ``sizes(epoch)``:
        (width, height) for each batch, or None for that of the transforms. One whose epochs are of
        several kinds has a method ``kinds()``: an epoch of each.
        """


@dataclass(frozen=True)
class Batch:
    """Samples of one step.

    Attributes:
        images: [views * n, height, width, 3], uint8 unless the pipeline normalises per picture;
            row ``v * n + i`` is view v of picture i. Valid until the next batch is asked for.
        labels: of the rows, int64 [views * n], or float32 [views * n, C] with one target per class.
        indices: int64 [n], the samples' places in the data set.
        number: of the batch in its epoch, from 0.
        views: of each picture.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    number: int = 0
    views: int = 1

    @property
    def pictures(self) -> int:
        """How many samples there are, n."""
        return len(self.indices)

    def taken(self, places: np.ndarray) -> Batch:
        """The pictures at these places, int64 [m], each with all its views."""
        firsts = self.pictures * np.arange(self.views)
        rows = (firsts[:, None] + places).reshape(-1)
        images, labels = self.images[rows], self.labels[rows]
        return replace(self, images=images, labels=labels, indices=self.indices[places])


class DataLoader:
    """Reads the batches of an epoch; the same bits for any number of workers.

    The augmentation of a sample depends on (seed, epoch, index) only. With workers, make the
    loader early, in the main thread: they are forked at once and live until :meth:`close`.

    Args:
        dataset: where samples come from; its ``on_error`` and ``max_bad_ratio`` rule what happens
            to a picture that cannot be read.
        sampler: which samples make a batch.
        seed: of the run.
        num_workers: reader processes; 0 reads in the calling thread.
        timeout: seconds without any progress after which a picture counts as stuck (workers only).
        on_bad_sample: called with path and cause of each skipped picture, once a picture; the
            default logs a warning.

    Attributes:
        varies: whether some epochs have more batches than others.

    Raises:
        ArgumentError: a number out of range, workers on a system that cannot fork, or a sampler
            that chooses sizes for transforms that set none.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler,
        *,
        seed: int,
        num_workers: int = 0,
        timeout: float = 300.0,
        on_bad_sample: Callable[[str], None] | None = None,
    ):
        _check(seed, num_workers, timeout)
        self.dataset = dataset
        self.sampler = sampler
        self.seed = seed
        self.num_workers = num_workers
        self.timeout = timeout
        self._on_bad_sample = on_bad_sample or logger.warning
        self._reported: set[int] = set()
        self._pool: ReaderPool | None = None
        kinds = getattr(sampler, "kinds", lambda: [0])()
        batches = [batch for epoch in kinds for batch in self._batches(epoch)]
        _check_sizes(batches, sampler, dataset)
        staged: Any = sampler if hasattr(sampler, "batches_in") else None
        self._length = len(batches) if staged is None else len(staged)
        lengths = {self._length, *(self.batches_in(epoch) for epoch in kinds)}
        self.varies = len(lengths) > 1
        self._max_batch = max((len(draws) for draws, _ in batches), default=1)
        if num_workers:
            self._batch_bytes = self._probed_bytes(batches)
            self._readers()

    def __len__(self) -> int:
        """Batches in an epoch; of the nominal batch size where it changes during the run."""
        return self._length

    def batches_in(self, epoch: int) -> int:
        """Batches in this epoch."""
        count: Callable[[int], int] | None = getattr(self.sampler, "batches_in", None)
        return self._length if count is None else count(epoch)

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the reader processes; a later epoch starts them again."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch, in order; one epoch at a time.

        Args:
            epoch: number of the epoch, which order and augmentation depend on.
            start: batches to leave out, for a run that is resumed.

        Raises:
            DataError: a picture that cannot be read (``on_error: stop``), too many of them
                (``skip``), pictures of different shapes in a batch, or a reader that died or is
                stuck. Says which picture.
        """
        batches = self._batches(epoch)
        count = sum(len(draws) for draws, _ in batches)
        self._announce(batches[start:])
        bad = 0
        is_empty = True
        with closing(self._reads(epoch, batches[start:])) as reads:
            for number, read in enumerate(reads, start):
                bad += self._account(read, bad, count)
                if not read.kept and self._may_skip_batches():
                    continue
                is_empty = False
                labels = np.asarray(read.labels, self.dataset.labels.dtype)
                kept, views = np.asarray(read.kept, np.int64), self.dataset.views
                labels = np.concatenate([labels] * views)
                yield Batch(_images(read), labels, kept, number, views)

        if is_empty and bad:
            raise DataError(f"none of the {bad} pictures of epoch {epoch} can be read")

    def _batches(self, epoch: int) -> list[Draws]:
        batches = self.sampler.batches(epoch)
        sizes = getattr(self.sampler, "sizes", None)
        return list(zip(batches, sizes(epoch) if sizes else [None] * len(batches), strict=True))

    def _announce(self, batches: Sequence[Draws]) -> None:
        """Tells a data set that can prepare for it what will be read, in order."""
        expect = getattr(self.dataset, "expect", None)
        if expect is not None and batches:
            expect(np.concatenate([draws for draws, _ in batches]) % len(self.dataset))

    def _reads(self, epoch: int, batches: Sequence[Draws]) -> Generator[BatchRead, None, None]:
        if self.num_workers:
            yield from self._readers().run(epoch, batches)
            return
        for draws, size in batches:
            yield read_batch(self.dataset, draws, self.seed, epoch, np.empty, size)

    def _readers(self) -> ReaderPool:
        if self._pool is None or self._pool.closed:
            self._pool = ReaderPool(
                self.dataset,
                self.seed,
                self.num_workers,
                self._max_batch,
                self._batch_bytes,
                self.timeout,
            )
            weakref.finalize(self, self._pool.close)
        return self._pool

    def _account(self, read: BatchRead, bad: int, count: int) -> int:
        """Reports and counts the bad pictures of a batch; raises if they are too many."""
        if read.error is not None:
            raise DataError(read.error)
        for index, reason in read.bad:
            if index not in self._reported:
                self._reported.add(index)
                self._on_bad_sample(reason)
        total, ratio = bad + len(read.bad), self.dataset.max_bad_ratio
        if read.bad and total > ratio * count:
            raise DataError(
                f"{total} of {count} pictures cannot be read (max_bad_ratio {ratio:g}),"
                f" e.g. {read.bad[-1][1]}"
            )
        if not read.kept and not self._may_skip_batches():
            raise DataError(
                f"none of the {len(read.bad)} pictures of a batch can be read,"
                f" e.g. {read.bad[-1][1]}"
            )
        return len(read.bad)

    def _may_skip_batches(self) -> bool:
        """Whether nobody waits for a step of this process: it is alone, or evaluates."""
        alone = getattr(self.sampler, "world_size", 1) == 1
        return alone or not getattr(self.sampler, "training", False)

    def _probed_bytes(self, batches: Sequence[Draws]) -> int:
        """Size of the largest batch's pictures; 0 if the first pictures cannot tell."""
        largest: dict[Size | None, int] = {}
        for draws, size in batches:
            largest[size] = max(largest.get(size, 0), len(draws))
        if not batches:
            return 0
        probed = np.concatenate([draws for draws, _ in batches[:PROBED]])[:PROBED].tolist()
        return max(count * self._picture_bytes(probed, size) for size, count in largest.items())

    def _picture_bytes(self, draws: Sequence[int], size: Size | None) -> int:
        for draw in draws:
            index = draw % len(self.dataset)
            path = Path(self.dataset.path(index))
            if path.exists() and not path.is_file():
                continue  # a pipe would block this process; let a reader find out
            try:
                image, _ = self.dataset.sample(index, sample_generator(self.seed, 0, draw), size)
            except Exception:
                continue  # the epoch that reads it applies the policy
            return image.nbytes
        return 0


def _check_sizes(batches: Sequence[Draws], sampler: Any, dataset: Dataset) -> None:
    sized = any(size for _, size in batches)
    if sized and not any(t.size for t in dataset.pipeline.image_transforms):
        raise ArgumentError(
            "name",
            f"expected a transform that sets the size of pictures, as {type(sampler).__name__}"
            " chooses it (RandCropImage, ResizeImage with size, ...), received none",
        )


def _images(read: BatchRead) -> np.ndarray:
    if read.images is None:
        raise DataError("expected the pictures of a batch, received none")
    return read.images


def _check(seed: int, num_workers: int, timeout: float) -> None:
    if seed < 0:
        raise ArgumentError("seed", f"expected an integer >= 0, received {seed}")
    if num_workers < 0:
        raise ArgumentError("num_workers", f"expected an integer >= 0, received {num_workers}")
    if timeout <= 0:
        raise ArgumentError("timeout", f"expected seconds > 0, received {timeout}")
    if num_workers and "fork" not in multiprocessing.get_all_start_methods():
        raise ArgumentError(
            "num_workers", f"expected 0 on a system without fork, received {num_workers}"
        )
