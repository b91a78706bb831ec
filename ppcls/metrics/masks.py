"""Predictions and targets as masks over the classes, [N, C]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ppcls.errors import DataError

if TYPE_CHECKING:
    import paddle

Threshold = Annotated[float, Field(gt=0, lt=1)]


def true_class(targets: paddle.Tensor, class_num: int) -> paddle.Tensor:
    """The class of each target; none for a target that is no class.

    Args:
        targets: class indices [N] or [N, 1], or probabilities [N, C], of which the likeliest is
            the true class.
    """
    import paddle

    soft = paddle.is_floating_point(targets)
    indices = (targets.argmax(axis=1) if soft else targets).astype("int64")
    return indices.reshape([-1, 1]) == paddle.arange(class_num)


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
