"""A reader process: reads the samples of one batch after the other into shared memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np

from ppcls.data.datasets.base import OnError, Source
from ppcls.data.image import use_one_thread
from ppcls.data.pipeline import Pipeline
from ppcls.errors import PPClsError

PR_SET_PDEATHSIG = 1
IDLE = -1
ALIGNMENT = 64  # bytes; a cache line

Size = tuple[int, int]  # width, height


class Dataset(Protocol):
    """What the loader asks of a data set; see :class:`ppcls.data.datasets.PictureDataset`."""

    pipeline: Pipeline
    source: Source
    labels: np.ndarray
    class_names: list[str] | None
    on_error: OnError
    max_bad_ratio: float
    views: int

    def __len__(self) -> int: ...

    def path(self, index: int) -> str:
        """The file of a sample."""

    def describe(self, index: int) -> str:
        """Where a sample is, for a message."""

    def begin(self, epoch: int) -> None:
        """Samples of this epoch are about to be asked for."""

    def sample(
        self, index: int, rng: np.random.Generator, size: Size | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """A picture, of another size if one is given, and its label; all views if it has some."""


@dataclass
class BatchRead:
    """What came of reading a batch.

    Attributes:
        images: the pictures that could be read, stacked, one view of all behind the other; None
            if there are none.
        kept: their indices.
        labels: their labels.
        bad: (index, why) of the pictures that could not be read and are left out.
        error: why the batch as a whole is unusable.
    """

    images: np.ndarray | None = None
    kept: list[int] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class Task:
    """A batch to read; its draws are in the slot. Small, so that sending never blocks."""

    ticket: int
    slot: int
    epoch: int
    count: int
    generation: int
    size: Size | None


@dataclass(frozen=True)
class Reply:
    """The answer to a task. With a ``shape`` the pictures are in the slot, not in ``read``."""

    ticket: int
    read: BatchRead
    shape: tuple[int, ...] | None = None
    dtype: str = ""


class SharedSlots:
    """Anonymous shared memory, made before the fork: nothing to name, to leak or to clean up.

    Args:
        slots: batches that fit at once.
        workers: number of reader processes.
        samples: largest number of samples in a batch.
        pixel_bytes: size of the pictures of a batch as the pipeline gives them.

    Attributes:
        current: int64 [workers], the index that each worker is reading, or ``IDLE``.
        generation: int64 [1]; a task of an older generation is abandoned.
    """

    def __init__(self, slots: int, workers: int, samples: int, pixel_bytes: int):
        self.slots = slots
        self._draw_bytes = _aligned(8 * samples)
        self.pixel_bytes = pixel_bytes
        self._stride = self._draw_bytes + _aligned(pixel_bytes)
        control = _aligned(8 * (workers + 1))
        self._memory = np.frombuffer(mmap.mmap(-1, control + slots * self._stride), np.uint8)
        self._first = control
        self.current = self._memory[: 8 * workers].view(np.int64)
        self.generation = self._memory[8 * workers : 8 * workers + 8].view(np.int64)
        self.current[:] = IDLE

    def draws(self, slot: int, count: int) -> np.ndarray:
        """int64 [count]: the draws of the batch in this slot."""
        start = self._first + slot * self._stride
        return self._memory[start : start + 8 * count].view(np.int64)

    def pixels(self, slot: int, shape: Sequence[int], dtype: np.dtype | str) -> np.ndarray | None:
        """The pictures in this slot as an array, or None if such an array does not fit."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size > self.pixel_bytes:
            return None
        start = self._first + slot * self._stride + self._draw_bytes
        return self._memory[start : start + size].view(dtype).reshape(shape)


def sample_generator(seed: int, epoch: int, draw: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch, whichever process reads it, and when."""
    return np.random.default_rng(np.random.SeedSequence((seed, epoch, draw)))


def read_batch(
    dataset: Dataset,
    draws: Sequence[int] | np.ndarray,
    seed: int,
    epoch: int,
    allocate: Callable[[tuple[int, ...], np.dtype], np.ndarray],
    size: Size | None = None,
    starts: Callable[[int], bool] = lambda index: True,
) -> BatchRead:
    """Reads the samples of one batch. Never raises for a sample; see :class:`BatchRead`.

    Args:
        draws: index + samples of the data set x how often the epoch has drawn this sample before,
            so that no two copies get the same augmentation.
        allocate: called once, with the shape and type of the whole batch.
        size: (width, height) of the pictures, if it is not the transforms' own.
        starts: called with each index before it is read; False abandons the batch.
    """
    dataset.begin(epoch)
    read = BatchRead()
    images: np.ndarray | None = None
    for draw in map(int, draws):
        index = draw % len(dataset)
        if not starts(index):
            return BatchRead(error="abandoned")
        try:
            image, label = dataset.sample(index, sample_generator(seed, epoch, draw), size)
        except Exception as error:
            reason = _reason(dataset, index, error)
            if dataset.on_error != "skip":
                return BatchRead(error=reason)
            read.bad.append((index, reason))
            continue
        views = image if dataset.views > 1 else image[None]
        if images is None:
            images = allocate((len(views), len(draws), *views.shape[1:]), views.dtype)
        elif (views.shape[1:], views.dtype) != (images.shape[2:], images.dtype):
            return BatchRead(error=_mismatch(dataset, read.kept[0], images[0, 0], index, views[0]))
        images[:, len(read.kept)] = views
        read.kept.append(index)
        read.labels.append(label)
    read.images = None if images is None else _stacked(images, len(read.kept))
    return read


def _stacked(images: np.ndarray, count: int) -> np.ndarray:
    """[views * count, ...]: one view behind the other, of the first ``count`` pictures.

    In place, as they may be in shared memory.

    Args:
        images: [views, n, ...], contiguous.
    """
    views, places = images.shape[:2]
    rows = images.reshape(views * places, *images.shape[2:])
    if count < places:
        for view in range(1, views):
            rows[view * count :][:count] = rows[view * places :][:count]
    return rows[: views * count]


def work(
    number: int,
    dataset: Dataset,
    seed: int,
    shared: SharedSlots,
    pipe: Connection,
    inherited: Sequence[Connection],
    parent: int,
) -> None:
    """Body of reader process ``number``: answers tasks until the pipe is closed.

    Args:
        inherited: the parent's ends of pipes, copied by the fork; they are closed here, or no
            reader would notice that the parent is gone.
        parent: process id of the parent.
    """
    settle(parent)
    for connection in inherited:
        connection.close()
    while True:
        try:
            task = pipe.recv()
            pipe.send(_answer(number, dataset, seed, shared, task))
        except (EOFError, OSError):
            return


def _answer(number: int, dataset: Dataset, seed: int, shared: SharedSlots, task: Task) -> Reply:
    placed = False

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        nonlocal placed
        slot = shared.pixels(task.slot, shape, dtype)
        placed = slot is not None
        return np.empty(shape, dtype) if slot is None else slot

    def starts(index: int) -> bool:
        shared.current[number] = index
        return int(shared.generation[0]) == task.generation

    try:
        draws = shared.draws(task.slot, task.count)
        read = read_batch(dataset, draws, seed, task.epoch, allocate, task.size, starts)
    except Exception as error:  # such as no memory for the batch; the parent raises it
        read = BatchRead(error=f"reader worker {number}: {type(error).__name__}: {error}")
    shared.current[number] = IDLE
    if not placed or read.images is None:
        return Reply(task.ticket, read)
    shape, dtype = read.images.shape, read.images.dtype.str
    read.images = None
    return Reply(task.ticket, read, shape, dtype)


def settle(parent: int) -> None:
    """Makes the forked process a reader: it dies with the parent and leaves signals to it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The parent blocks them while it forks, so that none of its handlers runs here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    use_one_thread()


def _reason(dataset: Dataset, index: int, error: Exception) -> str:
    if isinstance(error, PPClsError):
        return str(error)
    return f"{dataset.describe(index)}: {type(error).__name__}: {error}"


def _mismatch(
    dataset: Dataset, first: int, expected: np.ndarray, index: int, image: np.ndarray
) -> str:
    return (
        f"{dataset.describe(index)}: expected {expected.dtype} {list(expected.shape)} as"
        f" {dataset.describe(first)} in the same batch, received {image.dtype}"
        f" {list(image.shape)}; let ResizeImage, CropImage or RandCropImage give one size"
    )


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
