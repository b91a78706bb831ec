"""Crops beside CropImage and RandCropImage: at the centre, at a ratio, anywhere."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from ppcls.data.transforms.base import (
    Backend,
    Interpolation,
    Resizer,
    Size,
    Transform,
    width_and_height,
)
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.resize import height_first
from ppcls.errors import DataError
from ppcls.registry import TRANSFORMS

ATTEMPTS = 10  # of RandomResizedCrop, before it takes the centre


@TRANSFORMS.register()
class CenterCrop(Transform):
    """The centre of the picture, as paddle.vision cuts it.

    Where the margins cannot be equal, half a pixel is rounded to the even number; CropImage
    rounds it down.

    Args:
        size: one number for a square, or [height, width], in the order of paddle.vision.
    """

    def __init__(self, size: Size):
        self.size = height_first(size)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [height of size, width of size, 3].

        Raises:
            DataError: the picture is smaller than the crop.
        """
        width, height = self.size
        have_height, have_width = image.shape[:2]
        _check_fits("CenterCrop", self.size, have_width, have_height)
        left, top = round((have_width - width) / 2), round((have_height - height) / 2)
        return image[top : top + height, left : left + width]


@TRANSFORMS.register()
class CropImageAtRatio(Transform):
    """The central square with sides of size / (size + pad) times the short side, resized.

    That is what a resize of the short side to size + pad and a crop of ``size`` keep, without the
    larger picture in between. It fits pictures of any size.

    Args:
        size: side of the result in pixels.
        pad: how much larger the short side would have been resized.
        interpolation: see :func:`ppcls.data.image.resize`.
    """

    def __init__(
        self,
        size: Annotated[int, Field(ge=1)],
        pad: Annotated[int, Field(ge=0)],
        interpolation: Interpolation = "bilinear",
    ):
        self.size = width_and_height(size)
        self._kept, self._whole = size, size + pad
        self._resize = Resizer(interpolation, "cv2")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [size, size, 3]."""
        height, width = image.shape[:2]
        side = max(min(height, width) * self._kept // self._whole, 1)
        left, top = (width - side) // 2, (height - side) // 2
        part = image[top : top + side, left : left + side]
        return self._resize(part, self.size[0], self.size[1], rng)


@TRANSFORMS.register("RandCropImageV2", "RandomCropImage")
class RandomCropImage(RandCropImage):
    """A random part of a given size, without a resize; every position is equally likely.

    The published RandCropImageV2 could begin a pixel too far to the right or below, and gave a
    smaller part then; the two names mean the same here.

    Args:
        size: one number for a square, or [width, height].
    """

    def __init__(self, size: Size):
        super().__init__(size)

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(left, top, width, height) of the part of a picture of ``width`` x ``height`` pixels.

        Raises:
            DataError: the picture is smaller than the part.
        """
        _check_fits("RandomCropImage", self.size, width, height)
        return _placed(width, height, self.size[0], self.size[1], rng)


@TRANSFORMS.register()
class RandomResizedCrop(RandCropImage):
    """A random part of the picture, resized: the Inception crop by the rule of paddle.vision.

    Area and logarithm of the aspect ratio are drawn uniformly; a part that would not lie within
    the picture is drawn anew, and after ten draws the largest centre of an allowed aspect ratio is
    taken (arXiv 1409.4842, section 6, as torchvision does it).

    Args:
        size: one number for a square, or [height, width], in the order of paddle.vision.
        scale: [low, high] area of the part, as a fraction of the picture's; default [0.08, 1].
        ratio: [low, high] width / height of the part; default [3/4, 4/3].
        interpolation: see :func:`ppcls.data.image.resize`; ``random`` draws bilinear or bicubic.
        backend: (ppcls) ``pil`` smooths where it shrinks.
    """

    def __init__(
        self,
        size: Size,
        scale: list[float] | None = None,
        ratio: list[float] | None = None,
        interpolation: Interpolation = "bilinear",
        backend: Backend = "cv2",
    ):
        super().__init__(
            size=list(height_first(size)),
            scale=scale,
            ratio=ratio,
            interpolation=interpolation,
            use_log_aspect=True,
            backend=backend,
        )

    def box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(left, top, width, height) of the part of a picture of ``width`` x ``height`` pixels."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(ATTEMPTS):
            area = width * height * rng.uniform(self.scale[0], self.scale[1])
            aspect = math.exp(rng.uniform(low, high))
            part_width = round(math.sqrt(area * aspect))
            part_height = round(math.sqrt(area / aspect))
            if 0 < part_width <= width and 0 < part_height <= height:
                return _placed(width, height, part_width, part_height, rng)
        return self._centre(width, height)

    def _centre(self, width: int, height: int) -> tuple[int, int, int, int]:
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        part_width = min(max(round(height * aspect), 1), width)
        part_height = min(max(round(width / aspect), 1), height)
        return (width - part_width) // 2, (height - part_height) // 2, part_width, part_height


@TRANSFORMS.register()
class CropWithPadding(Transform):
    """Keeps a random part where it is and overwrites the rest; the size stays.

    Args:
        prob: how often the picture is changed at all.
        padding_num: the byte around the part, in all channels.
        size: accepted because published configurations write it; it has no effect.
        scale: [low, high] area of the part, as a fraction of the picture's; default [0.08, 1].
        ratio: [low, high] width / height of the part; default [3/4, 4/3].
        interpolation: accepted because published configurations write it; it has no effect.
    """

    def __init__(
        self,
        prob: Annotated[float, Field(ge=0, le=1)] = 1.0,
        padding_num: Annotated[int, Field(ge=0, le=255)] = 0,
        size: Size = 224,
        scale: list[float] | None = None,
        ratio: list[float] | None = None,
        interpolation: Interpolation = "bilinear",
    ):
        self.prob = prob
        self.padding_num = padding_num
        self._crop = RandomResizedCrop(size, scale, ratio, interpolation)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[height, width, 3] as before."""
        if rng.random() >= self.prob:
            return image
        left, top, width, height = self._crop.box(image.shape[1], image.shape[0], rng)
        part = np.s_[top : top + height, left : left + width]
        result = np.full(image.shape, self.padding_num, image.dtype)
        result[part] = image[part]
        return result


def _placed(
    width: int, height: int, part_width: int, part_height: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    left = int(rng.integers(width - part_width, endpoint=True))
    top = int(rng.integers(height - part_height, endpoint=True))
    return left, top, part_width, part_height


def _check_fits(name: str, size: tuple[int, int], width: int, height: int) -> None:
    if size[0] > width or size[1] > height:
        raise DataError(
            f"{name} expected a picture of at least {size[0]} x {size[1]} pixels,"
            f" received {width} x {height}; put a ResizeImage before it"
        )
