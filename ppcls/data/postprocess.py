"""Post-processing: logits to what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ppcls.errors import ArgumentError, DataError
from ppcls.registry import POSTPROCESSES

PACKAGED_NAMES = Path(__file__).parent / "labels" / "imagenet1k_label_list.txt"
DECIMALS = 5


@POSTPROCESSES.register()
class Topk:
    """The k most probable classes of each picture.

    Args:
        topk: k; cut off at the number of classes.
        class_id_map_file: names of the classes, one ``<id> <name>`` a line; see
            :func:`read_class_names`.
        delimiter: what separates id and name; None is any run of blanks and tabs.
        class_names: names in the order of the ids, used if there is no file.

    Raises:
        DataError: the file is missing or wrong.
    """

    def __init__(
        self,
        topk: Annotated[int, Field(ge=1)] = 5,
        class_id_map_file: str | None = None,
        delimiter: str | None = None,
        *,
        class_names: list[str] | None = None,
    ):
        if topk < 1:
            raise ArgumentError("topk", f"expected an integer >= 1, received {topk}")
        self.topk = topk
        self.class_names = class_names
        self._source = "class_names"
        if class_id_map_file is not None:
            self.class_names = read_class_names(class_id_map_file, delimiter)
            self._source = class_id_map_file

    def __call__(self, logits: np.ndarray, file_names: Sequence[str]) -> list[dict[str, Any]]:
        """One dictionary a picture, in order, of plain Python values.

        Args:
            logits: [N, C], before the softmax.
            file_names: N names, as the user gave them.

        Returns:
            ``class_ids``, ``scores`` (softmax, rounded to 5 decimals), ``file_name`` and, if the
            names of the classes are known, ``label_names``.

        Raises:
            DataError: there are fewer names than classes.
            ValueError: the shapes do not fit.
        """
        if logits.ndim != 2 or len(logits) != len(file_names):
            raise ValueError(
                f"expected logits [{len(file_names)}, classes], received {list(logits.shape)}"
            )
        self._check_names(logits.shape[1])
        scores = _softmax(logits.astype(np.float64))
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.topk]
        return [
            self._result(ids, row[ids], name)
            for ids, row, name in zip(best, scores, file_names, strict=True)
        ]

    def _result(self, ids: np.ndarray, scores: np.ndarray, file_name: str) -> dict[str, Any]:
        result: dict[str, Any] = {
            "class_ids": ids.tolist(),
            "scores": [round(score, DECIMALS) for score in scores.tolist()],
            "file_name": file_name,
        }
        if self.class_names is not None:
            result["label_names"] = [self.class_names[index] for index in result["class_ids"]]
        return result

    def _check_names(self, class_num: int) -> None:
        if self.class_names is not None and len(self.class_names) < class_num:
            raise DataError(
                f"{self._source}: expected a name for each of {class_num} classes,"
                f" received {len(self.class_names)}"
            )


def read_class_names(path: str, delimiter: str | None = None) -> list[str]:
    """The names of the classes in the order of their ids.

    Args:
        path: a text file in UTF-8, one ``<id> <name>`` a line, ids 0 to n - 1 in any order; the
            name may hold blanks. ``imagenet1k_label_list.txt`` is found wherever it is not,
            because the package holds it.
        delimiter: what separates id and name; None is any run of blanks and tabs.

    Raises:
        DataError: no such file, or what is wrong, with its line.
    """
    file = Path(path)
    if not file.is_file() and file.name == PACKAGED_NAMES.name:
        file = PACKAGED_NAMES
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8, received other bytes") from error
    except OSError as error:
        raise DataError(
            f"class_id_map_file: expected a file at '{path}', received: {error.strerror}"
        ) from error
    names: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            index, name = _parsed(line, delimiter, f"{path}:{number}")
            if index in names:
                raise DataError(f"{path}:{number}: expected each id once, received {index} again")
            names[index] = name
    return _in_order(names, path)


def _parsed(line: str, delimiter: str | None, where: str) -> tuple[int, str]:
    index, *rest = line.strip().split(delimiter, 1)
    name = rest[0].strip() if rest else ""
    if not (index.strip().isascii() and index.strip().isdigit()) or not name:
        raise DataError(f"{where}: expected '<id> <name>', received {line!r}")
    return int(index), name


def _in_order(names: dict[int, str], path: str) -> list[str]:
    if not names:
        raise DataError(f"{path}: expected lines '<id> <name>', received an empty file")
    missing = [index for index in range(len(names)) if index not in names]
    if missing:
        raise DataError(
            f"{path}: expected the ids 0 to {len(names) - 1}, received none for {missing[0]}"
        )
    return [names[index] for index in range(len(names))]


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
