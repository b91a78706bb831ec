"""Losses of pictures that several classes may apply to at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ppcls.errors import DataError
from ppcls.losses.base import (
    Reduction,
    Smoothing,
    Weight,
    decisions,
    ratio_weights,
    reduced,
    smoothed,
)
from ppcls.registry import LOSSES

if TYPE_CHECKING:
    import paddle

Gamma = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def class_ratio(label_ratio: Any, classes: int) -> paddle.Tensor:
    """The ratio of positives that a data set gives, float32 [C].

    Raises:
        DataError: there is none, or one of another number of classes.
    """
    import paddle

    if label_ratio is None:
        raise DataError(
            "weight_ratio: expected the ratio of positives of each class, received none: set "
            "label_ratio of the training data set"
        )
    ratio = paddle.to_tensor(label_ratio, "float32")
    if list(ratio.shape) != [classes]:
        raise DataError(f"expected ratios of {classes} classes, received {list(ratio.shape)}")
    return ratio


@LOSSES.register()
class MultiLabelLoss:
    """Binary cross entropy of every class, ``-(t log s(x) + (1 - t) log(1 - s(x)))``, in 32 bits.

    Args:
        weight: factor of the loss.
        epsilon: label smoothing: ``(1 - epsilon) * target + epsilon / C``.
        size_sum: add up over the classes of an image; otherwise, take their mean.
        weight_ratio: weigh a class with the training pictures' ratio of positives r: ``exp(1 - r)``
            where the target is above 0.5, else ``exp(r)``.
        label_ratio: [C], the ratio of positives of the training data set.
    """

    def __init__(
        self,
        weight: Weight,
        epsilon: Smoothing | None = None,
        size_sum: bool = False,
        weight_ratio: bool = False,
        *,
        label_ratio: Any = None,
    ):
        self._weight = weight
        self._epsilon = epsilon or 0.0
        self._sums = size_sum
        self._weighs = weight_ratio
        self._ratio = label_ratio

    def __call__(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar; the mean over the batch.

        Args:
            logits: [N, C].
            targets: [N, C], from 0 to 1.

        Raises:
            DataError: targets of another shape, or no ratio for ``weight_ratio``.
        """
        import paddle.nn.functional as F

        logits = logits.astype("float32")
        targets = smoothed(decisions(logits, targets), self._epsilon)
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if self._weighs:
            loss = loss * ratio_weights(targets, class_ratio(self._ratio, logits.shape[1]))
        return self._weight * (loss.sum(axis=1).mean() if self._sums else loss.mean())


@LOSSES.register()
class MultiLabelAsymmetricLoss:
    """Negatives that are easy hardly count (ASL, arXiv:2009.14119, equations 4 to 7), in 32 bits.

    With ``p = s(x)`` and ``q = max(p - clip, 0)``:
    ``-(t (1 - p)^gamma_pos log p + (1 - t) q^gamma_neg log(1 - q))``.

    Args:
        weight: factor of the loss.
        gamma_pos: exponent for positives.
        gamma_neg: exponent for negatives.
        clip: the margin m by which a negative's probability is shifted.
        epsilon: smallest number a logarithm is taken of.
        disable_focal_loss_grad: take the factors ``(1 - p)^gamma_pos`` and ``q^gamma_neg`` for
            constants in the gradient, as the authors' program can.
        reduction: over batch and classes.
    """

    def __init__(
        self,
        weight: Weight,
        gamma_pos: Gamma = 1,
        gamma_neg: Gamma = 4,
        clip: Annotated[float, Field(ge=0, lt=1)] | None = 0.05,
        epsilon: Annotated[float, Field(gt=0, lt=1)] = 1e-8,
        disable_focal_loss_grad: bool = True,
        reduction: Reduction = "sum",
    ):
        self._weight = weight
        self._gammas = gamma_pos, gamma_neg
        self._clip = clip or 0.0
        self._epsilon = epsilon
        self._constant = disable_focal_loss_grad
        self._reduction: Reduction = reduction

    def __call__(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar.

        Args:
            logits: [N, C].
            targets: [N, C], from 0 to 1.

        Raises:
            DataError: targets of another shape.
        """
        import paddle.nn.functional as F

        logits = logits.astype("float32")
        targets = decisions(logits, targets)
        lowest = math.log(self._epsilon)
        log_yes = F.log_sigmoid(logits).clip(min=lowest)
        if self._clip:
            no = (F.sigmoid(-logits) + self._clip).clip(max=1.0)
            log_no = no.clip(min=self._epsilon).log()
        else:
            no = F.sigmoid(-logits)
            log_no = F.log_sigmoid(-logits).clip(min=lowest)
        positive = targets * self._focus(F.sigmoid(-logits), self._gammas[0]) * log_yes
        negative = (1 - targets) * self._focus(1 - no, self._gammas[1]) * log_no
        return -self._weight * reduced(positive + negative, self._reduction)

    def _focus(self, probability: paddle.Tensor, gamma: float) -> paddle.Tensor:
        # At 0 the derivative of a power below 1 is infinite, and that of the power 0 no number.
        factor = probability.clip(min=1e-12) ** gamma if gamma < 1 else probability**gamma
        return factor.detach() if self._constant else factor
