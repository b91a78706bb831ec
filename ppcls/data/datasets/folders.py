"""Reading a data set from folders: the name of a sub-folder is the class of its pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.data.datasets.base import Mode, Table, existing, joined
from ppcls.errors import DataError

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"}
    | {".pgm", ".pbm"}
)
SPLITS: dict[str, str] = {"Train": "train", "Eval": "val"}
EVAL_NAMES = ("val", "valid", "validation", "test")


def read_folders(image_root: str, mode: Mode, class_num: int | None = None) -> Table:
    """One class per sub-folder, in the sorted order of their names.

    Pictures are found by extension, at any depth below the class folder; names that start with a
    dot are left out. ``image_root/train`` and ``image_root/val`` are used for training and
    evaluation if there are such folders. Evaluation takes the order of the classes from the
    ``train`` folder within or beside its own folder, so that the labels agree.

    Args:
        class_num: there may not be more classes.

    Raises:
        DataError: no folder, no classes, an empty class folder, more classes than ``class_num``,
            a class that is evaluated but not trained, or a folder that cannot be read.
    """
    root = existing(image_root, "folder", "image_root")
    folder = _split_folder(root, mode)
    try:
        names = _subfolders(folder)
        if not names:
            raise DataError(f"{folder}: expected one sub-folder per class, received none")
        classes = _class_order(root, folder, names, mode)
        if class_num is not None and len(classes) > class_num:
            raise DataError(
                f"{folder}: expected at most Arch.class_num {class_num} class folders,"
                f" received {len(classes)}"
            )
        return _table(folder, names, classes)
    except OSError as error:
        raise DataError(f"{os.fsdecode(error.filename)}: {error.strerror}") from None


def _split_folder(root: Path, mode: Mode) -> Path:
    if not any((root / split).is_dir() for split in SPLITS.values()):
        return root
    folder = root / SPLITS[mode]
    if not folder.is_dir():
        other = "val" if mode == "Train" else "train"
        raise DataError(
            f"{root}: expected a folder '{folder.name}' beside '{other}' for mode {mode},"
            " received none"
        )
    return folder


def _class_order(root: Path, folder: Path, names: list[str], mode: Mode) -> list[str]:
    train = root / "train"
    if not train.is_dir() and root.name in EVAL_NAMES:
        train = root.parent / "train"
    if mode != "Eval" or not train.is_dir():
        return names
    classes = _subfolders(train)
    unknown = [name for name in names if name not in set(classes)]
    if unknown:
        raise DataError(
            f"{folder}: expected only classes that '{train}' has, received"
            f" {', '.join(map(repr, unknown[:10]))}"
        )
    return classes


def _table(folder: Path, names: list[str], classes: list[str]) -> Table:
    label = {name: index for index, name in enumerate(classes)}
    paths: list[bytes] = []
    labels: list[np.ndarray] = []
    empty: list[str] = []
    for name in names:
        found = _pictures(os.fsencode(folder / name), os.fsencode(name), set())
        if not found:
            empty.append(str(folder / name))
        paths += found
        labels.append(np.full(len(found), label[name], np.int64))
    if empty:
        raise DataError(
            f"expected pictures ({' '.join(sorted(PICTURE_SUFFIXES))}) in every class folder,"
            f" received none in {', '.join(map(repr, empty[:10]))}"
        )
    block, ends = joined(paths)
    return Table(str(folder), block, ends, np.concatenate(labels), class_names=classes)


def is_folder(entry: os.DirEntry[Any]) -> bool:
    """Whether it is a folder, or leads to one; a link that leads to itself does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as listing:
        return sorted(e.name for e in listing if is_folder(e) and not e.name.startswith("."))


def _pictures(folder: bytes, relative: bytes, seen: set[bytes]) -> list[bytes]:
    """Relative paths of the pictures below ``folder``, sorted folder by folder."""
    real = os.path.realpath(folder)
    if real in seen:  # a link that leads back up
        return []
    seen.add(real)
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    found: list[bytes] = []
    for entry in entries:
        path = os.path.join(relative, entry.name)  # noqa: PTH118 (bytes)
        if entry.name.startswith(b"."):
            continue
        if is_folder(entry):
            found += _pictures(entry.path, path, seen)
        elif os.path.splitext(entry.name)[1].lower().decode("latin-1") in PICTURE_SUFFIXES:  # noqa: PTH122
            found.append(path)
    return found
