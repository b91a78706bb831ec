"""Reading and checking a list file: one `<path> <label>` a line."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ppcls.data.datasets.base import Table, existing, joined
from ppcls.errors import ArgumentError, DataError

SHOWN = 10  # problems of a list that one message shows
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LARGEST = 2**63 - 1


@dataclass
class _Entries:
    """What was read so far. ``problems`` holds (line, what is wrong)."""

    paths: list[bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)


def read_list(
    image_root: str,
    list_path: str,
    delimiter: str | None = None,
    relabel: bool = False,
    class_num: int | None = None,
) -> Table:
    """The samples of a list file in UTF-8; every problem in it is found before any is reported.

    Args:
        image_root: folder that the paths are relative to.
        delimiter: what separates path and label; its last occurrence in the line counts. None is
            any run of blanks and tabs.
        relabel: replaces the labels by 0, 1, ... in their order.
        class_num: labels have to be below it.

    Raises:
        DataError: a path that does not exist, an empty list, or problems in its lines: the first
            10 are shown as ``list:line: ...``.
        ArgumentError: an empty ``delimiter``.
    """
    if delimiter == "":
        raise ArgumentError("delimiter", "expected null or at least one character, received ''")
    existing(image_root, "folder", "image_root")
    path = existing(list_path, "file", "cls_label_path")
    entries = _parse(path.read_bytes(), delimiter)
    if not entries.paths and not entries.problems:
        raise DataError(f"{list_path}: expected lines '<path> <label>', received an empty list")
    _check_files(image_root, entries)
    labels = np.asarray(entries.labels, np.int64)
    if relabel:
        labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    _check_labels(labels, class_num, entries)
    _raise_problems(list_path, entries.problems)
    paths, ends = joined(entries.paths)
    lines = np.asarray(entries.lines, np.int64)
    return Table(image_root, paths, ends, labels, list_name=path.name, lines=lines)


def _parse(data: bytes, delimiter: str | None) -> _Entries:
    separator = None if delimiter is None else delimiter.encode()
    around = b" \t\r" if separator is None else b"\r"
    entries = _Entries()
    for number, raw in enumerate(data.removeprefix(BYTE_ORDER_MARK).split(b"\n"), 1):
        line = raw.strip(around)
        if not line.strip():
            continue
        path, label = _split(line, separator)
        if path and label is not None and _is_text(path):
            entries.paths.append(path)
            entries.labels.append(label)
            entries.lines.append(number)
        else:
            between = " " if delimiter is None else delimiter
            received = line.decode(errors="backslashreplace")
            problem = f"expected '<path>{between}<label>' in UTF-8, received {received!r}"
            entries.problems.append((number, problem))
    return entries


def _split(line: bytes, separator: bytes | None) -> tuple[bytes, int | None]:
    path, *rest = line.rsplit(separator, 1)
    digits = rest[0].strip() if rest else b""
    # int() alone would also take `1_0` and `+1`.
    if not digits.removeprefix(b"-").isdigit() or abs(int(digits[:30])) > LARGEST:
        return path, None
    return path, int(digits)


def _is_text(path: bytes) -> bool:
    if path.isascii():
        return b"\0" not in path
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in path


def _check_files(image_root: str, entries: _Entries) -> None:
    """Notes the entries without a file.

    Each folder is listed once: one question a file takes minutes on a network drive.
    """
    root = os.fsencode(image_root)
    by_folder: dict[bytes, list[int]] = defaultdict(list)
    for index, path in enumerate(entries.paths):
        by_folder[os.path.dirname(path)].append(index)  # noqa: PTH120 (bytes)
    for folder, indices in by_folder.items():
        names = _files_in(os.path.join(root, folder))  # noqa: PTH118 (bytes)
        for index in indices:
            path = entries.paths[index]
            if os.path.basename(path) not in names:  # noqa: PTH119 (bytes)
                where = os.fsdecode(os.path.join(root, path))  # noqa: PTH118 (bytes)
                problem = f"expected a file at '{where}', received none"
                entries.problems.append((entries.lines[index], problem))


def _files_in(folder: bytes) -> set[bytes]:
    """Names that can be opened as files; without folders and links that lead nowhere."""
    try:
        with os.scandir(folder) as listing:
            return {
                entry.name
                for entry in listing
                if not entry.is_dir()
                and not (entry.is_symlink() and not Path(os.fsdecode(entry.path)).exists())
            }
    except OSError:
        return set()


def _check_labels(labels: np.ndarray, class_num: int | None, entries: _Entries) -> None:
    wrong = labels < 0
    if class_num is not None:
        wrong |= labels >= class_num
    below = "" if class_num is None else f" and below class_num {class_num}"
    for index in np.flatnonzero(wrong):
        problem = f"expected a label >= 0{below}, received {labels[index]}"
        entries.problems.append((entries.lines[index], problem))


def _raise_problems(list_path: str, problems: list[tuple[int, str]]) -> None:
    if not problems:
        return
    problems.sort()
    shown = [f"{list_path}:{line}: {problem}" for line, problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        shown.append(f"... and {len(problems) - SHOWN} more problems in {list_path}")
    raise DataError("\n".join(shown))
