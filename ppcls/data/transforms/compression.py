"""RandomJPEGQuality: what saving as a JPEG does to a picture."""

from __future__ import annotations

import io
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from ppcls.data.transforms.base import interval
from ppcls.data.transforms.policy import Policy
from ppcls.registry import TRANSFORMS


@TRANSFORMS.register()
class RandomJPEGQuality(Policy):
    """Saves the picture as a JPEG of random quality, and reads it again.

    Args:
        quality: [low, high], whole numbers from 1 (worst) to 100; default [60, 100]. Each is
            equally likely.
        prob: how often a picture is changed at all.
    """

    def __init__(
        self,
        quality: list[int] | None = None,
        prob: Annotated[float, Field(ge=0, le=1)] = 0.5,
    ):
        low, high = interval([60, 100] if quality is None else [*quality], "quality", 1, 100)
        self.quality = int(low), int(high)
        self.prob = prob

    def changed(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The picture after compression, or the picture itself."""
        if rng.random() >= self.prob:
            return picture
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=int(rng.integers(*self.quality, endpoint=True)))
        return Image.open(file, formats=("JPEG",))
