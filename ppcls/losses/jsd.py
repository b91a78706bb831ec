"""Consistency of several views of a picture, for AugMix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ppcls.errors import DataError
from ppcls.losses.base import Smoothing, Weight
from ppcls.losses.ce import CELoss
from ppcls.registry import LOSSES

if TYPE_CHECKING:
    import paddle


@LOSSES.register()
class JSDLoss:
    """Cross entropy of the pictures plus the Jensen-Shannon divergence of their views.

    AugMix (arXiv:1912.02781, section 3): ``CE(p_1, y) + alpha * mean_v KL(p_v || M)`` with the mean
    M of a picture's distributions ``p_v``. Computed in 32 bits.

    A batch holds N pictures in V views, one view behind the other: row ``v * N + i`` is view v of
    picture i, the view 0 is the picture itself, and all its views have its target. The reader gives
    such batches with ``DataLoader.Train.dataset.views``.

    Args:
        weight: factor of the loss.
        views: number of views, V, of which V - 1 are augmented.
        alpha: factor of the divergence; 12 in the paper.
        epsilon: label smoothing of the cross entropy.
    """

    def __init__(
        self,
        weight: Weight,
        views: Annotated[int, Field(ge=2)] = 3,
        alpha: Weight = 12.0,
        epsilon: Smoothing | None = None,
    ):
        self._weight = weight
        self._views = views
        self._alpha = alpha
        self._cross_entropy = CELoss(1.0, epsilon)

    def __call__(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar; the mean over the pictures.

        Args:
            logits: [V * N, C].
            targets: class indices [V * N] or [V * N, 1], or probabilities [V * N, C]; those of
                the first N rows are used.

        Raises:
            DataError: rows that are not V views of some pictures.
        """
        import paddle
        import paddle.nn.functional as F

        rows, classes = logits.shape
        if rows % self._views or targets.shape[0] != rows:
            raise DataError(
                f"expected logits and targets of {self._views} views of every picture, received "
                f"{rows} rows of logits and {targets.shape[0]} of targets"
            )
        logits = logits.astype("float32")
        pictures = rows // self._views
        clean = self._cross_entropy(logits[:pictures], targets[:pictures])
        log_p = F.log_softmax(logits, axis=1).reshape([self._views, pictures, classes])
        log_mean = paddle.logsumexp(log_p, axis=0, keepdim=True) - math.log(self._views)
        divergence = (log_p.exp() * (log_p - log_mean)).sum(axis=2).mean()
        return self._weight * (clean + self._alpha * divergence)
