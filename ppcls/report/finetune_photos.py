"""What lies in a folder of photos: classes, what to learn from and to test with, what is broken."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppcls.data.datasets.base import Table
from ppcls.data.lists import LABEL_MAP, Entry, Lists, make_lists
from ppcls.errors import DataError
from ppcls.report.findings import look_alikes
from ppcls.report.page import counted, shown
from ppcls.report.samples import MOST_CLASSES
from ppcls.report.scan import READ, Scan

FEW = 20  # photos of a class to learn from; with fewer the result is luck


@dataclass(frozen=True)
class Photos:
    """Photos that can be trained on.

    Attributes:
        lists: the splits ``train``, and ``val`` or ``test`` or both, without the broken photos.
        origin: where the splits come from, in words.
        broken: path and reason of each photo that is left out.
        twins: paths of tested photos that look like one to learn from.
        side: median of the shorter sides, in pixels.
        warnings: what may spoil the result.
    """

    lists: Lists
    origin: str
    broken: list[str]
    twins: list[str]
    side: int
    warnings: list[str]

    @property
    def tested(self) -> str:
        """The split that the result is of: ``test`` if there is one."""
        return "test" if "test" in self.lists.splits else "val"

    def count(self, split: str) -> int:
        """Photos of a split."""
        return len(self.lists.splits[split])


def find_photos(folder: Path, val: float, seed: int, workers: int) -> Photos:
    """Looks at every photo once, and shares them out.

    ``train_list.txt`` with ``val_list.txt`` or ``test_list.txt`` counts first, then folders
    ``train``, ``val`` and ``test`` of class folders; class folders alone are shared out, in each
    class alike, and photos that look alike stay together.

    Args:
        val: part of each class to test with, where nothing is chosen yet.
        seed: another one is another share.
        workers: processes that decode.

    Raises:
        DataError: there is nothing to train on; the message says what is expected.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    if (folder / "train_list.txt").is_file():
        lists, origin = _from_lists(folder), "list files"
    else:
        lists, origin = _from_folders(folder, val, seed)
    paths = [str(folder / e.path) for split in lists.splits.values() for e in split]
    scan = _scanned(paths, workers)
    groups = [[paths[i] for i in group] for group in look_alikes(scan.facts)[1]]
    if origin == "class folders":
        lists = make_lists(folder, val, seed=seed, together=groups)
        origin = f"drawn with seed {seed}, {val:.0%} of each class to test with"
    broken = {paths[i]: reason for i, reason in scan.errors.items()}
    lists = _without(lists, set(broken))
    _check(lists)
    read = scan.facts[scan.facts["state"] == READ]
    side = int(np.median(np.minimum(read["width"], read["height"])))
    told = [f"{path}: {broken[path]}" for path in sorted(broken)]
    return Photos(lists, origin, told, _twins(lists, groups), side, _warnings(lists))


def _from_folders(folder: Path, val: float, seed: int) -> tuple[Lists, str]:
    splits = [name for name in ("train", "val", "test") if (folder / name).is_dir()]
    if not any(entry.is_dir() and entry.name[0] != "." for entry in folder.iterdir()):
        raise DataError(
            f"{folder}: expected a folder for each class, such as {folder / 'cat'} and "
            f"{folder / 'dog'}, with its photos; received none"
        )
    if splits == ["train", "test"]:
        from ppcls.data.datasets.folders import read_folders

        # To test with is chosen already: nothing is taken from what there is to learn from.
        tables = {"train": read_folders(str(folder / "train"), "Train")}
        tables["test"] = read_folders(str(folder / "test"), "Eval")
        names = tables["train"].class_names or []
        found = {split: _entries(folder, table) for split, table in tables.items()}
        return Lists(folder, names, found), "folders train and test"
    lists = make_lists(folder, val, seed=seed)
    origin = f"folders {' and '.join(splits)}" if "val" in splits else "class folders"
    return lists, origin


def _from_lists(folder: Path) -> Lists:
    from ppcls.data.datasets.listfile import read_list
    from ppcls.data.postprocess import read_class_names

    found = {}
    for split in ("train", "val", "test"):
        file = folder / f"{split}_list.txt"
        if file.is_file():
            found[split] = _entries(
                folder, read_list(str(folder), str(file), None, False, MOST_CLASSES)
            )
    if len(found) == 1:
        raise DataError(f"{folder}: expected val_list.txt or test_list.txt beside train_list.txt")
    if (folder / LABEL_MAP).is_file():
        return Lists(folder, read_class_names(str(folder / LABEL_MAP)), found)
    return Lists(folder, _names_of(found["train"]), found)


def _entries(folder: Path, table: Table) -> list[Entry]:
    labels = table.labels.tolist()
    paths = [os.path.relpath(table.path(row), folder) for row in range(len(labels))]
    entries = [Entry(path, label, path) for path, label in zip(paths, labels, strict=True)]
    return sorted(entries, key=lambda entry: entry.path)


def _names_of(entries: Sequence[Entry]) -> list[str]:
    """The folders of the classes, if each class has one of its own; else their numbers."""
    count = max(entry.label for entry in entries) + 1
    folders: dict[int, set[str]] = {}
    for entry in entries:
        folders.setdefault(entry.label, set()).add(Path(entry.path).parent.name)
    names = [next(iter(folders.get(label, {""}))) for label in range(count)]
    distinct = len(set(names)) == count and all(names)
    is_clear = distinct and all(len(found) == 1 for found in folders.values())
    return names if is_clear else [str(label) for label in range(count)]


class _Files:
    """Files, to be scanned."""

    def __init__(self, paths: Sequence[str]):
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> bytes:
        return Path(self._paths[index]).read_bytes()


def _scanned(paths: Sequence[str], workers: int) -> Scan:
    from tqdm import tqdm

    scan = Scan(_Files(paths), workers)
    quiet = not sys.stderr.isatty()
    with tqdm(total=len(paths), unit="photo", desc="looking", disable=quiet) as bar:
        for done in scan.run():
            bar.update(done - bar.n)
    return scan


def _without(lists: Lists, broken: set[str]) -> Lists:
    splits = {
        name: [entry for entry in entries if str(lists.root / entry.path) not in broken]
        for name, entries in lists.splits.items()
    }
    return Lists(lists.root, lists.class_names, splits)


def _check(lists: Lists) -> None:
    names = lists.class_names
    if len(names) < 2:
        raise DataError(
            f"{lists.root}: expected a folder for each of at least two classes, received one, "
            f"'{names[0]}': what should its photos be told from?"
        )
    learnt = {entry.label for entry in lists.splits["train"]}
    missing = [name for label, name in enumerate(names) if label not in learnt]
    if missing:
        raise DataError(f"{lists.root}: no photo to learn from that can be read: {_some(missing)}")
    for split, entries in lists.splits.items():
        if not entries:
            raise DataError(f"{lists.root}: no photos for {split} that can be read")


def _twins(lists: Lists, groups: Sequence[Sequence[str]]) -> list[str]:
    """Tested photos that look like one to learn from."""
    root, tested = lists.root, "test" if "test" in lists.splits else "val"
    learnt = {str(root / entry.path) for entry in lists.splits["train"]}
    of = {path: group for group in groups for path in group}
    return [
        entry.path
        for entry in lists.splits[tested]
        if any(path in learnt for path in of.get(str(root / entry.path), ()))
    ]


def _warnings(lists: Lists) -> list[str]:
    counts = {split: Counter(e.label for e in entries) for split, entries in lists.splits.items()}
    few, untested = [], []
    for label, name in enumerate(lists.class_names):
        learnt = counts["train"][label]
        if learnt < FEW:
            few.append(f"{shown(name)} ({learnt})")
        if not sum(count[label] for split, count in counts.items() if split != "train"):
            untested.append(shown(name))
    told = []
    if few:
        told.append(f"few photos to learn from, 50 are a start: {_some(few)}")
    if untested:
        told.append(f"no photo to test with, a class needs two for that: {_some(untested)}")
    return told


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{', '.join(names[:10])}{more}"


def described(photos: Photos) -> str:
    """Lines for a person: what was found, and what to beware of."""
    splits = photos.lists.splits
    parts = [f"{counted(photos.count(split), 'photo')} for {split}" for split in splits]
    classes = counted(len(photos.lists.class_names), "class")
    lines = [f"{photos.lists.root}: {classes}, {', '.join(parts)} ({photos.origin})"]
    lines += [f"left out: {shown(text)}" for text in photos.broken]
    lines += [f"warning: {text}" for text in photos.warnings]
    if photos.twins:
        count = len(photos.twins)
        what = "looks like one to learn from" if count == 1 else "look like some to learn from"
        lines.append(f"warning: {counted(count, 'photo')} of {photos.tested} {what}")
    return "\n".join(lines) + "\n"
