"""Binary cross entropy for pictures of one class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ppcls.errors import ArgumentError
from ppcls.losses.base import Positive, Reduction, Smoothing, Weight, probabilities, reduced
from ppcls.losses.base import smoothed as smooth
from ppcls.registry import LOSSES

if TYPE_CHECKING:
    import paddle


@LOSSES.register()
class BCELoss:
    """Every class a yes-or-no question ("ResNet strikes back", arXiv:2110.00476, section 2.2).

    ``-(t * log s(x) + (1 - t) * log(1 - s(x)))`` with the sigmoid ``s``, in 32 bits. The target t
    is smoothed first, and then taken for a yes where it is above the threshold: of two pictures
    that mixup has mixed, both are there. So a threshold undoes the smoothing.

    Args:
        weight: factor of the loss.
        epsilon: label smoothing: ``(1 - epsilon) * target + epsilon / C``.
        target_threshold: above it a target is 1, else 0; null leaves targets as they are.
        reduction: over batch and classes.
        pos_weight: factor of the term ``t * log s(x)``, one for all classes or one for each.
    """

    def __init__(
        self,
        weight: Weight,
        epsilon: Smoothing = 0.0,
        target_threshold: Annotated[float, Field(ge=0, lt=1)] | None = 0.2,
        reduction: Reduction = "mean",
        pos_weight: Positive | Annotated[list[Positive], Field(min_length=1)] | None = None,
    ):
        self._weight = weight
        self._epsilon = epsilon
        self._threshold = target_threshold
        self._reduction: Reduction = reduction
        self._pos_weight = pos_weight

    def __call__(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar.

        Args:
            logits: [N, C].
            targets: class indices [N] or [N, 1], or probabilities [N, C].

        Raises:
            DataError: targets of another shape, or, on a CPU, indices that are no class.
            ArgumentError: there are not as many numbers in ``pos_weight`` as classes.
        """
        import paddle
        import paddle.nn.functional as F

        logits = logits.astype("float32")
        targets = smooth(probabilities(logits, targets), self._epsilon)
        if self._threshold is not None:
            targets = (targets > self._threshold).astype("float32")
        factors = None
        if self._pos_weight is not None:
            given = self._pos_weight if isinstance(self._pos_weight, list) else [self._pos_weight]
            if len(given) not in (1, logits.shape[1]):
                message = f"expected {logits.shape[1]} numbers, one a class, received {len(given)}"
                raise ArgumentError("pos_weight", message)
            factors = paddle.to_tensor(given, "float32")
        loss = F.binary_cross_entropy_with_logits(
            logits, targets, reduction="none", pos_weight=factors
        )
        return self._weight * reduced(loss, self._reduction)
