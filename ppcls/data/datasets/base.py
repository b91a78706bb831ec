"""What the data sets share: where pictures come from, and reading one sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from ppcls.config.progressive import Stages
from ppcls.data.pipeline import Pipeline, layout
from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.normalize import ToCHWImage
from ppcls.errors import ArgumentError, DataError

Mode = Literal["Train", "Eval"]
OnError = Literal["stop", "skip"]


class Source(Protocol):
    """Where the pictures of a data set come from. Its rows never change.

    It is copied into every reader process by a fork, page by page as it is written to: hold
    arrays and blocks of bytes, not millions of Python objects, and open files where they are read.
    """

    @property
    def labels(self) -> np.ndarray:
        """Class indices, int64 [N], or float32 [N, C] with one target per class."""

    @property
    def class_names(self) -> list[str] | None:
        """Name of each class, if the source knows them."""

    def read(self, row: int) -> bytes | np.ndarray:
        """A whole picture file, or pixels: uint8 RGB [height, width, 3].

        Raises:
            DataError, OSError: it cannot be read.
        """

    def path(self, row: int) -> str:
        """The file of a picture; where many share one, ``shard.tar/member.jpg``."""

    def describe(self, row: int) -> str:
        """Where a picture is, for a message: the path, and the line of the list that named it."""


@dataclass(frozen=True)
class Table:
    """Pictures in files of their own: a :class:`Source`.

    The paths are one block of bytes: a list of 1.3 million texts would be copied page by page
    into every reader process, because counting references writes to each of them.

    Attributes:
        root: folder that the paths are relative to.
        paths: all paths, one behind the other.
        ends: int64 [N], where each path ends in ``paths``.
        labels: int64 [N].
        class_names: name of each class, if the data set knows them.
        list_name: name of the list file, if there is one.
        lines: int64 [N], line of each sample in the list file, counted from 1.
    """

    root: str
    paths: bytes
    ends: np.ndarray
    labels: np.ndarray
    class_names: list[str] | None = None
    list_name: str | None = None
    lines: np.ndarray | None = None

    def path(self, row: int) -> str:
        """Where the file is."""
        start = int(self.ends[row - 1]) if row else 0
        relative = self.paths[start : int(self.ends[row])]
        return os.fsdecode(os.path.join(os.fsencode(self.root), relative))  # noqa: PTH118 (bytes)

    def read(self, row: int) -> bytes:
        """The bytes of the file."""
        return Path(self.path(row)).read_bytes()

    def describe(self, row: int) -> str:
        """The file and its line in the list: ``/p/a b.jpg (list.txt:12)``."""
        if self.lines is None:
            return self.path(row)
        return f"{self.path(row)} ({self.list_name}:{self.lines[row]})"


def joined(paths: Sequence[bytes]) -> tuple[bytes, np.ndarray]:
    """The ``paths`` and ``ends`` of a table."""
    lengths = np.fromiter(map(len, paths), np.int64, len(paths))
    return b"".join(paths), np.cumsum(lengths)


class PictureDataset:
    """Labelled pictures.

    Args:
        source: where they come from.
        transform_ops: what happens to each picture; None decodes only. ToCHWImage is added if
            the list ends in [height, width, 3], as published lists do.
        on_error: what a picture that cannot be read does to the run; the loader obeys it.
        max_bad_ratio: largest part of an epoch's pictures that ``skip`` tolerates.

    Attributes:
        pipeline: the transforms, split into the per-picture and the per-batch stage.
        labels: of the samples, int64 [N] or float32 [N, C].
        class_names: names in the order of the labels, or None.
        epochs: of the run, for transforms that change with it; 1 if they shall not.
        stages: of progressive learning, whose magnitudes the transforms get.
        views: of each picture that a sample consists of, for AugMix; 1 for the picture alone.
    """

    def __init__(
        self,
        source: Source,
        transform_ops: Sequence[Transform] | None,
        on_error: OnError = "stop",
        max_bad_ratio: float = 0.01,
    ):
        if on_error not in ("stop", "skip"):
            raise ArgumentError("on_error", f"expected 'stop' or 'skip', received {on_error!r}")
        if not 0 <= max_bad_ratio <= 1:
            raise ArgumentError(
                "max_bad_ratio", f"expected a number from 0 to 1, received {max_bad_ratio!r}"
            )
        self.pipeline = Pipeline(_completed(transform_ops))
        self.labels = source.labels
        self.class_names = source.class_names
        self.on_error = on_error
        self.max_bad_ratio = max_bad_ratio
        self.source = source
        self.epochs = 1
        self.stages: Stages | None = None
        self.views = 1
        self._rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> None:
        """Keeps only these samples, in this order; they are numbered anew, from 0.

        Args:
            indices: int64 [M].
        """
        kept = np.asarray(indices, np.int64)
        self._rows = kept if self._rows is None else self._rows[kept]
        self.labels = self.labels[kept]

    def row(self, index: int) -> int:
        """The row of the source that sample ``index`` is."""
        return index if self._rows is None else int(self._rows[index])

    def path(self, index: int) -> str:
        """The file of sample ``index``."""
        return self.source.path(self.row(index))

    def describe(self, index: int) -> str:
        """Where sample ``index`` is: ``/p/a b.jpg (list.txt:12)``."""
        return self.source.describe(self.row(index))

    def begin(self, epoch: int) -> None:
        """Prepares for samples of an epoch, from 1 to ``epochs``."""
        magnitude = self.stages.at(epoch).magnitude if self.stages else None
        self.pipeline.advance(min(max(epoch - 1, 0) / max(self.epochs - 1, 1), 1.0), magnitude)

    def sample(
        self, index: int, rng: np.random.Generator, size: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One picture after the per-picture transforms, and its label.

        Args:
            rng: source of the augmentation.
            size: (width, height) instead of those that the transforms name, for batches of
                several sizes.

        Returns:
            (uint8 [height, width, 3], label: int64 [] or float32 [C]); see
            :meth:`ppcls.data.pipeline.Pipeline.image`. With several ``views`` all of them,
            [views, height, width, 3].

        Raises:
            DataError: where the picture is, and why it cannot be used.
        """
        try:
            data = self.source.read(self.row(index))
            if self.views > 1:
                return self.pipeline.views(data, rng, self.views, size), self.labels[index]
            return self.pipeline.image(data, rng, size), self.labels[index]
        except Exception as error:  # a reader process must survive whatever a transform raises
            raise DataError(f"{self.describe(index)}: {_cause(error)}") from error


def _completed(transform_ops: Sequence[Transform] | None) -> list[Transform]:
    # `is None`: an empty list is a mistake that the pipeline reports.
    transforms: list[Transform] = [DecodeImage()] if transform_ops is None else list(transform_ops)
    return transforms if layout(transforms) == "chw" else [*transforms, ToCHWImage()]


def _cause(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, (DataError, ArgumentError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def existing(path: str, kind: Literal["folder", "file"], argument: str) -> Path:
    """``path``, if it exists and is of this kind.

    Raises:
        DataError: it is not there or something else; says where the layout is explained.
    """
    found = Path(path)
    if found.is_dir() if kind == "folder" else found.is_file():
        return found
    received = f"a {'file' if kind == 'folder' else 'folder'}" if found.exists() else "none"
    where, subject = "dataset/README.md", "a data set"
    if "ILSVRC2012" in path or "imagenet" in path.casefold():
        where, subject = "'python dataset/imagenet.py --help'", "ImageNet"
    raise DataError(
        f"{argument}: expected a {kind} at '{path}', received {received};"
        f" {where} explains how to lay {subject} out"
    )
