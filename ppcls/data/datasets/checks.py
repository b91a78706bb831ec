"""What may be wrong with the lines of a list: gathered completely, then reported at once."""

from __future__ import annotations

import bisect
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ppcls.errors import DataError

SHOWN = 10  # problems of a list that one message shows
ROWS = 1 << 15  # rows of a list that are worked on at once


class Problems:
    """Problems of a list, in the order of its lines; those that are not shown are only counted.

    Args:
        list_path: what the messages call the list.
    """

    def __init__(self, list_path: str):
        self._list_path = list_path
        self._first: list[tuple[int, str]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, line: int, text: str) -> None:
        """Notes that ``line`` is wrong."""
        self._count += 1
        if len(self._first) < SHOWN or (line, text) < self._first[-1]:
            bisect.insort(self._first, (line, text))
            del self._first[SHOWN:]

    def add_rows(self, rows: np.ndarray, lines: np.ndarray, describe: Callable[[int], str]) -> None:
        """Notes that samples are wrong.

        Args:
            rows: int64 [M], ascending.
            lines: int64 [N], the line of each sample.
            describe: from a row to what is wrong with it; called for those that are shown.
        """
        for row in rows[:SHOWN].tolist():
            self.add(int(lines[row]), describe(row))
        self._count += max(0, len(rows) - SHOWN)

    def report(self) -> None:
        """Raises DataError if there are any: the first 10 as ``list:line: ...``."""
        if not self._count:
            return
        shown = [f"{self._list_path}:{line}: {text}" for line, text in self._first]
        if self._count > SHOWN:
            shown.append(f"... and {self._count - SHOWN} more problems in {self._list_path}")
        raise DataError("\n".join(shown))


def note_missing_files(
    root: str, paths: bytes, ends: np.ndarray, lines: np.ndarray, problems: Problems
) -> None:
    """Notes the samples without a file.

    Args:
        root: folder that the paths are relative to.
        paths: all paths, one behind the other.
        ends: int64 [N], where each path ends in ``paths``.
        lines: int64 [N], the line of each sample.
    """

    def describe(row: int) -> str:
        path = paths[int(ends[row - 1]) if row else 0 : int(ends[row])]
        where = os.fsdecode(os.path.join(os.fsencode(root), path))  # noqa: PTH118 (bytes)
        return f"expected a file at '{where}', received none"

    problems.add_rows(missing_files(root, paths, ends), lines, describe)


def missing_files(root: str, paths: bytes, ends: np.ndarray) -> np.ndarray:
    """int64 [M]: the rows, ascending, whose path is not that of a file.

    Each folder is listed once: one question a file takes minutes on a network drive. Names are
    compared by their 64-bit hashes, which take a tenth of the memory; a missing file among a
    million passes with a probability of 10^-13, and is found when it is read.
    """
    folders, numbers, names = _folders(paths, ends)
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(len(folders) + 1))
    missing = [np.zeros(0, np.int64)]
    for folder, first, last in zip(folders, bounds[:-1], bounds[1:], strict=True):
        rows = order[first:last]
        here = np.fromiter(_files(os.path.join(os.fsencode(root), folder)), np.int64)  # noqa: PTH118
        missing.append(rows[~_contains(np.sort(here), names[rows])])
    return np.sort(np.concatenate(missing))


def _contains(sorted_values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which of ``wanted`` are there; numpy.isin takes five times as long for a thousand."""
    if not len(sorted_values):
        return np.zeros(len(wanted), bool)
    return sorted_values.take(np.searchsorted(sorted_values, wanted), mode="clip") == wanted


def _folders(paths: bytes, ends: np.ndarray) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """The folders, the number of each path's folder, and the hash of each path's name."""
    folders: defaultdict[bytes, int] = defaultdict(itertools.count().__next__)
    numbers = np.empty(len(ends), np.int32)
    names = np.empty(len(ends), np.int64)
    for first in range(0, len(ends), ROWS):
        stops = ends[first : first + ROWS]
        begin = int(ends[first - 1]) if first else 0
        starts = np.concatenate([[begin], stops[:-1]])
        block = np.frombuffer(paths, np.uint8, int(stops[-1]) - begin, begin)
        slashes = np.concatenate([[-1], np.flatnonzero(block == ord("/"))]) + begin
        # Behind the last slash; the folder keeps it, so that "/name" is absolute.
        splits = np.maximum(starts, slashes[np.searchsorted(slashes, stops) - 1] + 1)
        part = slice(first, first + len(stops))
        heads = _pieces(paths, starts, splits)
        numbers[part] = np.fromiter(map(folders.__getitem__, heads), np.int32, len(stops))
        tails = _pieces(paths, splits, stops)
        names[part] = np.fromiter(map(hash, tails), np.int64, len(stops))
    return list(folders), numbers, names


def _pieces(data: bytes, starts: np.ndarray, stops: np.ndarray) -> Iterator[bytes]:
    return map(data.__getitem__, map(slice, starts.tolist(), stops.tolist()))


def _files(folder: bytes) -> Iterator[int]:
    """Hashes of the names that can be opened as files: no folders, no links that lead nowhere."""
    try:
        with os.scandir(folder) as listing:
            for entry in listing:
                # The first question needs no call to the system, and nearly always suffices.
                if entry.is_file(follow_symlinks=False) or _opens(entry):
                    yield hash(entry.name)
    except OSError:
        return


def _opens(entry: os.DirEntry[bytes]) -> bool:
    return not entry.is_dir() and Path(os.fsdecode(entry.path)).exists()


def note_wrong_labels(
    labels: np.ndarray, class_num: int | None, lines: np.ndarray, problems: Problems
) -> None:
    """Notes the samples whose label is negative, or not below ``class_num``.

    Args:
        labels: int64 [N].
        lines: int64 [N], the line of each sample.
    """
    wrong = labels < 0
    if class_num is not None:
        wrong |= labels >= class_num
    below = "" if class_num is None else f" and below Arch.class_num {class_num}"
    problems.add_rows(
        np.flatnonzero(wrong),
        lines,
        lambda row: f"expected a label >= 0{below}, received {labels[row]}",
    )
