"""Pictures that several classes may apply to at once: a list with one target per class."""

from __future__ import annotations

from array import array
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ppcls.data.datasets.base import PictureDataset, Table, existing, joined
from ppcls.data.datasets.checks import Problems, note_missing_files
from ppcls.data.datasets.listfile import BYTE_ORDER_MARK, encoded, is_text, split, unreadable
from ppcls.data.transforms.base import Transform
from ppcls.errors import DataError
from ppcls.registry import DATASETS, TRANSFORMS, Many

WORDS = "0,1,..."


@DATASETS.register()
class MultiLabelDataset(PictureDataset):
    """Pictures and one target per class, from a list file.

    Args:
        image_root: folder that the paths of the list are relative to.
        cls_label_path: list file, one ``<path><TAB>0,1,0,...`` a line, UTF-8; see
            :func:`read_multilabel_list`.
        transform_ops: what happens to each picture; None decodes only.
        delimiter: what separates path and targets; None is any run of blanks and tabs.
        label_ratio: whether to compute the ratio of positives that a weighted loss asks for.
        on_error: a picture that cannot be read stops the run, or is skipped and counted.
        max_bad_ratio: largest part of an epoch's pictures that ``skip`` tolerates.
        class_num: number of classes of the network, and of targets in each line.

    Raises:
        DataError: something of the data set is missing or wrong.
        ArgumentError: an empty ``delimiter``.
    """

    def __init__(
        self,
        image_root: str,
        cls_label_path: str,
        transform_ops: Annotated[list[Transform] | None, Many(TRANSFORMS)] = None,
        delimiter: str | None = None,
        label_ratio: bool = False,
        on_error: Literal["stop", "skip"] = "stop",
        max_bad_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01,
        *,
        class_num: int | None = None,
    ):
        table = read_multilabel_list(image_root, cls_label_path, delimiter, class_num)
        super().__init__(table, transform_ops, on_error, max_bad_ratio)
        self._with_ratio = label_ratio

    @property
    def label_ratio(self) -> np.ndarray | None:
        """float32 [C]: mean target of each class over the samples; None if not asked for."""
        if not self._with_ratio:
            return None
        return self.labels.mean(axis=0, dtype=np.float64).astype(np.float32)


def read_multilabel_list(
    image_root: str, list_path: str, delimiter: str | None = None, class_num: int | None = None
) -> Table:
    """The samples of a list in UTF-8 whose lines hold a path and as many targets as classes.

    Targets are 0 or 1, or a number between them that says how sure it is. Every problem of the
    list is found before any is reported.

    Args:
        image_root: folder that the paths are relative to.
        delimiter: what separates path and targets; its last occurrence in the line counts. None
            is any run of blanks and tabs.
        class_num: number of targets in a line; None takes that of the first line.

    Returns:
        A table whose ``labels`` are float32 [N, C].

    Raises:
        DataError: an empty list, or problems in its lines: the first 10 are shown as
            ``list:line: ...``.
        ArgumentError: an empty ``delimiter``.
    """
    separator = encoded(delimiter)
    existing(image_root, "folder", "image_root")
    path = existing(list_path, "file", "cls_label_path")
    problems = Problems(list_path)
    paths: list[bytes] = []
    lines = array("q")
    targets = array("f")
    width = class_num
    for number, raw in enumerate(path.read_bytes().removeprefix(BYTE_ORDER_MARK).split(b"\n"), 1):
        line = raw.strip(b" \t\r" if separator is None else b"\r")
        if not line.strip():
            continue
        name, text = split(line, separator)
        row = _targets(text)
        width = len(row) if width is None and row else width
        if not name or not row or not is_text(name):
            problems.add(number, unreadable(line, separator, WORDS))
        elif wrong := _wrong(row, width, class_num):
            problems.add(number, wrong)
        else:
            paths.append(name)
            lines.append(number)
            targets.extend(row)
    block, ends = joined(paths)
    numbers = np.array(lines, np.int64)
    note_missing_files(image_root, block, ends, numbers, problems)
    problems.report()
    if not paths:
        raise DataError(f"{list_path}: expected lines '<path> <{WORDS}>', received an empty list")
    labels = np.array(targets, np.float32).reshape(len(paths), -1)
    return Table(image_root, block, ends, labels, list_name=path.name, lines=numbers)


def _targets(text: bytes) -> list[float]:
    """The numbers of a line; an empty list if it holds something else."""
    try:
        return [float(item) for item in text.split(b",")] if b"_" not in text else []
    except ValueError:
        return []


def _wrong(row: list[float], width: int | None, class_num: int | None) -> str | None:
    if len(row) != width:
        why = "as in the first line" if class_num is None else f"as Arch.class_num {class_num}"
        return f"expected {width} targets {why}, received {len(row)}"
    outside = [value for value in row if not 0 <= value <= 1]
    return f"expected targets from 0 to 1, received {outside[0]:g}" if outside else None
