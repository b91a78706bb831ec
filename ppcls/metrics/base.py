"""What metrics share: sums on the device, an exchangeable state, and values computed from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import paddle

# An array of every process, in order of rank; all processes must call it with one shape.
Gather = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Table:
    """A result that one number cannot hold, such as a confusion matrix.

    Attributes:
        values: [rows, columns], float64.
        rows: what a row stands for, such as ``class``; its number is the row's.
        columns: what each column holds; or, in a word, what a column stands for.
    """

    values: np.ndarray
    rows: str
    columns: str | tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; a value that is not defined is None."""
        values = [[x if np.isfinite(x) else None for x in row] for row in self.values.tolist()]
        columns = self.columns if isinstance(self.columns, str) else list(self.columns)
        return {"rows": self.rows, "columns": columns, "values": values}


class Averages:
    """Averages over samples, kept as sums.

    The sums stay on the device until ``state`` reads them, so that accumulating never makes the
    host wait for it. A subclass may keep other sums, and make its values of them in ``_values``.

    Args:
        names: what is averaged; the keys of ``value``.
        size: how many sums are kept; one for each name by default.
    """

    def __init__(self, names: Sequence[str], size: int | None = None):
        self.names = list(names)
        self._size = len(self.names) if size is None else size
        self.reset()

    def reset(self) -> None:
        """Forgets all samples."""
        self._sums: paddle.Tensor | None = None
        self._samples = 0

    def state(self) -> np.ndarray:
        """The sums (in the order of ``names``), then the number of samples: float64.

        States of several processes are added up, and ``value`` makes averages of the result.
        """
        sums = np.zeros(self._size) if self._sums is None else self._sums.numpy()
        return np.append(sums.astype(np.float64), float(self._samples))

    def value(self, state: np.ndarray | None = None) -> dict[str, float]:
        """The values by name, of ``state`` if given, else of what was accumulated here.

        Raises:
            DataError: there are no samples.
        """
        sums, samples = self._read(state)
        values = self._values(sums, samples)
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}

    def _values(self, sums: np.ndarray, samples: int) -> Sequence[float]:
        """The values in the order of ``names``."""
        return [s / samples for s in sums]

    def _read(self, state: np.ndarray | None) -> tuple[np.ndarray, int]:
        state = self.state() if state is None else state
        if state[-1] == 0:
            raise DataError(f"expected samples to average {self.names[0]} over, received none")
        return state[:-1], int(state[-1])

    def _add(self, sums: paddle.Tensor, samples: int) -> None:
        self._sums = sums if self._sums is None else self._sums + sums
        self._samples += samples


class Mean(Averages):
    """Averages of scalars that are themselves means over batches, such as losses.

    Each batch counts by its size, so that neither a small last batch nor the number of processes
    changes the result.
    """

    def update(self, values: Mapping[str, paddle.Tensor | float], samples: int) -> None:
        """Adds a batch.

        Args:
            values: a scalar for each of ``names``; others are passed over.
            samples: size of the batch.
        """
        import paddle

        with paddle.no_grad():
            # 64 bits: an epoch's sum of 32-bit losses would lose digits of the small ones.
            scalars = [paddle.assign(values[n]).astype("float64").reshape([]) for n in self.names]
            self._add(paddle.stack(scalars) * samples, samples)


class Metric(Averages):
    """A quality of predictions. A subclass provides ``update``.

    Attributes:
        higher_is_better: what the best model has; else it is the lowest first value.
        keeps_scores: whether sums do not do, and the scores of all samples are kept; then ``share``
            has to be called in every process before ``value`` of the added states.
    """

    higher_is_better = True
    keeps_scores = False

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch.

        Args:
            logits: [N, C].
            targets: class indices [N] or [N, 1], or probabilities [N, C].
        """
        raise NotImplementedError

    def interim(self) -> dict[str, float]:
        """What a line of progress says; nothing if that takes long to compute."""
        return self.value()

    def tables(self, state: np.ndarray | None = None) -> dict[str, Table]:
        """Results beyond numbers, by name; as ``value`` otherwise."""
        return self._tables(*self._read(state))

    def share(self, gather: Gather) -> None:
        """Fetches what the other processes keep beside sums; all processes must call."""

    def _tables(self, sums: np.ndarray, samples: int) -> dict[str, Table]:
        return {}


class CombinedMetric:
    """Several metrics as one: states and values stand one after the other.

    Attributes:
        names: names of all values.
        main_name: the first of them, by which the best model is chosen.
        higher_is_better: whether the best model has the highest of it, or the lowest.
        keeps_scores: whether a metric keeps the scores of all samples.

    Raises:
        ArgumentError: there is no metric, or two of them compute a value of the same name.
    """

    def __init__(self, metrics: Sequence[Metric]):
        if not metrics:
            raise ArgumentError("metrics", "expected at least one metric, received none")
        self._metrics = list(metrics)
        self.names = [name for metric in metrics for name in metric.names]
        if len(set(self.names)) < len(self.names):
            message = f"expected metrics with different names, received {self.names}"
            raise ArgumentError("metrics", message)
        self.main_name = self.names[0]
        self.higher_is_better = self._metrics[0].higher_is_better
        self.keeps_scores = any(metric.keeps_scores for metric in self._metrics)

    def reset(self) -> None:
        """Forgets all samples."""
        for metric in self._metrics:
            metric.reset()

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch to each metric."""
        for metric in self._metrics:
            metric.update(logits, targets)

    def state(self) -> np.ndarray:
        """The metrics' states, float64, to be added over processes."""
        return np.concatenate([metric.state() for metric in self._metrics])

    def share(self, gather: Gather) -> None:
        """Fetches what the other processes keep beside sums; all processes must call.

        Args:
            gather: every process's float64 array of one shape, in order of rank.
        """
        for metric in self._metrics:
            metric.share(gather)

    def interim(self) -> dict[str, float]:
        """The values for a line of progress: those that are quickly computed."""
        values: dict[str, float] = {}
        for metric in self._metrics:
            values |= metric.interim()
        return values

    def value(self, state: np.ndarray | None = None) -> dict[str, float]:
        """The values of all metrics by name; raises DataError without samples."""
        values: dict[str, float] = {}
        for metric, own in zip(self._metrics, self._parts(state), strict=True):
            values |= metric.value(own)
        return values

    def tables(self, state: np.ndarray | None = None) -> dict[str, Table]:
        """The tables of all metrics by name; raises DataError without samples."""
        tables: dict[str, Table] = {}
        for metric, own in zip(self._metrics, self._parts(state), strict=True):
            tables |= metric.tables(own)
        return tables

    def _parts(self, state: np.ndarray | None) -> list[np.ndarray | None]:
        """Each metric's own part of a state."""
        if state is None:
            return [None] * len(self._metrics)
        lengths = [len(metric.state()) for metric in self._metrics]
        return list(np.split(state, np.cumsum(lengths)[:-1]))
