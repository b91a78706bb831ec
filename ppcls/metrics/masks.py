"""Predictions and targets as masks over the classes, [N, C]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ppcls.errors import DataError

if TYPE_CHECKING:
    import paddle

NO_PROBABILITIES = 1e-3  # a sum that is farther from 1 is not one of probabilities
Threshold = Annotated[float, Field(gt=0, lt=1)]


def true_class(targets: paddle.Tensor, class_num: int) -> paddle.Tensor:
    """The class of each target; none for a target that is no class.

    Args:
        targets: class indices [N] or [N, 1], or probabilities [N, C], of which the likeliest is
            the true class.

    Raises:
        DataError: the targets are those of pictures with several labels.
    """
    import paddle

    return true_index(targets).reshape([-1, 1]) == paddle.arange(class_num)


def true_index(targets: paddle.Tensor) -> paddle.Tensor:
    """The number of the true class, int64 [N]; arguments and errors as of ``true_class``."""
    import paddle

    if not paddle.is_floating_point(targets):
        return targets.astype("int64").reshape([-1])
    if (targets.sum(axis=1) - 1).abs().max().item() > NO_PROBABILITIES:
        raise DataError(
            "expected one class a picture, or probabilities that add up to 1; received targets of "
            "several labels, which metrics with 'multi_label' or 'MultiLabel' are for"
        )
    return targets.argmax(axis=1)


def predicted_class(logits: paddle.Tensor) -> paddle.Tensor:
    """The class of the highest logit, the first of equal ones; none if one is not a number."""
    import paddle

    logits = logits.astype("float32")
    highest = logits.argmax(axis=1, keepdim=True) == paddle.arange(logits.shape[1])
    return highest & ~paddle.isnan(logits).any(axis=1, keepdim=True)


def true_labels(targets: paddle.Tensor, logits: paddle.Tensor) -> paddle.Tensor:
    """The classes that apply: those with a target of at least 0.5.

    Raises:
        DataError: there is not one floating-point target for each logit.
    """
    import paddle

    shape = list(logits.shape)
    if not paddle.is_floating_point(targets) or list(targets.shape) != shape:
        kind = f"{list(targets.shape)} of {str(targets.dtype).rpartition('.')[2]}"
        raise DataError(f"expected a target for each class, {shape} of float32, received {kind}")
    return targets >= 0.5


def predicted_labels(
    logits: paddle.Tensor, truth: paddle.Tensor, threshold: float
) -> paddle.Tensor:
    """The classes whose sigmoid probability exceeds the threshold.

    Probabilities are not computed: in 32 bits they would meet thresholds that they exceed. A logit
    that is not a number stands for the wrong answer.
    """
    import paddle

    bound = math.log(threshold / (1 - threshold))
    return paddle.where(paddle.isnan(logits), ~truth, logits.astype("float64") > bound)
