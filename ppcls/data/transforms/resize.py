"""ResizeImage, Resize and RandomInterpolationAugment: a picture in another size."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ppcls.data.image import resize
from ppcls.data.transforms.base import Backend, Interpolation, Resizer, Size, Transform
from ppcls.data.transforms.base import width_and_height as _width_and_height
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS

SMALLEST_SIDE = 0.2  # of RandomInterpolationAugment, as a fraction of the picture's
CV2_INTERPOLATIONS = ("nearest", "bilinear", "area", "bicubic", "lanczos")


@TRANSFORMS.register()
class ResizeImage(Transform):
    """Resizes to a given size, or so that the short side has a given length.

    Args:
        size: one number for a square, or [width, height]; the aspect ratio may change.
        resize_short: length of the short side in pixels; the aspect ratio stays. Exactly one of
            ``size`` and ``resize_short`` is given.
        interpolation: see :func:`ppcls.data.image.resize`; ``random`` draws bilinear or bicubic.
        return_numpy: accepted because published configurations write it; always an array here.
    """

    def __init__(
        self,
        size: Size | None = None,
        resize_short: Annotated[int, Field(ge=1)] | None = None,
        interpolation: Interpolation | None = None,
        backend: Backend = "cv2",
        return_numpy: bool = True,
    ):
        if (size is None) == (resize_short is None):
            received = "neither" if size is None else "both"
            raise ArgumentError(
                "resize_short", f"expected either size or resize_short, received {received}"
            )
        if resize_short is not None and resize_short < 1:
            raise ArgumentError(
                "resize_short", f"expected an integer >= 1, received {resize_short}"
            )
        self.size = None if size is None else _width_and_height(size)
        self.resize_short = resize_short
        self._resize = Resizer(interpolation, backend)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [height, width, 3] in the new size."""
        width, height = self.size or self._by_short_side(image)
        return self._resize(image, width, height, rng)

    def _by_short_side(self, image: np.ndarray) -> tuple[int, int]:
        height, width = image.shape[:2]
        scale = float(self.resize_short or 0) / min(width, height)
        return round(width * scale), round(height * scale)


@TRANSFORMS.register()
class Resize(Transform):
    """Resizes as paddle.vision does: [height, width], or one number for the short side.

    Args:
        size: length of the short side in pixels, of which the long side follows, rounded down;
            or [height, width], in the order of paddle.vision.
        interpolation: see :func:`ppcls.data.image.resize`.
        backend: (ppcls) ``pil`` smooths where it shrinks.
    """

    def __init__(
        self, size: Size, interpolation: Interpolation = "bilinear", backend: Backend = "cv2"
    ):
        self.short_side = size if isinstance(size, int) else None
        sides = height_first(size)
        self.size = None if isinstance(size, int) else sides
        self._resize = Resizer(interpolation, backend)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [height, width, 3] in the new size."""
        width, height = self.size or self._by_short_side(image)
        return self._resize(image, width, height, rng)

    def _by_short_side(self, image: np.ndarray) -> tuple[int, int]:
        height, width = image.shape[:2]
        side = self.short_side or 0
        if width < height:
            return side, side * height // width
        return side * width // height, side


@TRANSFORMS.register()
class RandomInterpolationAugment(Transform):
    """Shrinks the picture and enlarges it again, so that details get lost.

    Both sides shrink to one random fraction of 0.2 to 1, and each way has a random interpolation
    of OpenCV's five.

    Args:
        prob: how often the picture is changed at all.
    """

    def __init__(self, prob: Annotated[float, Field(ge=0, le=1)]):
        self.prob = prob

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [height, width, 3], as large as before."""
        if rng.random() >= self.prob:
            return image
        height, width = image.shape[:2]
        fraction = rng.uniform(SMALLEST_SIDE, 1.0)
        down, up = (CV2_INTERPOLATIONS[number] for number in rng.integers(5, size=2))
        small = resize(image, max(int(fraction * width), 1), max(int(fraction * height), 1), down)
        return resize(small, width, height, up)


def height_first(size: Size, argument: str = "size") -> tuple[int, int]:
    """(width, height) of one number for a square, or of [height, width] as in paddle.vision.

    Raises:
        ArgumentError: neither of the two, or a side below 1.
    """
    try:
        height, width = _width_and_height(size, argument)
    except ArgumentError:
        raise ArgumentError(
            argument, f"expected an integer >= 1 or [height, width], received {size!r}"
        ) from None
    return width, height
