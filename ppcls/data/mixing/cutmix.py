"""CutMix: a box of one picture in another."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppcls.data.mixing.base import Alpha, BatchTransform, ClassNum, mixed
from ppcls.registry import BATCH_TRANSFORMS


@BATCH_TRANSFORMS.register()
class CutmixOperator(BatchTransform):
    """CutMix (arXiv:1905.04899, section 3.1): a box of another picture at the same place.

    One box for the batch; the other pictures are the batch in another order. Targets are weighted
    by the pixels that are really there, after the box was clipped at the edges.

    Args:
        alpha: the share outside the box, before clipping, comes from Beta(alpha, alpha).
        class_num: may repeat the number of classes.
    """

    mixes = frozenset({"cutmix"})

    def __init__(self, alpha: Alpha = 0.2, class_num: ClassNum = None):
        self._alpha = alpha

    def of_alphas(self, alphas: Mapping[str, float]) -> CutmixOperator:
        """See :class:`BatchTransform`."""
        other = copy.copy(self)
        other._alpha = alphas.get("cutmix", self._alpha)
        return other

    def __call__(self, images: Any, targets: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        """See :class:`BatchTransform`."""
        if not self._alpha:
            return images, targets
        partners = rng.permutation(len(images))
        share = rng.beta(self._alpha, self._alpha)
        height, width = images.shape[2:]
        shares = outside_of_box(height, width, share, rng)
        return mixed(images, targets, partners, shares[None, None])


def outside_of_box(height: int, width: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """1 outside and 0 inside a box about a uniformly drawn pixel, clipped; float32 [H, W].

    Args:
        share: part of the area that lies outside of the box, if nothing of it is clipped.
    """
    sides = [int(side * np.sqrt(1 - share)) for side in (height, width)]
    centres = [int(rng.integers(side)) for side in (height, width)]
    top, left = (centre - side // 2 for centre, side in zip(centres, sides, strict=True))
    mask = np.ones((height, width), np.float32)
    mask[max(top, 0) : top + sides[0], max(left, 0) : left + sides[1]] = 0
    return mask
