"""FMix: two pictures joined along an irregular line."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ppcls.data.mixing.base import Alpha, BatchTransform, ClassNum, mixed
from ppcls.registry import BATCH_TRANSFORMS


@BATCH_TRANSFORMS.register()
class FmixOperator(BatchTransform):
    """FMix (arXiv:2002.12047, section 4): regions of another picture, of any shape.

    One mask for the batch: a grey picture of low frequencies, the brightest part of which is kept.
    The other pictures are the batch in another order.

    Args:
        alpha: the share that is kept comes from Beta(alpha, alpha).
        decay_power: how fast amplitudes fall with the frequency; more gives larger regions.
        max_soft: half of the part of the picture where one fades into the other, at most.
        reformulate: draw from Beta(alpha + 1, alpha), so that more is kept than not.
        class_num: may repeat the number of classes.
    """

    def __init__(
        self,
        alpha: Alpha = 1.0,
        decay_power: Annotated[float, Field(ge=0)] = 3.0,
        max_soft: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
        reformulate: bool = False,
        class_num: ClassNum = None,
    ):
        self._alpha = alpha
        self._decay_power = decay_power
        self._max_soft = max_soft
        self._reformulate = reformulate

    def __call__(self, images: Any, targets: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        """See :class:`BatchTransform`."""
        partners = rng.permutation(len(images))
        share = rng.beta(self._alpha + self._reformulate, self._alpha)
        height, width = images.shape[2:]
        grey = low_frequencies(height, width, self._decay_power, rng)
        mask = self._brightest(grey, share, rng)
        return mixed(images, targets, partners, mask[None, None])

    def _brightest(self, grey: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """1 for the brightest ``share`` of the pixels, 0 for the others; [H, W]."""
        exact = share * grey.size
        kept = math.ceil(exact) if rng.random() < 0.5 else math.floor(exact)
        soft = int(grey.size * min(self._max_soft, share, 1 - share))
        falling = np.concatenate(
            [
                np.ones(kept - soft),
                np.linspace(1, 0, 2 * soft),
                np.zeros(grey.size),
            ]
        )
        mask = np.empty(grey.size, np.float32)
        mask[np.argsort(-grey, axis=None, kind="stable")] = falling[: grey.size]
        return mask.reshape(grey.shape)


def low_frequencies(
    height: int, width: int, decay_power: float, rng: np.random.Generator
) -> np.ndarray:
    """Noise whose amplitudes fall as ``frequency ** -decay_power`` (section 4.1); [H, W]."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    lowest = 1 / max(height, width)
    amplitudes = np.maximum(np.hypot(rows, columns), lowest) ** -decay_power
    noise = rng.standard_normal((2, *amplitudes.shape))
    return np.fft.irfft2(amplitudes * (noise[0] + 1j * noise[1]), s=(height, width))
