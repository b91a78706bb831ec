"""Making list files: from class folders to train, validation and test lists and a label map."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppcls.data.datasets.base import Table
from ppcls.data.datasets.folders import SPLITS, read_folders
from ppcls.data.datasets.listfile import read_list
from ppcls.data.postprocess import read_class_names
from ppcls.errors import ArgumentError, DataError, EnvironmentProblem

LABEL_MAP = "label_map.txt"
SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Entry:
    """A picture: its path below the root, its class, and what it must not be parted from."""

    path: str
    label: int
    group: str


@dataclass(frozen=True)
class Lists:
    """What goes into the files.

    Attributes:
        class_names: in the order of the labels.
        splits: name -> pictures, sorted by their paths.
    """

    root: Path
    class_names: list[str]
    splits: dict[str, list[Entry]]

    def file(self, split: str) -> str:
        """Name of the list file of a split."""
        return f"{split}_list.txt"


def make_lists(
    root: Path,
    val: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    group: str | None = None,
    together: Sequence[Sequence[str]] = (),
) -> Lists:
    """Shares the pictures of class folders out, in each class alike.

    Which list a picture goes to depends on the seed and its path only, up to rounding: adding
    pictures moves few of the others. A split with a folder of its own (``root/train``,
    ``root/val``, ``root/test``) stays as it is; the others are drawn from ``root/train``.

    Args:
        root: the class folders, or the folders of the splits.
        val: part of each class for validation, rounded, but at least one picture if there are two.
        test: part of each class for the test list, likewise if there are three.
        group: a regular expression; pictures with equal matches in their paths stay together.
            Its first bracket counts, if it has one; a path without a match is a group of its own.
        together: groups of files that stay together, such as near-duplicates; the last counts
            of those that a file is in.

    Raises:
        ArgumentError: parts that leave nothing to train on, or a wrong expression.
        DataError: the folders are wrong, see ``ppcls.data.datasets.folders.read_folders``.
    """
    if val < 0 or test < 0 or val + test >= 1:
        received = f"received {val:g} and {test:g}"
        raise ArgumentError("val", f"expected val >= 0, test >= 0, val + test < 1, {received}")
    try:
        pattern = re.compile(group) if group is not None else None
    except re.error as error:
        raise ArgumentError("group", f"expected a regular expression: {error}") from None
    alike = {os.path.realpath(file): f"|{files[0]}" for files in together for file in files}
    tables = _tables(root)
    entries = {name: _entries(root, table, pattern, alike) for name, table in tables.items()}
    wanted = {"val": val, "test": test}
    drawn = _shared_out(
        entries["train"], {n: part for n, part in wanted.items() if n not in tables and part}, seed
    )
    splits = {**entries, **drawn}
    names = tables["train"].class_names or []
    ordered = {n: sorted(splits[n], key=lambda e: e.path) for n in SPLIT_NAMES if n in splits}
    return Lists(root, names, ordered)


def write_lists(lists: Lists, out: Path, force: bool = False) -> list[Path]:
    """Writes the files, after reading them as training will.

    Returns:
        The files.

    Raises:
        DataError: a file is there already, or a name cannot stand in a list.
        EnvironmentProblem: they cannot be written.
    """
    texts = {
        lists.file(split): "".join(f"{entry.path} {entry.label}\n" for entry in entries)
        for split, entries in lists.splits.items()
    }
    texts[LABEL_MAP] = "".join(f"{i} {name}\n" for i, name in enumerate(lists.class_names))
    possible = (*map(lists.file, SPLIT_NAMES), LABEL_MAP)
    there = [name for name in possible if (out / name).exists()]
    stale = [name for name in there if name not in texts]
    if there and not force:
        raise DataError(f"{out / there[0]} is there already; --force writes it again")
    if stale:
        raise DataError(f"{out / stale[0]} is of other lists; remove it, or write it too")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".lists-", dir=out) as scratch:
            for name, text in texts.items():
                (Path(scratch) / name).write_bytes(os.fsencode(text))
            _check(lists, Path(scratch))
            for name in texts:
                (Path(scratch) / name).replace(out / name)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write to {out}: {error.strerror}") from error
    return [out / name for name in texts]


def _tables(root: Path) -> dict[str, Table]:
    """What is in the folder of each split; ``train`` is the whole folder if there are none."""
    if not any((root / name).is_dir() for name in SPLITS.values()):
        return {"train": read_folders(str(root), "Train")}
    tables = {"train": read_folders(str(root), "Train")}
    for name in ("val", "test"):
        if (root / name).is_dir():
            tables[name] = read_folders(str(root / name), "Eval")
    return tables


def _entries(
    root: Path, table: Table, pattern: re.Pattern[str] | None, alike: Mapping[str, str]
) -> list[Entry]:
    entries = []
    for row, label in enumerate(table.labels.tolist()):
        path = os.path.relpath(table.path(row), root)
        match = pattern.search(path) if pattern else None
        parts = match.groups() if match else ()
        # The bar keeps a match apart from the paths, which are groups of their own.
        group = f"|{parts[0] if parts else match[0]}" if match else path
        if alike:
            group = alike.get(os.path.realpath(table.path(row)), group)
        entries.append(Entry(path, label, group))
    return entries


def _shared_out(entries: list[Entry], parts: dict[str, float], seed: int) -> dict[str, list[Entry]]:
    """Gives whole groups, in an order by their digests, to the splits that still lack pictures."""
    counts = np.bincount([entry.label for entry in entries])
    quotas = _quotas(counts, parts)
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    splits: dict[str, list[Entry]] = {"train": [], **{name: [] for name in parts}}
    for key in sorted(groups, key=lambda key: _digest(seed, key)):
        need = np.bincount([entry.label for entry in groups[key]], minlength=len(counts))
        for name, quota in quotas.items():
            if (need <= quota).all():
                quota -= need
                splits[name] += groups[key]
                break
        else:
            splits["train"] += groups[key]
    return splits


def _quotas(counts: np.ndarray, parts: dict[str, float]) -> dict[str, np.ndarray]:
    """Pictures of each class for each split; at least one stays to train on.

    A split gets its part of a class, rounded, but at least one picture if there are enough.
    """
    left, quotas = counts - 1, {}
    for name, part in parts.items():
        wanted = np.maximum((counts * part + 0.5).astype(np.int64), counts > len(parts))
        quotas[name] = np.minimum(wanted, left)
        left = left - quotas[name]
    return quotas


def _digest(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}|".encode() + os.fsencode(key), digest_size=16).digest()


def _check(lists: Lists, folder: Path) -> None:
    """Raises DataError unless the files read back as what was meant."""
    for split, entries in lists.splits.items():
        path = folder / lists.file(split)
        if not entries:
            raise DataError(f"no pictures for {path.name}: choose other parts, or no group")
        awkward = [entry.path for entry in entries if not _is_clean(entry.path)]
        if awkward:
            raise DataError(f"{awkward[0]!r}: such a name cannot stand in a list; rename the file")
        table = read_list(str(lists.root), str(path), class_num=len(lists.class_names))
        _check_same(table, lists.root, entries)
    for name in lists.class_names:
        if not _is_clean(name):
            raise DataError(f"{name!r}: such a name cannot stand in a label map; rename the folder")
    if read_class_names(str(folder / LABEL_MAP)) != lists.class_names:
        raise DataError(f"{LABEL_MAP}: the names of the classes do not read back")


def _check_same(table: Table, root: Path, entries: Sequence[Entry]) -> None:
    for row, entry in enumerate(entries):
        path = os.path.relpath(table.path(row), root)
        if path != entry.path:
            raise DataError(f"{entry.path!r}: reads back as {path!r}; rename the file")


def _is_clean(name: str) -> bool:
    """Whether a line holds a name unchanged."""
    encodable = not any("\ud800" <= character <= "\udfff" for character in name)
    return encodable and name == name.strip() and not set(name) & set("\n\r\0")
