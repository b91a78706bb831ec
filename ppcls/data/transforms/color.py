"""ColorJitter: random brightness, contrast, saturation and hue."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from PIL import Image, ImageEnhance
from pydantic import Field

from ppcls.data.transforms.base import Transform, interval
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS

Strength = Annotated[float, Field(ge=0)] | list[float]


@TRANSFORMS.register()
class ColorJitter(Transform):
    """Changes the colours by random factors, in random order, as paddle.vision and torchvision do.

    Args:
        brightness: v draws the factor from [max(0, 1 - v), 1 + v]; or [low, high] itself. A factor
            of 1 changes nothing, 0 gives black.
        contrast: the same; 0 gives the picture's mean grey.
        saturation: the same; 0 gives a grey picture.
        hue: v <= 0.5 draws a shift from [-v, v] turns of the colour circle; or [low, high] itself.
        prob: how often the picture is changed at all. The published default 2 means always, as
            does everything from 1.
    """

    def __init__(
        self,
        brightness: Strength = 0.0,
        contrast: Strength = 0.0,
        saturation: Strength = 0.0,
        hue: Strength = 0.0,
        prob: Annotated[float, Field(ge=0)] = 1.0,
    ):
        self.brightness = _factors(brightness, "brightness")
        self.contrast = _factors(contrast, "contrast")
        self.saturation = _factors(saturation, "saturation")
        self.hue = _shifts(hue)
        if prob < 0:
            raise ArgumentError("prob", f"expected a number >= 0, received {prob!r}")
        self.prob = prob

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 RGB [height, width, 3] in other colours."""
        if rng.random() >= self.prob:
            return image
        picture = Image.fromarray(np.ascontiguousarray(image))
        for change in rng.permutation(4):
            picture = self._changed(picture, int(change), rng)
        return np.array(picture)

    def _changed(self, picture: Image.Image, change: int, rng: np.random.Generator) -> Image.Image:
        low, high = (self.brightness, self.contrast, self.saturation, self.hue)[change]
        amount = rng.uniform(low, high)
        if amount == (0 if change == 3 else 1):
            return picture
        if change == 3:
            return _hue_shifted(picture, amount)
        enhancer = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[change]
        return enhancer(picture).enhance(amount)


def _hue_shifted(picture: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    # uint8 wraps around, as does the colour circle of 256 steps.
    shifted = np.asarray(hue) + np.uint8(int(turns * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")


def _factors(value: float | list[float], argument: str) -> tuple[float, float]:
    if isinstance(value, (int, float)):
        if not 0 <= value < math.inf:
            raise ArgumentError(argument, f"expected a number >= 0, received {value!r}")
        return max(0.0, 1.0 - value), 1.0 + value
    return interval(value, argument, 0.0, math.inf)


def _shifts(value: float | list[float]) -> tuple[float, float]:
    if isinstance(value, (int, float)):
        if not 0 <= value <= 0.5:
            raise ArgumentError("hue", f"expected a number from 0 to 0.5, received {value!r}")
        return -float(value), float(value)
    return interval(value, "hue", -0.5, 0.5)
