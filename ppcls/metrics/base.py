"""What metrics share: sums on the device, an exchangeable state, and values computed from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ppcls.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import paddle


class Averages:
    """Averages over samples, kept as sums.

    The sums stay on the device until ``state`` reads them, so that accumulating never makes the
    host wait for it.

    Args:
        names: what is averaged; the keys of ``value``.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self.reset()

    def reset(self) -> None:
        """Forgets all samples."""
        self._sums: paddle.Tensor | None = None
        self._samples = 0

    def state(self) -> np.ndarray:
        """Sums in the order of ``names``, then the number of samples: float64, [len(names) + 1].

        States of several processes are added up, and ``value`` makes averages of the result.
        """
        sums = np.zeros(len(self.names)) if self._sums is None else self._sums.numpy()
        return np.append(sums.astype(np.float64), float(self._samples))

    def value(self, state: np.ndarray | None = None) -> dict[str, float]:
        """The averages by name, of ``state`` if given, else of what was accumulated here.

        Raises:
            DataError: there are no samples.
        """
        *sums, samples = self.state() if state is None else state
        if samples == 0:
            raise DataError(f"expected samples to average {self.names[0]} over, received none")
        return {name: float(s / samples) for name, s in zip(self.names, sums, strict=True)}

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
    """A quality of predictions. A subclass provides ``update``."""

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch.

        Args:
            logits: [N, C].
            targets: class indices [N] or [N, 1], or probabilities [N, C].
        """
        raise NotImplementedError


class CombinedMetric:
    """Several metrics as one: states and values stand one after the other.

    Attributes:
        names: names of all values.
        main_name: the first of them, by which the best model is chosen.

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

    def value(self, state: np.ndarray | None = None) -> dict[str, float]:
        """The values of all metrics by name; raises DataError without samples."""
        state = self.state() if state is None else state
        values: dict[str, float] = {}
        for metric in self._metrics:
            own, state = np.split(state, [len(metric.state())])
            values |= metric.value(own)
        return values
