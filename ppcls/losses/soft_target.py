"""Cross entropy with probabilities as targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppcls.errors import DataError
from ppcls.losses.base import Weight, check_shape
from ppcls.registry import LOSSES

if TYPE_CHECKING:
    import paddle


@LOSSES.register()
class SoftTargetCrossEntropy:
    """``-sum_c target_c * log p_c``, the mean over the batch, computed in 32 bits.

    What ``CELoss`` does with such targets, for files that name it. It refuses class indices.

    Args:
        weight: factor of the loss.
    """

    def __init__(self, weight: Weight):
        self._weight = weight

    def __call__(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar.

        Args:
            logits: [N, C].
            targets: probabilities [N, C], as mixup and cutmix make them.

        Raises:
            DataError: class indices, or targets of another shape.
        """
        import paddle.nn.functional as F

        if not check_shape(logits, targets):
            raise DataError(
                f"expected probabilities of shape {list(logits.shape)}, received class indices: "
                "without mixup or cutmix, CELoss is the loss to use"
            )
        log_p = F.log_softmax(logits.astype("float32"), axis=1)
        return -self._weight * (targets.astype("float32") * log_p).sum(axis=1).mean()
