"""Qualities of the yes or no for each class, where several classes may apply to an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ppcls.metrics.base import Metric
from ppcls.metrics.masks import Threshold, predicted_labels, true_labels
from ppcls.registry import METRICS

if TYPE_CHECKING:
    import paddle


@METRICS.register()
class HammingDistance(Metric):
    """The share of wrong answers among all images' answers for all classes; 0 is best.

    Args:
        bi_threshold: sigmoid probability that a yes has to exceed.
        class_num: number of classes.
    """

    higher_is_better = False

    def __init__(self, bi_threshold: Threshold = 0.5, *, class_num: int):
        self._threshold = bi_threshold
        self._class_num = class_num
        super().__init__(["HammingDistance"])

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch; targets are [N, C], yes from 0.5 on."""
        import paddle

        with paddle.no_grad():
            truth = true_labels(targets, logits)
            wrong = predicted_labels(logits, truth, self._threshold) != truth
            self._add(wrong.astype("int64").sum().reshape([1]), logits.shape[0])

    def _values(self, sums: np.ndarray, samples: int) -> Sequence[float]:
        return [sums[0] / (samples * self._class_num)]


@METRICS.register()
class AccuracyScore(Metric):
    """The share of right answers.

    Args:
        base: what is right or wrong: each image's answer for each class (``label``), or all of an
            image's answers together (``sample``).
        bi_threshold: sigmoid probability that a yes has to exceed.
        class_num: number of classes.
    """

    def __init__(
        self,
        base: Literal["sample", "label"] = "label",
        bi_threshold: Threshold = 0.5,
        *,
        class_num: int,
    ):
        self._threshold = bi_threshold
        self._answers = class_num if base == "label" else 1
        self._base = base
        super().__init__(["AccuracyScore"])

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch; targets are [N, C], yes from 0.5 on."""
        import paddle

        with paddle.no_grad():
            truth = true_labels(targets, logits)
            right = predicted_labels(logits, truth, self._threshold) == truth
            right = right if self._base == "label" else right.all(axis=1)
            self._add(right.astype("int64").sum().reshape([1]), logits.shape[0])

    def _values(self, sums: np.ndarray, samples: int) -> Sequence[float]:
        return [sums[0] / (samples * self._answers)]
