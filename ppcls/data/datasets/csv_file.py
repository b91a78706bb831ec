"""Pictures listed in a CSV file, as spreadsheets and competitions give them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ppcls.data.datasets.base import PictureDataset, Table, existing, joined
from ppcls.data.datasets.checks import SHOWN, Problems, note_missing_files, note_wrong_labels
from ppcls.data.datasets.folders import PICTURE_SUFFIXES
from ppcls.data.transforms.base import Transform
from ppcls.errors import ArgumentError, DataError, suggestion
from ppcls.registry import DATASETS, TRANSFORMS, Many

Row = tuple[int, list[str]]  # line, cells


@DATASETS.register()
class CSVDataset(PictureDataset):
    """Pictures and labels from two columns of a CSV file in UTF-8.

    Labels are class indices, or names of classes if most cells hold none. The first row is a
    header if a column is given by its name, or if its path is neither the name of a picture (by
    its extension) nor that of a file.

    Args:
        image_root: folder that the paths are relative to.
        csv_path: the file; cells may be quoted.
        transform_ops: what happens to each picture; None decodes only.
        columns: the columns of path and label, by name, or by number from 0; None is [0, 1].
        delimiter: one character that separates cells.
        class_names: names in the order of the labels, for a label column of names; None sorts
            those of this file, so training and evaluation agree only if both files hold the
            same names.
        on_error: a picture that cannot be read stops the run, or is skipped and counted.
        max_bad_ratio: largest part of an epoch's pictures that ``skip`` tolerates.
        class_num: number of classes of the network; labels have to be below it.

    Raises:
        DataError: the file is missing, empty or no CSV; or there are problems in its rows, of
            which the first 10 are shown as ``file:line: ...``.
        ArgumentError: arguments that do not go together, more ``class_names`` than ``class_num``,
            or a column that is not there.
    """

    def __init__(
        self,
        image_root: str,
        csv_path: str,
        transform_ops: Annotated[list[Transform] | None, Many(TRANSFORMS)] = None,
        columns: Annotated[list[str | int], Field(min_length=2, max_length=2)] | None = None,
        delimiter: str = ",",
        class_names: list[str] | None = None,
        on_error: Literal["stop", "skip"] = "stop",
        max_bad_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01,
        *,
        class_num: int | None = None,
    ):
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise ArgumentError("delimiter", f"expected one character, received {delimiter!r}")
        if class_names is not None and len(set(class_names)) < len(class_names):
            raise ArgumentError("class_names", "expected different names, received one twice")
        if class_num is not None and len(class_names or ()) > class_num:
            received = f"received {len(class_names or ())}"
            raise ArgumentError("class_names", f"expected Arch.class_num {class_num}, {received}")
        existing(image_root, "folder", "image_root")
        file = existing(csv_path, "file", "csv_path")
        problems = Problems(csv_path)
        cells = _read(file, csv_path, columns or [0, 1], delimiter, image_root, problems)
        block, ends = joined(cells.paths)
        lines = np.array(cells.lines, np.int64)
        labels, names = _labels(cells, class_names, class_num, problems)
        note_missing_files(image_root, block, ends, lines, problems)
        if names is None:
            note_wrong_labels(labels, class_num, lines, problems)
        problems.report()
        _check_count(cells, names, class_num, csv_path)
        if not cells.paths:
            raise DataError(f"{csv_path}: expected rows with path and label, received none")
        table = Table(image_root, block, ends, labels, names, file.name, lines)
        super().__init__(table, transform_ops, on_error, max_bad_ratio)


@dataclass
class _Cells:
    """The two columns, and the line of each row."""

    paths: list[bytes] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def _read(
    file: Path,
    csv_path: str,
    columns: list[str | int],
    delimiter: str,
    image_root: str,
    problems: Problems,
) -> _Cells:
    rows = _rows(file, csv_path, delimiter)
    cells = _Cells()
    first = next(rows, None)
    if first is None:
        return cells
    if len(first[1]) == 1:
        received = f"received one column {first[1][0]!r}: is {delimiter!r} the right delimiter?"
        raise ArgumentError("delimiter", f"{csv_path}: expected at least 2 columns, {received}")
    path, label = (_number(column, first[1], csv_path) for column in columns)
    named = any(isinstance(column, str) for column in columns)
    if not named and not _is_header(first[1], path, image_root):
        rows = _before(first, rows)
    for line, row in rows:
        if len(row) <= max(path, label):
            needed = max(path, label) + 1
            problems.add(line, f"expected at least {needed} cells, received {len(row)}")
        elif not row[path] or "\0" in row[path]:
            problems.add(line, f"expected a path, received {row[path]!r}")
        else:
            cells.paths.append(row[path].encode())
            cells.labels.append(row[label].strip())
            cells.lines.append(line)
    return cells


def _rows(file: Path, csv_path: str, delimiter: str) -> Iterator[Row]:
    """The rows that are not empty, each with the line that it begins in."""
    with file.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        line = 1
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield line, row
                line = reader.line_num + 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{csv_path}:{line}: expected CSV in UTF-8: {error}") from None


def _before(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


def _number(column: str | int, row: list[str], csv_path: str) -> int:
    names = [cell.strip() for cell in row]
    if isinstance(column, int):
        if 0 <= column < len(row):
            return column
        raise ArgumentError(
            "columns", f"{csv_path}: expected a column 0 to {len(row) - 1}, received {column}"
        )
    if column not in names:
        raise ArgumentError(
            "columns",
            f"{csv_path}: expected columns of {', '.join(map(repr, names))}, received {column!r}"
            f"{suggestion(column, names)}",
        )
    return names.index(column)


def _is_header(row: list[str], path: int, image_root: str) -> bool:
    cell = row[path]
    if Path(cell).suffix.lower() in PICTURE_SUFFIXES or "\0" in cell:
        return False
    return not (Path(image_root) / cell).is_file()


def _labels(
    cells: _Cells, class_names: list[str] | None, class_num: int | None, problems: Problems
) -> tuple[np.ndarray, list[str] | None]:
    """int64 [N], and the names if the column holds names."""
    if class_names is not None:
        expected = f"one of the {len(class_names)} class_names"
    else:
        given = [label for label in cells.labels if label]
        # A slip in a column of indices must not turn it into names, nor the other way round.
        indices = sum(map(_is_index, given))
        if indices and 2 * indices >= len(given):
            return _indices(cells, problems), None
        class_names = _names([label for label in given if not _is_index(label)], class_num)
        expected = "a class that other rows have, too (or give class_names)"
    number = {name: index for index, name in enumerate(class_names)}
    for line, label in zip(cells.lines, cells.labels, strict=True):
        if label not in number:
            near = suggestion(label, number)
            problems.add(
                line, f"expected {expected if label else 'a class'}, received {label!r}{near}"
            )
    # Those that are reported already get a label that is in order.
    return np.array([number.get(label, 0) for label in cells.labels], np.int64), class_names


def _names(labels: list[str], class_num: int | None) -> list[str]:
    """The different labels, sorted; without slips if there are more than ``class_num``.

    Those that are too many are slips if each is found less than half as often as every other.
    """
    counts = Counter(labels).most_common()
    if 0 < (kept := class_num or 0) < len(counts) and 2 * counts[kept][1] < counts[kept - 1][1]:
        del counts[kept:]
    return sorted(name for name, _ in counts)


def _check_count(
    cells: _Cells, names: list[str] | None, class_num: int | None, csv_path: str
) -> None:
    """Raises DataError if there are more names than classes, and any of them may be a slip."""
    if names is None or class_num is None or len(names) <= class_num:
        return
    rarest = Counter(cells.labels).most_common()[: -SHOWN - 1 : -1]
    line = dict(zip(reversed(cells.labels), reversed(cells.lines), strict=True))  # the first
    shown = ", ".join(f"{name!r} ({count}, line {line[name]})" for name, count in rarest)
    raise DataError(
        f"{csv_path}: expected names of Arch.class_num {class_num} classes, received {len(names)};"
        f" the rarest: {shown}; if all are meant: -o Arch.class_num={len(names)}"
    )


def _is_index(label: str) -> bool:
    return label.isascii() and label.removeprefix("-").isdigit() and len(label) < 19


def _indices(cells: _Cells, problems: Problems) -> np.ndarray:
    labels = np.zeros(len(cells.labels), np.int64)
    for row, (line, label) in enumerate(zip(cells.lines, cells.labels, strict=True)):
        if _is_index(label):
            labels[row] = int(label)
        else:
            expected = "a class index, as other rows have (or give class_names)"
            problems.add(line, f"expected {expected}, received {label!r}")
    return labels
