"""The operations on pictures that augmentation policies are made of.

Pictures are Pillow's here: a policy converts once, whatever the number of its operations. What a
magnitude means to an operation differs between policies: see :mod:`ppcls.data.transforms.policy`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

Colour = tuple[int, int, int]
Resampling = Literal["nearest", "bilinear", "bicubic"]

GREY: Colour = (128, 128, 128)
BLACK: Colour = (0, 0, 0)
RESAMPLING: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Canvas:
    """What operations that move pixels need besides the amount.

    Attributes:
        fill: colour of what comes into the picture from outside.
        resampling: one is drawn for each operation if there are several.
    """

    fill: Colour = GREY
    resampling: tuple[Resampling, ...] = ("nearest",)

    def drawn(self, rng: np.random.Generator) -> Image.Resampling:
        """The resampling of one operation."""
        number = rng.integers(len(self.resampling)) if len(self.resampling) > 1 else 0
        return RESAMPLING[self.resampling[number]]


Operation = Callable[[Image.Image, float, Canvas, np.random.Generator], Image.Image]


# Each operation: (picture, amount, canvas, rng) -> picture --------------------------------------


def _affine(
    picture: Image.Image, matrix: Sequence[float], canvas: Canvas, rng: np.random.Generator
) -> Image.Image:
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        tuple(matrix),
        resample=canvas.drawn(rng),
        fillcolor=canvas.fill,
    )


def shear_x(
    picture: Image.Image, amount: float, canvas: Canvas, rng: np.random.Generator
) -> Image.Image:
    """Row y is read ``amount`` * y pixels further right."""
    return _affine(picture, (1, amount, 0, 0, 1, 0), canvas, rng)


def shear_y(
    picture: Image.Image, amount: float, canvas: Canvas, rng: np.random.Generator
) -> Image.Image:
    """Column x is read ``amount`` * x pixels further down."""
    return _affine(picture, (1, 0, 0, amount, 1, 0), canvas, rng)


def translate(
    picture: Image.Image,
    amount: float,
    canvas: Canvas,
    rng: np.random.Generator,
    axis: int,
    unit: Literal["pixel", "side", "side in whole pixels"],
) -> Image.Image:
    """Everything moves left (axis 0) or up (axis 1) by ``amount`` pixels or parts of the side."""
    pixels = amount if unit == "pixel" else amount * picture.size[axis]
    if unit == "side in whole pixels":
        pixels = int(pixels)
    across, down = (pixels, 0.0) if axis == 0 else (0.0, pixels)
    return _affine(picture, (1, 0, across, 0, 1, down), canvas, rng)


def rotate(
    picture: Image.Image, amount: float, canvas: Canvas, rng: np.random.Generator
) -> Image.Image:
    """``amount`` degrees counter-clockwise about the centre."""
    return picture.rotate(amount, resample=canvas.drawn(rng), fillcolor=canvas.fill)


def enhance(
    picture: Image.Image,
    amount: float,
    canvas: Canvas,
    rng: np.random.Generator,
    enhancer: Callable[[Image.Image], Any],
) -> Image.Image:
    """A factor of 1 changes nothing, 0 gives the enhancer's degenerate picture."""
    return enhancer(picture).enhance(amount)


def by_table(
    picture: Image.Image,
    amount: float,
    canvas: Canvas,
    rng: np.random.Generator,
    table: Callable[[np.ndarray, float], np.ndarray],
) -> Image.Image:
    """Each value of each channel through a table of 256."""
    values = table(np.arange(256), amount).tolist()
    return picture.point(values * 3)


def _posterized(values: np.ndarray, bits: float) -> np.ndarray:
    return values & ~(2 ** (8 - min(max(int(bits), 0), 8)) - 1)


def _solarized(values: np.ndarray, threshold: float) -> np.ndarray:
    return np.where(values < threshold, values, 255 - values)


def _solarize_added(values: np.ndarray, addition: float) -> np.ndarray:
    return np.where(values < 128, np.clip(values + int(addition), 0, 255), values)


def _inverted(values: np.ndarray, amount: float) -> np.ndarray:
    return 255 - values


def cutout(
    picture: Image.Image, amount: float, canvas: Canvas, rng: np.random.Generator
) -> Image.Image:
    """A square of 2 * ``amount`` pixels in the colour of the canvas, its centre anywhere."""
    pad = int(amount)
    x, y = (int(rng.integers(side, endpoint=True)) for side in picture.size)
    result = picture.copy()
    result.paste(canvas.fill, (max(x - pad, 0), max(y - pad, 0), x + pad, y + pad))
    return result


def gaussian_blur(
    picture: Image.Image, amount: float, canvas: Canvas, rng: np.random.Generator
) -> Image.Image:
    """``amount`` is the standard deviation in pixels."""
    return picture.filter(ImageFilter.GaussianBlur(amount))


def random_gaussian_blur(
    picture: Image.Image, amount: float, canvas: Canvas, rng: np.random.Generator
) -> Image.Image:
    """A standard deviation from 0.1 to ``amount`` pixels."""
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, max(amount, 0.1))))


OPERATIONS: dict[str, Operation] = {
    "identity": lambda picture, amount, canvas, rng: picture,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": partial(translate, axis=0, unit="side"),
    "translate_y": partial(translate, axis=1, unit="side"),
    "translate_x_pixels": partial(translate, axis=0, unit="pixel"),
    "translate_y_pixels": partial(translate, axis=1, unit="pixel"),
    "translate_x_whole": partial(translate, axis=0, unit="side in whole pixels"),
    "translate_y_whole": partial(translate, axis=1, unit="side in whole pixels"),
    "rotate": rotate,
    "brightness": partial(enhance, enhancer=ImageEnhance.Brightness),
    "color": partial(enhance, enhancer=ImageEnhance.Color),
    "contrast": partial(enhance, enhancer=ImageEnhance.Contrast),
    "sharpness": partial(enhance, enhancer=ImageEnhance.Sharpness),
    "posterize": partial(by_table, table=_posterized),
    "solarize": partial(by_table, table=_solarized),
    "solarize_add": partial(by_table, table=_solarize_added),
    "invert": partial(by_table, table=_inverted),
    "autocontrast": lambda picture, amount, canvas, rng: ImageOps.autocontrast(picture),
    "equalize": lambda picture, amount, canvas, rng: ImageOps.equalize(picture),
    "cutout": cutout,
    "gaussian_blur": gaussian_blur,
    "random_gaussian_blur": random_gaussian_blur,
}
