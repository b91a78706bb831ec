"""ColorJitter, RandomGrayscale and PCALighting: other colours, the pixels where they were."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageEnhance
from pydantic import Field

from ppcls.data.transforms.base import Transform, interval
from ppcls.data.transforms.policy import Policy, as_picture
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS

IMAGENET_EIGENVALUES = (0.2175, 0.0188, 0.0045)
IMAGENET_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)

Strength = Annotated[float, Field(ge=0)] | list[float]


@TRANSFORMS.register("ColorJitter", "RawColorJitter")
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
        """uint8 RGB [height, width, 3] in other colours.

        Raises:
            DataError: the pixels are not uint8.
        """
        if rng.random() >= self.prob:
            return image
        picture = as_picture(image, type(self).__name__)
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


@TRANSFORMS.register()
class RandomGrayscale(Policy):
    """Makes the picture grey with probability ``p``, by the luma of ITU-R BT.601."""

    def __init__(self, p: Annotated[float, Field(ge=0, le=1)] = 0.1):
        self.p = p

    def changed(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The picture with three equal channels, or the picture itself."""
        return picture.convert("L").convert("RGB") if rng.random() < self.p else picture


@TRANSFORMS.register()
class PCALighting(Transform):
    """Adds one random colour to the whole picture, mostly along how colours vary in ImageNet.

    AlexNet's (Krizhevsky et al., NIPS 2012, section 4.1): the principal components of the colours,
    each times its eigenvalue and a normal draw.

    Args:
        alphastd: standard deviation of the draws.
        eigval: one eigenvalue a component, for values from 0 to 1; default ImageNet's.
        eigvec: rows red, green and blue, a component in each column; default ImageNet's.
    """

    def __init__(
        self,
        alphastd: Annotated[float, Field(ge=0)] = 0.1,
        eigval: list[float] | None = None,
        eigvec: list[list[float]] | None = None,
    ):
        self.alphastd = alphastd
        values = _array(eigval, IMAGENET_EIGENVALUES, "eigval")
        self._spread = _array(eigvec, IMAGENET_EIGENVECTORS, "eigvec") * values

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[height, width, 3]: uint8, cut off at 0 and 255, or float32 as it is behind a scaling."""
        shift = self._spread @ rng.normal(0.0, self.alphastd, 3)
        if image.dtype != np.uint8:
            return image + shift.astype(np.float32)
        return np.clip(np.rint(image + 255 * shift), 0, 255).astype(np.uint8)


def _array(values: list[Any] | None, default: tuple[Any, ...], argument: str) -> np.ndarray:
    expected = np.array(default)
    if values is None:
        return expected
    received = np.array(values, np.float64) if len({np.shape(v) for v in values}) == 1 else None
    if received is None or received.shape != expected.shape:
        shape = " x ".join(map(str, expected.shape))
        raise ArgumentError(argument, f"expected {shape} numbers, received {values!r}")
    return received


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
