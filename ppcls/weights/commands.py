"""``ppcls weights``: looks at weights files, converts, compares and averages them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import UnknownName, UsageError, WeightsError
from ppcls.registry import BACKBONES
from ppcls.weights.average import WeightMean
from ppcls.weights.load import WeightReport, load_weights, read_checked
from ppcls.weights.source import find_weights
from ppcls.weights.translate import recognise_naming, translate
from ppcls.weights.write import check_suffix, write_weights

HEAD = ("name", "shape", "dtype", "min", "max", "mean")


def inspect(source: str, names_only: bool, model: str | None) -> int:
    """Prints what a file holds and, with ``model``, how that network loads it.

    Returns:
        1 if the network cannot load it, else 0.
    """
    _check_model(model)
    path = find_weights(source)
    weights, taken = read_checked(path)
    if names_only:
        sys.stdout.write("".join(f"{_shown(name)}\n" for name in weights))
        return 0
    rows = [HEAD, *(_row(name, array) for name, array in weights.items())]
    sys.stdout.write(f"{path}{f' ({taken})' if taken else ''}\n\n{_table(rows)}\n")
    sys.stdout.write(f"{summary(weights)}\n")
    if model is None:
        return 0
    try:
        _, report = _load_into(model, path, weights)
    except WeightsError as error:
        sys.stdout.write(f"{model} does not load it: {error}\n")
        return 1
    sys.stdout.write(f"{model} loads it: {report}{_settings(report)}\n")
    return 0


def convert(source: str, out: str, model: str | None) -> int:
    """Writes weights to another kind of file; with ``model``, by that network's own names."""
    check_suffix(Path(out))
    _check_model(model)
    path = find_weights(source)
    weights, taken = read_checked(path)
    if model is None:
        write_weights(Path(out), weights)
        sys.stdout.write(f"{out}: {summary(weights)}{f' ({taken})' if taken else ''}\n")
        return 0
    net, report = _load_into(model, path, weights)
    write_weights(Path(out), net.state_dict())
    sys.stdout.write(f"{out}: {report}{_settings(report)}\n")
    return 0


def diff(one: str, other: str) -> int:
    """Prints where two files differ.

    Returns:
        1 if they do, 0 if they hold the same.
    """
    left, right = (read_checked(find_weights(source))[0] for source in (one, other))
    lines = [f"only in {one}: {_shown(name)}" for name in left if name not in right]
    lines += [f"only in {other}: {_shown(name)}" for name in right if name not in left]
    common = [name for name in left if name in right]
    lines += filter(None, (_difference(name, left[name], right[name]) for name in common))
    equal = sum(_difference(name, left[name], right[name]) == "" for name in common)
    lines.append(f"{equal} of {len(left | right)} tensors are the same")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(len(lines) > 1)


def average(out: str, sources: Sequence[str]) -> int:
    """Writes the mean of several files of one network; integers are those of the last one."""
    check_suffix(Path(out))
    if len(sources) < 2:
        raise UsageError(f"expected at least two files to average, received {len(sources)}")
    total = WeightMean()
    for source in sources:
        total = total.plus(source, read_checked(find_weights(source))[0])
    mean = total.value()
    write_weights(Path(out), mean)
    sys.stdout.write(f"{out}: the mean of {len(sources)} files, {summary(mean)}\n")
    return 0


def _load_into(
    model: str, path: Path, weights: Mapping[str, np.ndarray]
) -> tuple[Any, WeightReport]:
    """A network with as many classes as the weights have, and what became of the weights."""
    net = _network(model)
    if hasattr(net, "classifier_names"):
        found, _ = translate(net, weights, recognise_naming(net, weights))
        state = net.state_dict()
        shapes = [
            found[name].shape
            for name in sorted(net.classifier_names())
            if name in found and found[name].ndim == state[name].ndim
        ]
        if shapes and shapes[0][-1] != net.class_num:
            net = _network(model, class_num=int(shapes[0][-1]))
    return net, load_weights(net, path)


def check_loads(model: str, source: str) -> None:
    """Raises WeightsError if a network of the zoo cannot start from these weights."""
    path = find_weights(source)
    _load_into(model, path, read_checked(path)[0])


def _check_model(model: str | None) -> None:
    try:
        if model is not None:
            BACKBONES.entry(model)
    except UnknownName as error:
        raise UsageError(str(error)) from None


def _network(model: str, **arguments: int) -> Any:
    net = BACKBONES.build(model, arguments)
    net.arch_name = model
    return net


def _settings(report: WeightReport) -> str:
    """What a network that loads the converted file has to be told."""
    if not report.adopted:
        return ""
    settings = ", ".join(f"{name}={value}" for name, value in report.adopted.items())
    return f"; these weights go with {settings}"


# Text --------------------------------------------------------------------------------------------


def _shown(name: str) -> str:
    """A name that cannot steer a terminal."""
    return name if name.isprintable() else repr(name)


def _row(name: str, array: np.ndarray) -> tuple[str, ...]:
    values = array.astype(np.float64)
    figures = (values.min(), values.max(), values.mean()) if values.size else ()
    return (
        _shown(name),
        str(list(array.shape)),
        str(array.dtype),
        *(f"{figure:.4g}" for figure in figures or ()),
        *("-" for _ in range(3 - len(figures))),
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def summary(weights: Mapping[str, np.ndarray]) -> str:
    """``266 tensors, 3,504,872 numbers (float32)``, and a warning of lost ones."""
    kinds: Counter[str] = Counter()
    for array in weights.values():
        kinds[str(array.dtype)] += array.size
    numbers = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    lost = [n for n, a in weights.items() if a.dtype.kind == "f" and not np.isfinite(a).all()]
    warning = f"; NOT FINITE: {', '.join(map(_shown, lost[:5]))}" if lost else ""
    more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
    return f"{len(weights)} tensors, {sum(kinds.values()):,} numbers: {numbers}{warning}{more}"


def _difference(name: str, one: np.ndarray, other: np.ndarray) -> str:
    """In which way two tensors differ, in a line; empty if they do not."""
    name = _shown(name)
    if one.shape != other.shape:
        return f"{name}: shape {list(one.shape)} and {list(other.shape)}"
    kinds = f"{one.dtype} and {other.dtype}, " if one.dtype != other.dtype else ""
    a, b = one.astype(np.float64), other.astype(np.float64)
    if np.array_equal(a, b, equal_nan=True):
        return f"{name}: {kinds}equal values" if kinds else ""
    with np.errstate(invalid="ignore"):
        largest = np.nanmax(np.abs(a - b)) if np.isfinite(a - b).any() else np.nan
    return f"{name}: {kinds}largest absolute difference {largest:.4g}"
