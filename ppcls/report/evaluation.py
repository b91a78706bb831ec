"""Results of evaluations for a person (text) and for a program (JSON)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.engine.evaluator import Result
from ppcls.metrics.base import Table

MOST_ROWS = 30  # of a table on the terminal
MOST_PAIRS = 10  # of classes taken for each other


@dataclass(frozen=True)
class Evaluated:
    """One checkpoint's evaluation.

    Attributes:
        weights: what the user called them; None for random ones.
        epoch: of their training, if they tell.
        result: what was found.
        calibration: where their temperature was written, if it was.
    """

    weights: str | None
    epoch: int | None
    result: Result
    calibration: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; a value that is not a finite number is None."""
        values = {n: v if math.isfinite(v) else None for n, v in self.result.values.items()}
        tables = {name: table.to_dict() for name, table in self.result.tables.items()}
        content = {
            "weights": self.weights,
            "epoch": self.epoch,
            "samples": self.result.samples,
            "values": values,
            "tables": tables,
        }
        return content if self.calibration is None else {**content, "calibration": self.calibration}


def best_of(evaluated: Sequence[Evaluated], name: str, higher_is_better: bool) -> int | None:
    """Place of the checkpoint with the best value, the first of equal ones; None without any."""
    sign = 1 if higher_is_better else -1
    values = [sign * one.result.values[name] for one in evaluated]
    known = [place for place, value in enumerate(values) if not math.isnan(value)]
    return max(known, key=lambda place: values[place], default=None)


def write_json(
    path: Path, evaluated: Sequence[Evaluated], facts: dict[str, Any], best: int | None
) -> None:
    """Writes ``{..., "best": place, "results": [...]}``.

    Raises:
        OSError: it cannot be written.
    """
    content = {**facts, "best": best, "results": [one.to_dict() for one in evaluated]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def comparison(evaluated: Sequence[Evaluated], name: str, best: int | None) -> str:
    """A table, a line for each checkpoint; the best is marked."""
    head = ["weights", "epoch", *evaluated[0].result.values]
    rows = [
        [
            str(one.weights),
            "-" if one.epoch is None else str(one.epoch),
            *(f"{value:.5f}" for value in one.result.values.values()),
        ]
        for one in evaluated
    ]
    lines = _aligned([head, *rows])
    if best is not None:
        lines[best + 1] += f"  <- best {name}"
    return "".join(f"{line}\n" for line in lines)


def tables(result: Result, class_names: Sequence[str] | None) -> str:
    """The tables of a result; of long ones the rows that matter most. Empty without tables."""
    parts = []
    for name, table in result.tables.items():
        if isinstance(table.columns, str):
            parts.append(_confusions(name, table, class_names))
        else:
            parts.append(_listed(name, table, class_names))
    return "\n".join(parts)


def _listed(name: str, table: Table, class_names: Sequence[str] | None) -> str:
    """All rows, or those with the lowest values in the first column."""
    values, note = table.values, ""
    order = np.arange(len(values))
    if len(order) > MOST_ROWS:
        note = f", the {MOST_ROWS} of {len(order)} rows with the lowest {table.columns[0]}"
        order = np.argsort(values[:, 0], kind="stable")[:MOST_ROWS]
    rows = [[_class(row, table, class_names), *map(_figure, values[row])] for row in order.tolist()]
    lines = _aligned([[table.rows, *table.columns], *rows])
    return "".join(f"{line}\n" for line in (f"{name}{note}:", *lines))


def _confusions(name: str, table: Table, class_names: Sequence[str] | None) -> str:
    """The pairs of classes that are taken for each other most often."""
    wrong = table.values * (1 - np.eye(len(table.values)))
    pairs = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    lines = [f"{name}: {wrong.sum():.0f} of {table.values.sum():.0f} images are taken for another"]
    for true, other in zip(*np.unravel_index(pairs, wrong.shape), strict=True):
        if wrong[true, other]:
            whole = table.values[true].sum()
            one, two = (_class(int(c), table, class_names) for c in (true, other))
            lines.append(f"  {wrong[true, other]:.0f} of {whole:.0f}: {one} taken for {two}")
    return "".join(f"{line}\n" for line in lines)


def _class(row: int, table: Table, class_names: Sequence[str] | None) -> str:
    is_class = table.rows.endswith("class")
    return class_names[row] if is_class and class_names else str(row)


def _figure(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if value == round(value) and abs(value) > 1 else f"{value:.4f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
