"""What is to be looked at: the splits of a folder, of list files or of a configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.data.datasets import PICTURE_SUFFIXES
from ppcls.data.datasets.base import Mode, Source, Table, joined
from ppcls.data.datasets.folders import EVAL_NAMES, SPLITS, is_folder
from ppcls.data.datasets.listfile import read_list
from ppcls.data.postprocess import read_class_names
from ppcls.errors import DataError

if TYPE_CHECKING:
    from ppcls.config import Config

SPLIT_NAMES = ("train", *EVAL_NAMES)
MOST_CLASSES = 1_000_000  # of list files: they are counted one by one


@dataclass(frozen=True)
class Split:
    """One data set.

    Attributes:
        name: ``train``, ``val``, or what else it is called.
        source: where its pictures come from.
        rows: int64 [N], the rows of the source that belong to it.
        labels: int64 [N], or float32 [N, C] with one target per class.
        left_out: files beside the pictures that no training reads.
    """

    name: str
    source: Source
    rows: np.ndarray
    labels: np.ndarray
    left_out: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class Samples:
    """The samples of all splits, numbered one split after the other.

    Attributes:
        title: what a person asked for.
        class_names: in the order of the labels, or None.
        class_num: number of classes.
    """

    title: str
    splits: list[Split]
    class_names: list[str] | None = None
    class_num: int = 0
    _starts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._starts = np.cumsum([0, *map(len, self.splits)])
        named = len(self.class_names or ())
        labels = [split.labels for split in self.splits]
        used = (n.shape[1] if n.ndim == 2 else int(n.max()) + 1 for n in labels)
        self.class_num = max(self.class_num, named, *used)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def split_number(self, indices: np.ndarray | int) -> np.ndarray:
        """Which split each sample is of."""
        return np.searchsorted(self._starts, indices, side="right") - 1

    def split_of(self, index: int) -> Split:
        """The split of a sample."""
        return self.splits[int(self.split_number(index))]

    def read(self, index: int) -> bytes | np.ndarray:
        """The file of a sample, or its pixels; raises what its source does."""
        split, place = self._place(index)
        return split.source.read(int(split.rows[place]))

    def path(self, index: int) -> str:
        """The file of a sample."""
        split, place = self._place(index)
        return split.source.path(int(split.rows[place]))

    def label(self, index: int) -> tuple[int, ...]:
        """The classes of a sample: one, or those with a target of at least a half."""
        split, place = self._place(index)
        label = split.labels[place]
        return (int(label),) if label.ndim == 0 else tuple(np.flatnonzero(label >= 0.5).tolist())

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where there are no names."""
        names = self.class_names or ()
        return names[label] if label < len(names) else str(label)

    def label_text(self, index: int) -> str:
        """The names of a sample's classes."""
        return ", ".join(map(self.class_name, self.label(index))) or "none"

    def _place(self, index: int) -> tuple[Split, int]:
        number = int(self.split_number(index))
        return self.splits[number], index - int(self._starts[number])


def samples_of_folder(root: Path) -> Samples:
    """The class folders in ``root``, or in its ``train``, ``val`` and ``test``.

    Looks where ``ImageFolder`` does, but takes what that refuses, so that it can be told.

    Raises:
        DataError: there are no pictures.
    """
    is_split = any((root / split).is_dir() for split in SPLITS.values())
    names = [n for n in SPLIT_NAMES if (root / n).is_dir()] if is_split else [""]
    found = {name: _Found(root / name) for name in names}
    classes = sorted({c for split in found.values() for c in split.classes})
    if train := found.get("train"):
        classes = [*train.classes, *(c for c in classes if c not in set(train.classes))]
    if not any(split.paths for split in found.values()):
        suffixes = " ".join(sorted(PICTURE_SUFFIXES))
        raise DataError(f"{root}: expected pictures ({suffixes}), received none")
    splits = [split.split(name or root.name, classes) for name, split in found.items()]
    return Samples(str(root), [s for s in splits if len(s)], classes or [root.name])


def samples_of_lists(
    lists: Sequence[Path], image_root: str | None, delimiter: str | None, names: str | None
) -> Samples:
    """List files, each a split of its own.

    Args:
        image_root: folder that paths are relative to; None is the folder of each list.
        delimiter: as ``delimiter`` of a data set.
        names: file with the names of the classes.

    Raises:
        DataError: a list is wrong, or a file that it names is missing.
    """
    splits = []
    for path in lists:
        root = image_root or str(path.parent)
        table = read_list(root, str(path), delimiter, class_num=MOST_CLASSES)
        splits.append(Split(path.stem, table, np.arange(len(table.labels)), table.labels))
    class_names = read_class_names(names) if names else None
    return Samples(", ".join(map(str, lists)), splits, class_names)


def samples_of_config(config: Config) -> Samples:
    """What training and evaluation read.

    Raises:
        ConfigError: there is neither ``DataLoader.Train`` nor ``DataLoader.Eval``.
        DataError: a data set is wrong.
    """
    from ppcls.engine.batch import build_reader
    from ppcls.engine.distributed import World
    from ppcls.engine.logging import make_logger

    both: tuple[Mode, Mode] = ("Train", "Eval")
    modes = [mode for mode in both if getattr(config.DataLoader, mode, None)]
    if not modes:
        config.require("DataLoader.Train", purpose="checking data")
    logger = make_logger(stream=sys.stderr)
    splits, names = [], class_names_of(config)
    for mode in modes:
        getattr(config.DataLoader, mode).loader.num_workers = 0  # it is only asked what it reads
        dataset: Any = build_reader(config, mode, World(), logger).dataset
        rows = np.fromiter(map(dataset.row, range(len(dataset))), np.int64, len(dataset))
        splits.append(Split(SPLITS[mode], dataset.source, rows, dataset.labels))
        names = dataset.class_names or names
    return Samples(config.path, splits, names, config.Arch.arguments["class_num"])


def class_names_of(config: Config) -> list[str] | None:
    """The names in the file that ``Infer.PostProcess`` gives; None without one."""
    post_process = config.Infer.PostProcess if config.Infer else None
    arguments = post_process.arguments if post_process else {}
    file = arguments.get("class_id_map_file")
    return read_class_names(file, arguments.get("delimiter")) if file else None


class _Found:
    """The files below a split's folder; names that start with a dot do not count."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths: list[bytes] = []
        self.names: list[str] = []
        self.left_out: list[str] = []
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        entries = [entry for entry in entries if not entry.name.startswith(".")]
        self.classes = [entry.name for entry in entries if is_folder(entry)]
        for entry in entries:
            if is_folder(entry):
                self._walk(os.fsencode(entry.path), entry.name, set())
            elif _is_picture(entry.name) and self.classes:
                self.left_out.append(entry.path)
            elif _is_picture(entry.name):  # a folder of pictures without labels
                self._add(os.fsencode(entry.path), folder.name)

    def split(self, name: str, classes: list[str]) -> Split:
        """Everything found, with the places of the class names as labels."""
        number = {name: index for index, name in enumerate(classes)}
        labels = np.asarray([number.get(name, 0) for name in self.names], np.int64)
        block, ends = joined(self.paths)
        table = Table(str(self.folder), block, ends, labels, class_names=classes)
        return Split(name, table, np.arange(len(labels)), labels, self.left_out)

    def _add(self, path: bytes, class_name: str) -> None:
        self.paths.append(os.path.relpath(path, os.fsencode(self.folder)))
        self.names.append(class_name)

    def _walk(self, folder: bytes, class_name: str, seen: set[bytes]) -> None:
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            return
        seen.add(real)
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            if is_folder(entry):
                self._walk(entry.path, class_name, seen)
            elif _is_picture(os.fsdecode(entry.name)):
                self._add(entry.path, class_name)
            else:
                self.left_out.append(os.fsdecode(entry.path))


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURE_SUFFIXES
