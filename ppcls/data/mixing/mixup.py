"""mixup: two pictures, one through the other."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppcls.data.mixing.base import Alpha, BatchTransform, ClassNum, mixed
from ppcls.registry import BATCH_TRANSFORMS


@BATCH_TRANSFORMS.register()
class MixupOperator(BatchTransform):
    """mixup (arXiv:1710.09412, section 2): ``share * picture + (1 - share) * another``.

    One share for the batch, from Beta(alpha, alpha); the other pictures are the batch in another
    order.

    Args:
        alpha: of the distribution; near 0 nearly nothing is mixed, at 1 every share is as likely.
        class_num: may repeat the number of classes.
    """

    mixes = frozenset({"mixup"})

    def __init__(self, alpha: Alpha = 1.0, class_num: ClassNum = None):
        self._alpha = alpha

    def of_alphas(self, alphas: Mapping[str, float]) -> MixupOperator:
        """See :class:`BatchTransform`."""
        other = copy.copy(self)
        other._alpha = alphas.get("mixup", self._alpha)
        return other

    def __call__(self, images: Any, targets: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        """See :class:`BatchTransform`."""
        if not self._alpha:
            return images, targets
        partners = rng.permutation(len(images))
        share = rng.beta(self._alpha, self._alpha)
        return mixed(images, targets, partners, np.full((1, 1, 1, 1), share))
