"""Reading and checking a list file: one `<path> <label>` a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ppcls.data.datasets.base import Table, existing
from ppcls.data.datasets.checks import Problems, note_missing_files, note_wrong_labels
from ppcls.errors import ArgumentError, DataError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LARGEST = 2**63 - 1
BLOCK = 1 << 22  # bytes of a list that are worked on at once
DIGITS = 18  # that a label surely may have in 64 bits


@dataclass(frozen=True)
class Entries:
    """The samples of a list, held as a :class:`~ppcls.data.datasets.base.Table` holds them.

    Attributes:
        paths: all paths, one behind the other.
        ends: int64 [N], where each path ends in ``paths``.
        labels: int64 [N].
        lines: int64 [N], counted from 1.
    """

    paths: bytes
    ends: np.ndarray
    labels: np.ndarray
    lines: np.ndarray


def read_list(
    image_root: str,
    list_path: str,
    delimiter: str | None = None,
    relabel: bool = False,
    class_num: int | None = None,
    check_files: bool = True,
) -> Table:
    """The samples of a list file in UTF-8; every problem in it is found before any is reported.

    Args:
        image_root: folder that the paths are relative to.
        delimiter: what separates path and label; its last occurrence in the line counts. None is
            any run of blanks and tabs.
        relabel: replaces the labels by 0, 1, ... in their order.
        class_num: labels have to be below it.
        check_files: whether a path without a file is a problem; each folder is listed once.

    Raises:
        DataError: an empty list, or problems in its lines: the first 10 are shown as
            ``list:line: ...``.
        ArgumentError: an empty ``delimiter``.
    """
    separator = encoded(delimiter)
    existing(image_root, "folder", "image_root")
    path = existing(list_path, "file", "cls_label_path")
    problems = Problems(list_path)
    with path.open("rb") as file:
        entries = parse(file, separator, problems)
    if check_files:
        note_missing_files(image_root, entries.paths, entries.ends, entries.lines, problems)
    labels = entries.labels
    if relabel:
        labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    note_wrong_labels(labels, class_num, entries.lines, problems)
    problems.report()
    if not len(labels):
        raise DataError(f"{list_path}: expected lines '<path> <label>', received an empty list")
    return Table(
        image_root,
        entries.paths,
        entries.ends,
        labels,
        list_name=path.name,
        lines=entries.lines,
    )


def encoded(delimiter: str | None) -> bytes | None:
    """The bytes of a delimiter; raises ArgumentError if there are none."""
    if delimiter == "":
        raise ArgumentError("delimiter", "expected null or at least one character, received ''")
    return None if delimiter is None else delimiter.encode()


def parse(file: BinaryIO, separator: bytes | None, problems: Problems) -> Entries:
    """The samples of a list; lines that are none go to ``problems``.

    The list is read in blocks of whole lines, and each block by operations on all its lines at
    once; only unusual lines, and those of a block with bytes that are not text, are looked at one
    by one.
    """
    paths: list[bytes] = []
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    line = 0
    while block := file.read(BLOCK) + file.readline():
        begins, ends = _lines(block)
        if not line and block.startswith(BYTE_ORDER_MARK):
            begins[0] = len(BYTE_ORDER_MARK)
        starts, stops, labels, usual = _usual(block, begins, ends, separator)
        for row in np.flatnonzero(~usual).tolist():
            raw = block[begins[row] : ends[row]]
            found = _unusual(raw, separator)
            if isinstance(found, str):
                problems.add(line + row + 1, found)
            elif found is not None:
                start, length, labels[row] = found
                starts[row] = begins[row] + start
                stops[row] = starts[row] + length
                usual[row] = True
        starts, stops = starts[usual], stops[usual]
        paths.append(_cut(block, starts, stops))
        columns.append((stops - starts, labels[usual], np.flatnonzero(usual) + (line + 1)))
        line += len(begins)
    ends = np.cumsum(_joined([column[0] for column in columns]))
    labels = _joined([column[1] for column in columns])
    return Entries(b"".join(paths), ends, labels, _joined([column[2] for column in columns]))


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *arrays])


def _lines(block: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where each line of a block of whole lines begins, and where its end-of-line is."""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    return np.concatenate([[0], ends[:-1] + 1]), ends


def _usual(
    block: bytes, begins: np.ndarray, ends: np.ndarray, separator: bytes | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads all lines that are a path, one separator and digits.

    Returns:
        For each line where its path starts and stops, its label, and whether these are right.
    """
    data = np.frombuffer(block, np.uint8)

    def at(positions: np.ndarray) -> np.ndarray:
        return data.take(positions, mode="clip")

    ends = ends - (at(ends - 1) == ord("\r"))
    splits = ends.copy()
    labels = np.zeros(len(ends), np.int64)
    counting = np.full(len(ends), is_text(block))
    for digit in range(DIGITS):
        value = at(splits - 1) - ord("0")  # unsigned: what is no digit is above 9
        counting &= (value <= 9) & (splits > begins)
        if not counting.any():
            break
        labels += np.where(counting, value, 0).astype(np.int64) * 10**digit
        splits -= counting
    usual = splits < ends
    if separator is None:
        stops = splits - 1
        usual &= ((at(stops) == ord(" ")) | (at(stops) == ord("\t"))) & (at(stops - 1) > ord(" "))
    else:
        stops = splits - len(separator)
        for offset, byte in enumerate(separator):
            usual &= at(stops + offset) == byte
    usual &= (stops > begins) & (at(begins) > ord(" "))
    return begins.copy(), stops, labels, usual


def _unusual(raw: bytes, separator: bytes | None) -> tuple[int, int, int] | str | None:
    """Start and length of the path of a line and its label; or what is wrong; or None: empty."""
    around = b" \t\r" if separator is None else b"\r"
    line = raw.strip(around)
    if not line.strip():
        return None
    path, label = split(line, separator)
    # int() alone would also take `1_0` and `+1`.
    digits = label.removeprefix(b"-")
    if path and is_text(path) and digits.isdigit() and int(digits[:30]) <= LARGEST:
        return len(raw) - len(raw.lstrip(around)), len(path), int(label)
    return unreadable(line, separator, "label")


def split(line: bytes, separator: bytes | None) -> tuple[bytes, bytes]:
    """Path and label of a line; an empty label if there is none."""
    path, *rest = line.rsplit(separator, 1)
    return path, rest[0].strip() if rest else b""


def unreadable(line: bytes, separator: bytes | None, label: str) -> str:
    """What is wrong with a line that is no path and label."""
    between = " " if separator is None else separator.decode()
    received = line.decode(errors="backslashreplace")
    return f"expected '<path>{between}<{label}>' in UTF-8, received {received!r}"


def is_text(data: bytes) -> bool:
    """Whether it is UTF-8 without a zero byte, which no path can hold."""
    if b"\0" in data:
        return False
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cut(block: bytes, starts: np.ndarray, stops: np.ndarray) -> bytes:
    """The pieces of a block, one behind the other; there are bytes between them."""
    edges = np.zeros(len(block) + 1, np.int8)
    edges[starts] = 1
    edges[stops] = -1
    inside = np.cumsum(edges[:-1], dtype=np.int8).view(bool)
    return np.frombuffer(block, np.uint8)[inside].tobytes()
