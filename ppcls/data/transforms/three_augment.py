"""3-Augment of DeiT III. Touvron et al., arXiv:2204.07118."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from ppcls.data.transforms.base import interval
from ppcls.data.transforms.operations import OPERATIONS, Canvas
from ppcls.data.transforms.policy import Policy
from ppcls.registry import TRANSFORMS


@TRANSFORMS.register()
class ThreeAugment(Policy):
    """Grey, solarized or blurred, equally likely. The recipe's ColorJitter is a line of its own.

    Args:
        threshold: solarizing inverts values from this on.
        sigma: [low, high] of the blur's standard deviation in pixels; default [0.1, 2].
    """

    def __init__(
        self,
        threshold: Annotated[int, Field(ge=0, le=256)] = 128,
        sigma: list[float] | None = None,
    ):
        self.threshold = threshold
        self.sigma = interval([0.1, 2.0] if sigma is None else sigma, "sigma", 0.0, float("inf"))

    def changed(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The picture after one of the three."""
        name, amount = (
            ("color", 0.0),
            ("solarize", float(self.threshold)),
            ("gaussian_blur", rng.uniform(*self.sigma)),
        )[rng.integers(3)]
        return OPERATIONS[name](picture, amount, Canvas(), rng)
