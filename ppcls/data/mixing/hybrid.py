"""mixup and CutMix in one operation, drawn for the batch or for each picture."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ppcls.data.mixing.base import BatchTransform, ClassNum, Probability, mixed
from ppcls.data.mixing.cutmix import outside_of_box
from ppcls.errors import ArgumentError
from ppcls.registry import BATCH_TRANSFORMS

AlphaOrOff = Annotated[float, Field(ge=0)]


@BATCH_TRANSFORMS.register()
class MixupCutmixHybrid(BatchTransform):
    """mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899), with the batch in reverse order.

    Args:
        mixup_alpha: as that of MixupOperator; 0 for no mixup.
        cutmix_alpha: as that of CutmixOperator; 0 for no CutMix.
        cutmix_minmax: ``[min, max]``: draw the sides of CutMix's boxes uniformly between these
            parts of the picture's, wholly inside it; switches CutMix on.
        prob: how likely anything is mixed at all.
        switch_prob: how likely CutMix is, where both are on.
        mode: what is drawn once: ``batch``, each ``pair`` of pictures that get a part of each
            other, or each ``elem``, for which another part stays than for its partner.
        correct_lam: weight targets by the pixels that are there after a box was clipped; without
            it by those of the whole box.
        label_smoothing: the part of each target that is spread over all classes.
        num_classes: may repeat the number of classes.

    Raises:
        ArgumentError: neither is on, or ``cutmix_minmax`` is no range.
    """

    def __init__(
        self,
        mixup_alpha: AlphaOrOff = 1.0,
        cutmix_alpha: AlphaOrOff = 0.0,
        cutmix_minmax: list[float] | None = None,
        prob: Probability = 1.0,
        switch_prob: Probability = 0.5,
        mode: Literal["batch", "pair", "elem"] = "batch",
        correct_lam: bool = True,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        num_classes: ClassNum = None,
    ):
        self._range = _range(cutmix_minmax)
        if not mixup_alpha and not cutmix_alpha and not self._range:
            message = "expected mixup_alpha, cutmix_alpha or cutmix_minmax, received none of them"
            raise ArgumentError("mixup_alpha", message)
        self._mixup_alpha = mixup_alpha
        self._cutmix_alpha = 1.0 if self._range else cutmix_alpha
        self._prob = prob
        self._switch_prob = switch_prob
        self._mode = mode
        self._correct_lam = correct_lam
        self._smoothing = label_smoothing
        alphas = {"mixup": mixup_alpha, "cutmix": self._cutmix_alpha}
        self.mixes = frozenset(name for name, alpha in alphas.items() if alpha)

    def of_alphas(self, alphas: Mapping[str, float]) -> MixupCutmixHybrid:
        """See :class:`BatchTransform`; targets are still smoothed where both are 0."""
        other = copy.copy(self)
        if "mixup" in self.mixes:
            other._mixup_alpha = alphas.get("mixup", self._mixup_alpha)
        if "cutmix" in self.mixes:
            other._cutmix_alpha = alphas.get("cutmix", self._cutmix_alpha)
        if not other._mixup_alpha and not other._cutmix_alpha:
            other._prob = 0.0
        return other

    def __call__(self, images: Any, targets: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        """See :class:`BatchTransform`."""
        count, _, height, width = images.shape
        drawn = {"batch": 1, "pair": count // 2, "elem": count}[self._mode]
        shares = np.ones((drawn, 1, height, width), np.float32)
        weights = np.ones(drawn)
        for i in range(drawn):
            if rng.random() < self._prob:
                weights[i] = self._draw(shares[i, 0], rng)
        if self._mode == "pair":
            shares, weights = _mirrored(shares, count), _mirrored(weights, count)
        backwards = np.arange(count)[::-1]
        images, targets = mixed(images, targets, backwards, shares, weights)
        spread = self._smoothing / targets.shape[1]
        return images, targets * (1 - self._smoothing) + spread

    def _draw(self, shares: np.ndarray, rng: np.random.Generator) -> float:
        """Writes how much of each pixel stays; returns how much of the target does.

        Args:
            shares: ones, [H, W].
        """
        cuts = self._cutmix_alpha > 0
        if cuts and self._mixup_alpha:
            cuts = rng.random() < self._switch_prob
        alpha = self._cutmix_alpha if cuts else self._mixup_alpha
        share = rng.beta(alpha, alpha)
        height, width = shares.shape
        if not cuts:
            shares[:] = share
            return share
        if self._range:
            shares[:] = _outside_of_inner_box((height, width), self._range, rng)
        else:
            shares[:] = outside_of_box(height, width, share, rng)
        exact = self._correct_lam or self._range
        return float(shares.mean(dtype=np.float64)) if exact else share


def _outside_of_inner_box(
    shape: tuple[int, ...], sides: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """1 outside and 0 inside of a box that is not clipped; [H, W]."""
    mask = np.ones(shape, np.float32)
    box = []
    for side in shape:
        length = int(rng.integers(int(side * sides[0]), int(side * sides[1]), endpoint=True))
        start = int(rng.integers(0, side - length, endpoint=True))
        box.append(slice(start, start + length))
    mask[tuple(box)] = 0
    return mask


def _mirrored(drawn: np.ndarray, count: int) -> np.ndarray:
    """Values of the first half for the second one too; a picture in the middle stays as it is."""
    middle = np.ones((count % 2, *drawn.shape[1:]), drawn.dtype)
    return np.concatenate([drawn, middle, drawn[::-1]])


def _range(values: list[float] | None) -> tuple[float, float] | None:
    if values is None:
        return None
    if len(values) != 2 or not 0 <= values[0] <= values[1] <= 1:
        message = f"expected [min, max] with 0 <= min <= max <= 1, received {values!r}"
        raise ArgumentError("cutmix_minmax", message)
    return values[0], values[1]
