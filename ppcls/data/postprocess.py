"""Post-processing: logits to what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ppcls.errors import ArgumentError, DataError
from ppcls.registry import POSTPROCESSES

PACKAGED_NAMES = Path(__file__).parent / "labels" / "imagenet1k_label_list.txt"
DECIMALS = 5


class _Answers:
    """Answers as dictionaries, with the names of the classes where they are known."""

    def __init__(
        self, class_id_map_file: str | None, delimiter: str | None, class_names: list[str] | None
    ):
        self.class_names = class_names
        self._source = "class_names"
        if class_id_map_file is not None:
            self.class_names = read_class_names(class_id_map_file, delimiter)
            self._source = class_id_map_file

    def _check(self, logits: np.ndarray, file_names: Sequence[str]) -> None:
        if logits.ndim != 2 or len(logits) != len(file_names):
            raise ValueError(
                f"expected logits [{len(file_names)}, classes], received {list(logits.shape)}"
            )
        class_num = logits.shape[1]
        if self.class_names is not None and len(self.class_names) < class_num:
            raise DataError(
                f"{self._source}: expected a name for each of {class_num} classes,"
                f" received {len(self.class_names)}"
            )

    def _result(self, ids: np.ndarray, scores: np.ndarray, file_name: str) -> dict[str, Any]:
        result: dict[str, Any] = {
            "class_ids": ids.tolist(),
            "scores": [round(score, DECIMALS) for score in scores.tolist()],
            "file_name": file_name,
        }
        if self.class_names is not None:
            result["label_names"] = [self.class_names[index] for index in result["class_ids"]]
        return result


@POSTPROCESSES.register()
class Topk(_Answers):
    """The k most probable classes of each picture.

    Args:
        topk: k; cut off at the number of classes.
        class_id_map_file: names of the classes, one ``<id> <name>`` a line; see
            :func:`read_class_names`.
        delimiter: what separates id and name; None is any run of blanks and tabs.
        temperature: (ppcls) the logits are divided by it before the softmax; None for that which
            the weights were calibrated with, or 1.
        class_names: names in the order of the ids, used if there is no file.
        calibrated: the temperature that the weights were calibrated with.

    Raises:
        DataError: the file is missing or wrong.
    """

    def __init__(
        self,
        topk: Annotated[int, Field(ge=1)] = 5,
        class_id_map_file: str | None = None,
        delimiter: str | None = None,
        temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None,
        *,
        class_names: list[str] | None = None,
        calibrated: float | None = None,
    ):
        if topk < 1:
            raise ArgumentError("topk", f"expected an integer >= 1, received {topk}")
        self.topk = topk
        self.temperature = calibrated if temperature is None else temperature
        super().__init__(class_id_map_file, delimiter, class_names)

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
        self._check(logits, file_names)
        scores = _softmax(logits.astype(np.float64) / (self.temperature or 1.0))
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.topk]
        return [
            self._result(ids, row[ids], name)
            for ids, row, name in zip(best, scores, file_names, strict=True)
        ]


@POSTPROCESSES.register()
class DistillationPostProcess(Topk):
    """``Topk``, as published configurations of a ``DistillationModel`` name it.

    Args:
        func: what is done with the answers of the one network that answers.
        model_name: that network, ``Arch.infer_model_name``.
        topk: k; cut off at the number of classes.
        class_id_map_file: names of the classes; see :func:`read_class_names`.
        delimiter: what separates id and name; None is any run of blanks and tabs.
        temperature: (ppcls) see :class:`Topk`.
        class_names: names in the order of the ids, used if there is no file.
        calibrated: the temperature that the weights were calibrated with.

    Raises:
        DataError: the file is missing or wrong.
    """

    def __init__(
        self,
        func: Literal["Topk"] = "Topk",
        model_name: str = "Student",
        topk: Annotated[int, Field(ge=1)] = 5,
        class_id_map_file: str | None = None,
        delimiter: str | None = None,
        temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None,
        *,
        class_names: list[str] | None = None,
        calibrated: float | None = None,
    ):
        super().__init__(
            topk,
            class_id_map_file,
            delimiter,
            temperature,
            class_names=class_names,
            calibrated=calibrated,
        )


@POSTPROCESSES.register()
class MultiLabelThreshOutput(_Answers):
    """The classes whose sigmoid probability reaches a threshold: any number of them, or none.

    Args:
        threshold: of the probability.
        class_id_map_file: names of the classes; see :func:`read_class_names`.
        delimiter: what separates id and name; None is any run of blanks and tabs.
        class_names: names in the order of the ids, used if there is no file.

    Raises:
        DataError: the file is missing or wrong.
    """

    def __init__(
        self,
        threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        class_id_map_file: str | None = None,
        delimiter: str | None = None,
        *,
        class_names: list[str] | None = None,
    ):
        self.threshold = threshold
        super().__init__(class_id_map_file, delimiter, class_names)

    def __call__(self, logits: np.ndarray, file_names: Sequence[str]) -> list[dict[str, Any]]:
        """As :class:`Topk`, in the order of the ids; scores are sigmoid probabilities."""
        self._check(logits, file_names)
        with np.errstate(over="ignore"):
            scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
        chosen = [np.flatnonzero(row >= self.threshold) for row in scores]
        return [
            self._result(ids, row[ids], name)
            for ids, row, name in zip(chosen, scores, file_names, strict=True)
        ]


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
