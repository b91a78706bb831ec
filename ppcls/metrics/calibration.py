"""Whether probabilities are what they say: log loss, calibration error, temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from ppcls.errors import DataError
from ppcls.metrics.base import Metric, Table
from ppcls.metrics.masks import predicted_class, true_class, true_labels
from ppcls.metrics.scores import ScoreMetric, log_softmax
from ppcls.registry import METRICS

if TYPE_CHECKING:
    import paddle

Bins = Annotated[int, Field(ge=2, le=1000)]
LOWEST, HIGHEST = 0.01, 100.0  # temperature
ROWS = 4096  # of logits that are looked at together, to bound the memory


@METRICS.register()
class LogLoss(Metric):
    """The mean of -log p of the truth, in 64 bits; 0 is best.

    Nothing is clipped and nothing smoothed, unlike a loss of training. Images without a true class
    are left out.

    Args:
        multi_label: p are sigmoid probabilities, and the mean is over images and classes.
        class_num: number of classes.
    """

    higher_is_better = False

    def __init__(self, multi_label: bool = False, *, class_num: int):
        self._multi_label = multi_label
        self._class_num = class_num
        super().__init__(["log_loss"], size=2)

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch.

        Args:
            logits: [N, C].
            targets: class indices [N] or [N, 1], or probabilities [N, C].
        """
        import paddle

        with paddle.no_grad():
            if self._multi_label:
                true_labels(targets, logits)  # refuses targets of another kind
            soft = paddle.is_floating_point(targets)
            truth = targets if soft else true_class(targets, self._class_num)
            truth, logits = truth.astype("float64"), logits.astype("float64")
            if self._multi_label:
                # log(1 + exp(z)) - t z, written so that it does not overflow
                rest = paddle.log1p(paddle.exp(-logits.abs()))
                losses = (paddle.clip(logits, min=0) - truth * logits + rest).mean(axis=1)
                counted = paddle.ones_like(losses)
            else:
                # Paddle's log_softmax stops at -64 on a CPU.
                shifted = logits - logits.max(axis=1, keepdim=True)
                logs = shifted - paddle.exp(shifted).sum(axis=1, keepdim=True).log()
                # A class of probability 0 that is not the true one adds 0.
                products = paddle.where(truth == 0, paddle.zeros_like(logs), truth * logs)
                losses = -products.sum(axis=1)
                counted = (truth.sum(axis=1) > 0).astype("float64")
            self._add(paddle.stack([losses.sum(), counted.sum()]), logits.shape[0])

    def _values(self, sums: np.ndarray, samples: int) -> Sequence[float]:
        return [sums[0] / sums[1] if sums[1] else float("nan")]


@METRICS.register()
class ECE(Metric):
    """Expected calibration error (arXiv:1706.04599, section 2); 0 is best.

    Images fall into bins of equal width by their confidence, the highest softmax probability; a
    bin holds its upper edge. The error is the mean of the bins' |accuracy - confidence|, by their
    numbers of images. The bins are in a table, from which a reliability diagram is drawn.

    Args:
        bins: how many.
        class_num: number of classes.
    """

    higher_is_better = False

    def __init__(self, bins: Bins = 15, *, class_num: int):
        self._edges = np.linspace(0, 1, bins + 1)
        self._class_num = class_num
        super().__init__(["ECE"], size=3 * bins)

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch: each bin's images, sum of confidences, and right predictions."""
        import paddle
        import paddle.nn.functional as F

        with paddle.no_grad():
            confidence = F.softmax(logits.astype("float64"), axis=1).max(axis=1, keepdim=True)
            truth = true_class(targets, self._class_num)
            right = (truth & predicted_class(logits)).any(axis=1, keepdim=True)
            inner = paddle.to_tensor(self._edges[1:-1], dtype="float64").reshape([1, -1])
            index = (confidence > inner).astype("int64").sum(axis=1, keepdim=True)
            member = (index == paddle.arange(len(self._edges) - 1)).astype("float64")
            parts = [member, member * confidence, member * right.astype("float64")]
            self._add(paddle.concat([p.sum(axis=0) for p in parts]), logits.shape[0])

    def _values(self, sums: np.ndarray, samples: int) -> Sequence[float]:
        return [calibration_error(*sums.reshape(3, -1))]

    def _tables(self, sums: np.ndarray, samples: int) -> dict[str, Table]:
        return {"reliability": _bins(self._edges, *sums.reshape(3, -1))}


@METRICS.register()
class Temperature(ScoreMetric):
    """The temperature that calibrates a network: logits are to be divided by it.

    It is fitted on the very images that are evaluated (:func:`fit_temperature`), so evaluate
    validation images, not those of the test. Beside it stand log loss and ECE that it leads to.

    Args:
        bins: of the ECE.
        class_num: number of classes.
    """

    higher_is_better = False

    def __init__(self, bins: Bins = 15, *, class_num: int):
        self._edges = np.linspace(0, 1, bins + 1)
        names = ["temperature", "calibrated_log_loss", "calibrated_ECE"]
        super().__init__(names, multi_label=False, class_num=class_num)

    def _values_of(self, logits: np.ndarray, truth: np.ndarray) -> Sequence[float]:
        found = self._calibrated(logits, truth)
        if found is None:
            return [float("nan")] * 3
        temperature, logs, truth = found
        return [temperature, -logs[truth].mean(), calibration_error(*self._bin_sums(logs, truth))]

    def _tables(self, sums: np.ndarray, samples: int) -> dict[str, Table]:
        logits, truth = np.split(sums, 2, axis=1)
        found = self._calibrated(logits, truth > 0)
        if found is None:
            return {}
        return {"calibrated_reliability": _bins(self._edges, *self._bin_sums(*found[1:]))}

    def _calibrated(
        self, logits: np.ndarray, truth: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray] | None:
        """Temperature, log probabilities and truth of the images with a class; None if unknown."""
        has_class = truth.any(axis=1)
        logits, truth = logits[has_class].astype(np.float64), truth[has_class]
        if not len(logits) or not np.isfinite(logits).all():
            return None
        temperature = fit_temperature(logits, truth.argmax(axis=1))
        return temperature, log_softmax(logits / temperature), truth

    def _bin_sums(self, logs: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
        """Each bin's images, sum of confidences, and right predictions."""
        confidence, chosen = np.exp(logs.max(axis=1)), logs.argmax(axis=1)
        right = truth[np.arange(len(logs)), chosen]
        index = np.searchsorted(self._edges[1:-1], confidence)
        bins = len(self._edges) - 1
        return [np.bincount(index, weights, bins) for weights in (None, confidence, right)]


def _bins(
    edges: np.ndarray, counts: np.ndarray, confidence: np.ndarray, right: np.ndarray
) -> Table:
    some = np.where(counts > 0, counts, np.nan)
    columns = ("from", "to", "count", "confidence", "accuracy")
    parts = edges[:-1], edges[1:], counts, confidence / some, right / some
    return Table(np.stack(parts, axis=1), "bin", columns)


def calibration_error(counts: np.ndarray, confidence: np.ndarray, right: np.ndarray) -> float:
    """ECE of bins, from the sums of each."""
    return float(np.abs(right - confidence).sum() / counts.sum())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T with the least mean of -log softmax(logits / T)[label].

    The loss is convex in 1 / T, so the root of its derivative is found by Newton's method, kept
    between bounds by bisection: the same result on every machine to about 1e-12. Where the least
    lies beyond 0.01 or 100, it is that bound: such as where all predictions are right, or where
    they are no better than chance.

    Args:
        logits: [N, C] of validation images.
        labels: class indices [N].

    Raises:
        DataError: no images, logits that are not finite, or labels that are no class.
    """
    logits = np.asarray(logits)
    labels = np.asarray(labels).reshape(-1)
    _check(logits, labels)
    low, high = 1 / HIGHEST, 1 / LOWEST
    if _slope(logits, labels, low)[0] >= 0:
        return HIGHEST
    if _slope(logits, labels, high)[0] <= 0:
        return LOWEST
    inverse = 1.0
    for _ in range(200):
        slope, curvature = _slope(logits, labels, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low * high) ** 0.5
        if abs(following - inverse) <= 1e-13 * inverse:
            break
        inverse = following
    return float(1 / following)


def _slope(logits: np.ndarray, labels: np.ndarray, inverse: float) -> tuple[float, float]:
    """First and second derivative of the summed loss by 1 / T."""
    slope = curvature = 0.0
    for start in range(0, len(logits), ROWS):
        z = logits[start : start + ROWS].astype(np.float64)
        z -= z[np.arange(len(z)), labels[start : start + ROWS], None]
        p = np.exp(log_softmax(inverse * z))
        mean = (p * z).sum(axis=1)
        slope += mean.sum()
        curvature += (p * (z - mean[:, None]) ** 2).sum()
    return slope, curvature


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2 or not logits.size or len(labels) != len(logits):
        shapes = f"{list(logits.shape)} and {list(labels.shape)}"
        raise DataError(f"expected logits [N, C] and labels [N] of some images, received {shapes}")
    if not np.isfinite(logits).all():
        raise DataError("expected finite logits, received others")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        expected = f"expected class indices from 0 to {logits.shape[1] - 1}"
        raise DataError(f"{expected}, received from {labels.min()} to {labels.max()}")
