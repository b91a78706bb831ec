"""ResizeImage: a picture in another size."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ppcls.data.transforms.base import Backend, Interpolation, Resizer, Size, Transform
from ppcls.data.transforms.base import width_and_height as _width_and_height
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS


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
