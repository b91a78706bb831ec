"""Cross entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ppcls.errors import ArgumentError
from ppcls.losses.base import (
    NOT_A_CLASS,
    Reduction,
    Smoothing,
    Weight,
    check_range,
    check_shape,
    reduced,
)
from ppcls.registry import LOSSES

if TYPE_CHECKING:
    import paddle


@LOSSES.register()
class CELoss:
    """Cross entropy of softmax probabilities, computed in 32 bits.

    With ``class_weights`` w, an image's loss is ``-sum_c w_c * target_c * log p_c``, and the mean
    is the sum of the losses divided by the sum of ``w_c * target_c`` (of targets not smoothed): a
    target given as an index and as a one-hot row have the same loss.

    Args:
        weight: factor of the loss.
        epsilon: label smoothing (arXiv:1512.00567): the target becomes
            ``(1 - epsilon) * target + epsilon / C``, also if it is a mixture already.
        reduction: over the batch.
        class_weights: (ppcls) a factor for each class.
        ignore_index: (ppcls) images with this class index count neither in the loss nor in the
            mean; it need not be a class. A batch of nothing else has the loss 0. Probabilities
            have no index, so none of them is ignored.
        class_num: number of classes of the network.

    Raises:
        ArgumentError: there are not as many class weights as classes, or all are 0.
    """

    def __init__(
        self,
        weight: Weight,
        epsilon: Smoothing | None = None,
        reduction: Reduction = "mean",
        class_weights: Annotated[list[Weight], Field(min_length=1)] | None = None,
        ignore_index: int | None = None,
        *,
        class_num: int | None = None,
    ):
        self._weight = weight
        self._epsilon = epsilon or 0.0
        self._reduction: Reduction = reduction
        self._class_weights = class_weights
        self._ignored = ignore_index
        if class_weights is not None and not any(class_weights):
            raise ArgumentError("class_weights", "expected a weight above 0, received zeros")
        if class_num is not None:
            self._check_class_num(class_num)

    def __call__(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar.

        Args:
            logits: [N, C].
            targets: integer class indices [N] or [N, 1], or floating-point probabilities [N, C],
                as mixup and cutmix make them; they are used as they are.

        Raises:
            DataError: targets of another shape, or, on a CPU, indices that are no class.
                (A GPU does not tell in time; lists are checked when they are read.)
            ArgumentError: there are not as many class weights as classes.
        """
        logits = logits.astype("float32")
        soft = check_shape(logits, targets)
        if self._class_weights is not None:
            self._check_class_num(logits.shape[1])
            loss, counts = self._weighted(logits, targets, soft)
        else:
            loss = self._cross_entropy(logits, targets, soft)
            if self._epsilon:
                # The loss is linear in the target, so smoothing mixes two losses.
                uniform = _uniform_cross_entropy(logits)
                loss = (1 - self._epsilon) * loss + self._epsilon * uniform
            if soft or self._ignored is None:
                return self._weight * reduced(loss, self._reduction)
            counts = self._kept(targets)
            loss = loss * counts
        total = loss.sum()
        if self._reduction == "mean":
            weights = counts.sum()
            total = total / (weights + (weights == 0).astype("float32"))
        return self._weight * total

    def _weighted(
        self, logits: paddle.Tensor, targets: paddle.Tensor, soft: bool
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Each image's loss and its part in the mean, [N]."""
        import paddle
        import paddle.nn.functional as F

        factors = paddle.to_tensor(self._class_weights, "float32")
        if soft:
            targets = targets.astype("float32")
            counts = (targets * factors).sum(axis=1)
            loss = -(targets * factors * F.log_softmax(logits, axis=1)).sum(axis=1)
        else:
            kept = self._kept(targets)
            loss = self._cross_entropy(logits, targets, soft)
            indices = targets.astype("int64").reshape([-1]) * kept.astype("int64")
            counts = factors[indices] * kept
            loss = loss * counts
        if self._epsilon:
            uniform = -(factors * F.log_softmax(logits, axis=1)).mean(axis=1)
            uniform = uniform if soft else uniform * kept
            loss = (1 - self._epsilon) * loss + self._epsilon * uniform
        return loss, counts

    def _cross_entropy(
        self, logits: paddle.Tensor, targets: paddle.Tensor, soft: bool
    ) -> paddle.Tensor:
        """Each image's loss, [N]; 0 for one that is ignored."""
        import paddle.nn.functional as F

        batch, classes = logits.shape
        if soft:
            targets = targets.astype("float32")
            loss = F.cross_entropy(logits, targets, soft_label=True, reduction="none")
            return loss.reshape([batch])
        indices = targets.astype("int64").reshape([batch, 1])
        ignored = NOT_A_CLASS if self._ignored is None else self._ignored
        try:
            loss = F.cross_entropy(logits, indices, ignore_index=ignored, reduction="none")
        except IndexError:
            check_range(indices[indices != ignored], classes)
            raise
        return loss.reshape([batch])

    def _kept(self, targets: paddle.Tensor) -> paddle.Tensor:
        """1 for each image that counts, 0 for one that is ignored, [N]."""
        ignored = NOT_A_CLASS if self._ignored is None else self._ignored
        return (targets.astype("int64").reshape([-1]) != ignored).astype("float32")

    def _check_class_num(self, classes: int) -> None:
        if self._class_weights is not None and len(self._class_weights) != classes:
            message = f"expected {classes} numbers, one a class, received "
            raise ArgumentError("class_weights", message + str(len(self._class_weights)))


def _uniform_cross_entropy(logits: paddle.Tensor) -> paddle.Tensor:
    """Each image's loss for the target ``1 / C`` everywhere, [N]."""
    import paddle.nn.functional as F

    return -F.log_softmax(logits, axis=1).mean(axis=1)
