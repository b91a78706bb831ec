"""CropImage and RandCropImage: a part of a picture."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from ppcls.data.image import decode_part
from ppcls.data.transforms.base import (
    Backend,
    Interpolation,
    Resizer,
    Size,
    Transform,
    interval,
    width_and_height,
)
from ppcls.errors import DataError
from ppcls.registry import TRANSFORMS

Progress = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


@TRANSFORMS.register()
class CropImage(Transform):
    """The centre of the picture.

    Args:
        size: one number for a square, or [width, height].
    """

    def __init__(self, size: Size):
        self.size = width_and_height(size)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [height of size, width of size, 3].

        Raises:
            DataError: the picture is smaller than the crop.
        """
        width, height = self.size
        have_height, have_width = image.shape[:2]
        if width > have_width or height > have_height:
            raise DataError(
                f"CropImage expected a picture of at least {width} x {height} pixels,"
                f" received {have_width} x {have_height}; put a ResizeImage before it"
            )
        left, top = (have_width - width) // 2, (have_height - height) // 2
        return image[top : top + height, left : left + width]


@TRANSFORMS.register()
class RandCropImage(Transform):
    """A random part of the picture, resized: the Inception crop by the published sampling rule.

    With aspect a: w = sqrt(a), h = 1 / sqrt(a); the area is drawn uniformly from ``scale`` times
    the picture's, cut off at the largest area that this aspect ratio allows, so that no draw is
    ever rejected; the position is uniform.

    Args:
        size: one number for a square, or [width, height].
        scale: [low, high] area of the part, as a fraction of the picture's; default [0.08, 1].
        ratio: [low, high] width / height of the part; default [3/4, 4/3].
        interpolation: see :func:`ppcls.data.image.resize`; ``random`` draws bilinear or bicubic.
        use_log_aspect: draws log(aspect) uniformly, so that 3/4 and 4/3 are equally likely.
        progress_size: instead, that of each stage of ``Global.train_mode: progressive``.
    """

    def __init__(
        self,
        size: Size,
        scale: list[float] | None = None,
        ratio: list[float] | None = None,
        interpolation: Interpolation | None = None,
        use_log_aspect: bool = False,
        backend: Backend = "cv2",
        progress_size: Progress | None = None,
    ):
        self.progress_size = progress_size
        self.size = width_and_height(size)
        self.scale = interval([0.08, 1.0] if scale is None else scale, "scale", 0.0, 1.0)
        self.ratio = interval([3 / 4, 4 / 3] if ratio is None else ratio, "ratio", 1e-3, 1e3)
        self.use_log_aspect = use_log_aspect
        self._resize = Resizer(interpolation, backend)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [height of size, width of size, 3]."""
        left, top, width, height = self.box(image.shape[1], image.shape[0], rng)
        part = image[top : top + height, left : left + width]
        target_width, target_height = self.size
        return self._resize(part, target_width, target_height, rng)

    def from_file(self, data: bytes, rng: np.random.Generator) -> np.ndarray:
        """The same of a file, of which only the part is decoded.

        Raises:
            DecodeError: the bytes are not a picture.
        """

        def box(width: int, height: int) -> tuple[int, int, int, int]:
            return self.box(width, height, rng)

        target_width, target_height = self.size
        part, rest = decode_part(data, box, target_width, target_height)
        return self._resize(part, target_width, target_height, rng, rest)

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(left, top, width, height) of the part of a picture of ``width`` x ``height`` pixels."""
        root = math.sqrt(self._aspect(rng))
        bound = min((width / height) / root**2, (height / width) * root**2)
        low, high = min(self.scale[0], bound), min(self.scale[1], bound)
        side = math.sqrt(width * height * rng.uniform(low, high))
        # At least one pixel: a picture of one line has less than that in its smallest part. At
        # most the picture: the root of a square may round upwards.
        part_width = min(max(int(side * root), 1), width)
        part_height = min(max(int(side / root), 1), height)
        left = int(rng.integers(width - part_width, endpoint=True))
        top = int(rng.integers(height - part_height, endpoint=True))
        return left, top, part_width, part_height

    def _aspect(self, rng: np.random.Generator) -> float:
        low, high = self.ratio
        if self.use_log_aspect:
            return math.exp(rng.uniform(math.log(low), math.log(high)))
        return rng.uniform(low, high)
