"""CIFAR-10 and CIFAR-100 from the files of their binary version."""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ppcls.data.datasets.base import OnError, PictureDataset
from ppcls.data.transforms.base import Transform
from ppcls.errors import DataError
from ppcls.registry import DATASETS, TRANSFORMS, Many

SIDE = 32
PIXELS = 3 * SIDE * SIDE
HOME = "https://www.cs.toronto.edu/~kriz/"
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Layout:
    """What the binary version of one of the two looks like.

    Attributes:
        archive: as it is published.
        label_bytes: labels in front of the pixels of each record, one byte each.
        classes: how many classes each of these labels has.
        files: of each split.
        names: file with the class names of each label.
        pickled: files of the Python version.
    """

    archive: str
    label_bytes: int
    classes: tuple[int, ...]
    files: dict[str, tuple[str, ...]]
    names: tuple[str, ...]
    pickled: tuple[str, ...]


CIFAR10 = Layout(
    archive="cifar-10-binary.tar.gz",
    label_bytes=1,
    classes=(10,),
    files={
        "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    names=("batches.meta.txt",),
    pickled=("data_batch_1", "test_batch", "batches.meta"),
)
CIFAR100 = Layout(
    archive="cifar-100-binary.tar.gz",
    label_bytes=2,
    classes=(20, 100),
    files={"train": ("train.bin",), "test": ("test.bin",)},
    names=("coarse_label_names.txt", "fine_label_names.txt"),
    pickled=("train", "test", "meta"),
)


class Records:
    """All pictures of a split: a :class:`~ppcls.data.datasets.base.Source`.

    Args:
        data_file: folder with the binary files, or the archive that holds them.
        layout: which of the two it is.
        split: which files.
        label: which of a record's labels.

    Raises:
        DataError: the files are not there, of the Python version, or not of a whole number of
            records; or a label is out of range.
    """

    def __init__(self, data_file: str, layout: Layout, split: Split, label: int = 0):
        self._layout = layout
        self._files = [f"{data_file}/{name}" for name in layout.files[split]]
        self._blocks: list[np.ndarray] = []
        names = layout.names[label]
        contents = _contents(data_file, (*layout.files[split], names), layout)
        for name, place in zip(layout.files[split], self._files, strict=True):
            if name not in contents:
                raise DataError(f"{data_file}: expected a file '{name}', received none")
            self._blocks.append(_records(place, contents[name], layout, label))
        self._ends = np.cumsum([len(block) for block in self._blocks])
        self.labels = np.concatenate([b[:, label] for b in self._blocks]).astype(np.int64)
        self.class_names = None
        if names in contents:
            classes = layout.classes[label]
            self.class_names = _names(f"{data_file}/{names}", contents[names], classes)

    def read(self, row: int) -> np.ndarray:
        """uint8 RGB [32, 32, 3]."""
        file, record = self._place(row)
        pixels = self._blocks[file][record, self._layout.label_bytes :]
        return np.ascontiguousarray(pixels.reshape(3, SIDE, SIDE).transpose(1, 2, 0))

    def path(self, row: int) -> str:
        """File and record: ``folder/test_batch.bin/7``, counted from 0."""
        file, record = self._place(row)
        return f"{self._files[file]}/{record}"

    def describe(self, row: int) -> str:
        """The same in words."""
        file, record = self._place(row)
        return f"{self._files[file]}: record {record}"

    def _place(self, row: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._ends, row, side="right"))
        return file, row - (int(self._ends[file - 1]) if file else 0)


def _records(name: str, data: bytes, layout: Layout, label: int) -> np.ndarray:
    """uint8 [N, label bytes + 3072]: the records of a file."""
    length = layout.label_bytes + PIXELS
    if not data or len(data) % length:
        raise DataError(f"{name}: expected records of {length} bytes, received {len(data)} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    wrong = np.flatnonzero(records[:, label] >= layout.classes[label])
    if len(wrong):
        raise DataError(
            f"{name}: record {wrong[0]}: expected a label below {layout.classes[label]},"
            f" received {records[wrong[0], label]}"
        )
    return records


def _names(place: str, data: bytes, classes: int) -> list[str]:
    names = [line.strip() for line in data.decode(errors="replace").split("\n") if line.strip()]
    if len(names) != classes:
        raise DataError(f"{place}: expected {classes} names, received {len(names)}")
    return names


def _contents(data_file: str, wanted: tuple[str, ...], layout: Layout) -> dict[str, bytes]:
    """The bytes of those of the wanted files that are there."""
    place = Path(data_file)
    if place.is_dir():
        _refuse_pickles(data_file, layout, {path.name for path in place.iterdir()})
        return {n: (place / n).read_bytes() for n in wanted if (place / n).is_file()}
    if place.is_file() and tarfile.is_tarfile(place):
        try:
            return _unpacked(data_file, wanted, layout)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise DataError(f"{data_file}: expected a whole archive: {error}") from None
    received = "another file" if place.is_file() else "none"
    raise DataError(
        f"data_file: expected '{layout.archive}', or a folder with its files, at '{data_file}',"
        f" received {received}; it is published at {HOME}{layout.archive}"
    )


def _unpacked(data_file: str, wanted: tuple[str, ...], layout: Layout) -> dict[str, bytes]:
    with tarfile.open(data_file) as archive:
        members = {PurePosixPath(m.name).name: m for m in archive.getmembers() if m.isfile()}
        _refuse_pickles(data_file, layout, set(members))
        contents = {}
        for name in wanted:
            content = archive.extractfile(members[name]) if name in members else None
            if content is not None:
                contents[name] = content.read()
        return contents


def _refuse_pickles(data_file: str, layout: Layout, present: set[str]) -> None:
    binary = {name for names in layout.files.values() for name in names}
    if present & set(layout.pickled) and not present & binary:
        raise DataError(
            f"{data_file}: expected the binary version, received the Python version, whose files"
            " are pickles: opening one can run any code; the binary version is published at"
            f" {HOME}{layout.archive}"
        )


def _source(
    data_file: str, layout: Layout, split: Split, label: int, class_num: int | None
) -> Records:
    records = Records(data_file, layout, split, label)
    highest = records.labels.max()
    if class_num is not None and highest >= class_num:
        raise DataError(
            f"{data_file}: expected labels below Arch.class_num {class_num}, received {highest}"
        )
    return records


@DATASETS.register()
class Cifar10(PictureDataset):
    """CIFAR-10: 60,000 pictures of 32x32 in 10 classes.

    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Args:
        data_file: the archive ``cifar-10-binary.tar.gz``, or a folder with its files.
        mode: which of the two splits.
        download: accepted because published configurations write it; nothing is downloaded here.
        backend: accepted because published configurations write it; pictures are arrays here.
        transform_ops: what happens to each picture; None decodes only.
        on_error: a picture that cannot be read stops the run, or is skipped and counted.
        max_bad_ratio: largest part of an epoch's pictures that ``skip`` tolerates.
        class_num: number of classes of the network; labels have to be below it.

    Raises:
        DataError: a file is missing or wrong, or a pickle of the Python version.
    """

    def __init__(
        self,
        data_file: str,
        mode: Split,
        download: bool = True,
        backend: Literal["cv2", "pil"] = "cv2",
        transform_ops: Annotated[list[Transform] | None, Many(TRANSFORMS)] = None,
        on_error: OnError = "stop",
        max_bad_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01,
        *,
        class_num: int | None = None,
    ):
        source = _source(data_file, CIFAR10, mode, 0, class_num)
        super().__init__(source, transform_ops, on_error, max_bad_ratio)


@DATASETS.register()
class Cifar100(PictureDataset):
    """CIFAR-100: 60,000 pictures of 32x32 in 100 classes, which make up 20 coarse ones.

    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Args:
        data_file: the archive ``cifar-100-binary.tar.gz``, or a folder with its files.
        mode: which of the two splits.
        download: accepted because published configurations write it; nothing is downloaded here.
        backend: accepted because published configurations write it; pictures are arrays here.
        transform_ops: what happens to each picture; None decodes only.
        coarse: labels are the 20 coarse classes.
        on_error: a picture that cannot be read stops the run, or is skipped and counted.
        max_bad_ratio: largest part of an epoch's pictures that ``skip`` tolerates.
        class_num: number of classes of the network; labels have to be below it.

    Raises:
        DataError: a file is missing or wrong, or a pickle of the Python version.
    """

    def __init__(
        self,
        data_file: str,
        mode: Split,
        download: bool = True,
        backend: Literal["cv2", "pil"] = "pil",
        transform_ops: Annotated[list[Transform] | None, Many(TRANSFORMS)] = None,
        coarse: bool = False,
        on_error: OnError = "stop",
        max_bad_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01,
        *,
        class_num: int | None = None,
    ):
        source = _source(data_file, CIFAR100, mode, 0 if coarse else 1, class_num)
        super().__init__(source, transform_ops, on_error, max_bad_ratio)
