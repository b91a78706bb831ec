"""Qualities that count classes alike: precision, recall, F1, balanced accuracy, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ppcls.errors import ArgumentError
from ppcls.metrics.base import Metric, Table
from ppcls.metrics.masks import (
    Threshold,
    predicted_class,
    predicted_labels,
    true_class,
    true_labels,
)
from ppcls.registry import METRICS

if TYPE_CHECKING:
    import paddle

MOST_CLASSES = 5000  # of a confusion matrix: 200 MB
UNKNOWN = 10**9  # what a configuration is checked with while its class_num is itself a mistake


@METRICS.register()
class F1Score(Metric):
    """F1, precision and recall: means over the classes, and each class's in a table.

    Precision is the share of a class's predictions that are right, recall the share of its images
    that are found, F1 their harmonic mean; each is 0 where it is not defined. The means are over
    the classes that occur in targets or predictions, with ``multi_label`` over all: they agree
    with scikit-learn's. Of equal highest logits the first is the prediction; logits that are not
    numbers are no prediction, or, with ``multi_label``, the wrong one.

    Args:
        average: ``macro`` counts each class once, ``weighted`` by its number of images, ``micro``
            is the figure of all classes' decisions together.
        multi_label: several classes may apply to an image, or none; targets are 0 or 1.
        threshold: with ``multi_label``, the sigmoid probability that a prediction has to exceed.
        class_num: number of classes.
    """

    def __init__(
        self,
        average: Literal["macro", "weighted", "micro"] = "macro",
        multi_label: bool = False,
        threshold: Threshold = 0.5,
        *,
        class_num: int,
    ):
        self._average = average
        self._multi_label = multi_label
        self._threshold = threshold
        self._class_num = class_num
        names = [f"{average}_{name}" for name in ("f1", "precision", "recall")]
        super().__init__(names, size=3 * class_num)

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch: each class's right predictions, predictions and images."""
        import paddle

        with paddle.no_grad():
            if self._multi_label:
                truth = true_labels(targets, logits)
                predicted = predicted_labels(logits, truth, self._threshold)
            else:
                truth = true_class(targets, self._class_num)
                predicted = predicted_class(logits)
            counts = paddle.concat([truth & predicted, predicted, truth], axis=1)
            self._add(counts.astype("int64").sum(axis=0), logits.shape[0])

    def _values(self, sums: np.ndarray, samples: int) -> Sequence[float]:
        right, predicted, true = sums.reshape(3, -1)
        if self._average == "micro":
            counts = (part.sum(keepdims=True) for part in (right, predicted, true))
            return [float(score[0]) for score in _scores(*counts)]
        scores = _scores(right, predicted, true)
        if self._average == "weighted":
            return [float(_ratio(score @ true, true.sum())) for score in scores]
        occurs = np.ones_like(true, bool) if self._multi_label else predicted + true > 0
        return [float(_ratio(score[occurs].sum(), occurs.sum())) for score in scores]

    def _tables(self, sums: np.ndarray, samples: int) -> dict[str, Table]:
        right, predicted, true = sums.reshape(3, -1)
        f1, precision, recall = _scores(right, predicted, true)
        columns = ("precision", "recall", "f1", "support")
        values = np.stack([precision, recall, f1, true], axis=1)
        return {"per_class": Table(values, "class", columns)}


@METRICS.register()
class BalancedAccuracy(Metric):
    """The mean of the classes' recalls, over the classes that have images.

    A network that always names the commonest class has the accuracy of that class's share, but a
    balanced accuracy of one over the number of classes.

    Args:
        class_num: number of classes.
    """

    def __init__(self, *, class_num: int):
        self._class_num = class_num
        super().__init__(["balanced_accuracy"], size=2 * class_num)

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch: each class's right predictions and images."""
        import paddle

        with paddle.no_grad():
            truth = true_class(targets, self._class_num)
            counts = paddle.concat([truth & predicted_class(logits), truth], axis=1)
            self._add(counts.astype("int64").sum(axis=0), logits.shape[0])

    def _values(self, sums: np.ndarray, samples: int) -> Sequence[float]:
        right, true = sums.reshape(2, -1)
        return [float(_ratio(_ratio(right, true).sum(), (true > 0).sum()))]


@METRICS.register()
class ConfusionMatrix(Metric):
    """How many images of each class were taken for each class: a table, and its accuracy.

    An image without a true class, or whose logits are not numbers, is not in the table.

    Args:
        class_num: number of classes, at most 5000.

    Raises:
        ArgumentError: there are more classes.
    """

    def __init__(self, *, class_num: int):
        if MOST_CLASSES < class_num < UNKNOWN:
            expected = f"expected at most {MOST_CLASSES} classes for a table of all pairs"
            raise ArgumentError("class_num", f"{expected}, received {class_num}")
        self._class_num = class_num
        super().__init__(["accuracy"], size=class_num**2)

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch."""
        import paddle

        with paddle.no_grad():
            truth = true_class(targets, self._class_num).astype("float32")
            predicted = predicted_class(logits).astype("float32")
            # Counts below 2**24 are exact in 32 bits, and no batch has as many images.
            pairs = paddle.matmul(truth, predicted, transpose_x=True)
            self._add(pairs.flatten().astype("int64"), logits.shape[0])

    def _values(self, sums: np.ndarray, samples: int) -> Sequence[float]:
        return [np.trace(sums.reshape(self._class_num, -1)) / samples]

    def _tables(self, sums: np.ndarray, samples: int) -> dict[str, Table]:
        values = sums.reshape(self._class_num, -1)
        return {"confusion_matrix": Table(values, "true class", "predicted class")}


def _scores(
    right: np.ndarray, predicted: np.ndarray, true: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F1, precision and recall."""
    return _ratio(2 * right, predicted + true), _ratio(right, predicted), _ratio(right, true)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where there is nothing to divide by."""
    return part / np.maximum(whole, 1)
