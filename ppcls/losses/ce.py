"""Cross entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ppcls.errors import DataError
from ppcls.registry import LOSSES

if TYPE_CHECKING:
    import paddle

# Paddle gives a target equal to this number a loss of zero. Its default, -100, would hide a wrong
# label in that way; this one cannot come from a list file by mistake.
NOT_A_CLASS = -(2**31)


@LOSSES.register()
class CELoss:
    """Cross entropy of softmax probabilities, computed in 32 bits.

    Args:
        weight: factor of the loss.
        epsilon: label smoothing (arXiv:1512.00567): the target becomes
            ``(1 - epsilon) * target + epsilon / C``, also if it is a mixture already.
        reduction: over the batch.
    """

    def __init__(
        self,
        weight: Annotated[float, Field(ge=0, allow_inf_nan=False)],
        epsilon: Annotated[float, Field(ge=0, lt=1)] | None = None,
        reduction: Literal["mean", "sum"] = "mean",
    ):
        self._weight = weight
        self._epsilon = epsilon or 0.0
        self._reduction = reduction

    def __call__(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar.

        Args:
            logits: [N, C].
            targets: integer class indices [N] or [N, 1], or floating-point probabilities [N, C],
                as mixup and cutmix make them; they are used as they are.

        Raises:
            DataError: targets of another shape, or, on a CPU, indices that are no class.
                (A GPU does not tell in time; lists are checked when they are read.)
        """
        logits = logits.astype("float32")
        loss = _cross_entropy(logits, targets)
        if self._epsilon:
            # The loss is linear in the target, so smoothing mixes two losses.
            loss = (1 - self._epsilon) * loss + self._epsilon * _uniform_cross_entropy(logits)
        return self._weight * (loss.mean() if self._reduction == "mean" else loss.sum())


def _cross_entropy(logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
    """Each image's loss, [N]."""
    import paddle
    import paddle.nn.functional as F

    batch, classes = logits.shape
    soft = paddle.is_floating_point(targets)
    admitted = [[batch, classes]] if soft else [[batch], [batch, 1]]
    if list(targets.shape) not in admitted:
        expected = " or ".join(str(shape) for shape in admitted)
        kind = "probabilities" if soft else "class indices"
        raise DataError(f"expected {kind} of shape {expected}, received {list(targets.shape)}")
    if soft:
        targets = targets.astype("float32")
        return F.cross_entropy(logits, targets, soft_label=True, reduction="none").reshape([batch])
    indices = targets.astype("int64").reshape([batch, 1])
    try:
        return F.cross_entropy(logits, indices, ignore_index=NOT_A_CLASS, reduction="none").reshape(
            [batch]
        )
    except IndexError:
        lowest, highest = indices.min().item(), indices.max().item()
        expected = f"expected class indices from 0 to {classes - 1}"
        raise DataError(f"{expected}, received indices from {lowest} to {highest}") from None


def _uniform_cross_entropy(logits: paddle.Tensor) -> paddle.Tensor:
    """Each image's loss for the target ``1 / C`` everywhere, [N]."""
    import paddle.nn.functional as F

    return -F.log_softmax(logits, axis=1).mean(axis=1)
