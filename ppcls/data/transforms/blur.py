"""GaussianBlur and BlurImage: pictures out of focus, or taken by a moving camera."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from ppcls.data.transforms.base import Transform, interval
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS

LEAST_KERNEL = 5


@TRANSFORMS.register()
class GaussianBlur(Transform):
    """Blurs with a standard deviation that is drawn for each picture.

    Args:
        sigma: [low, high] of the standard deviation in pixels; default [0.1, 2].
        kernel_size: width of the filter in pixels, odd; None is wide enough for the deviation.
        prob: how often a picture is changed at all.
    """

    def __init__(
        self,
        sigma: list[float] | None = None,
        kernel_size: Annotated[int, Field(ge=1)] | None = None,
        prob: Annotated[float, Field(ge=0, le=1)] = 1.0,
    ):
        self.sigma = interval([0.1, 2.0] if sigma is None else sigma, "sigma", 1e-3, 1e3)
        if kernel_size is not None and kernel_size % 2 == 0:
            raise ArgumentError("kernel_size", f"expected an odd number, received {kernel_size}")
        self.kernel_size = kernel_size
        self.prob = prob

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 RGB [height, width, 3], blurred; edges are mirrored."""
        if rng.random() >= self.prob:
            return image
        size = (self.kernel_size or 0, self.kernel_size or 0)
        return cv2.GaussianBlur(np.ascontiguousarray(image), size, rng.uniform(*self.sigma))


@TRANSFORMS.register()
class BlurImage(Transform):
    """Blurs some pictures, half of them as a camera out of focus does, half as a moving one.

    Args:
        ratio: how often a picture is blurred.
        motion_max_ksize: the camera's way in pixels is odd, at least 5, and less than this.
        motion_max_angle: the way's greatest angle to the diagonal in degrees, to either side.
        gaussian_max_ksize: width and height of the Gaussian filter are odd, at least 5, and less
            than this. A side's standard deviation is 0.3 * ((side - 1) / 2 - 1) + 0.8.
    """

    def __init__(
        self,
        ratio: Annotated[float, Field(ge=0, le=1)] = 0.5,
        motion_max_ksize: Annotated[int, Field(gt=LEAST_KERNEL)] = 12,
        motion_max_angle: Annotated[float, Field(ge=0, le=180)] = 45,
        gaussian_max_ksize: Annotated[int, Field(gt=LEAST_KERNEL)] = 12,
    ):
        self.ratio = ratio
        self.motion_max_ksize = motion_max_ksize
        self.motion_max_angle = motion_max_angle
        self.gaussian_max_ksize = gaussian_max_ksize

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 RGB [height, width, 3], blurred or not; edges are mirrored."""
        if rng.random() >= self.ratio:
            return image
        image = np.ascontiguousarray(image)
        if rng.random() < 0.5:
            size = [_odd(self.gaussian_max_ksize, rng) for _ in range(2)]
            return cv2.GaussianBlur(image, size, 0)
        length = _odd(self.motion_max_ksize, rng)
        angle = rng.uniform(-self.motion_max_angle, self.motion_max_angle)
        return cv2.filter2D(image, -1, motion_kernel(length, angle))


def motion_kernel(length: int, angle: float) -> np.ndarray:
    """A straight way of the camera: float32 [length, length] that sums to 1.

    Args:
        angle: degrees counter-clockwise from the falling diagonal.
    """
    middle = (length - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), angle, 1.0)
    kernel = cv2.warpAffine(np.eye(length, dtype=np.float32), turn, (length, length))
    return kernel / kernel.sum()


def _odd(bound: int, rng: np.random.Generator) -> int:
    choices = range(LEAST_KERNEL, bound, 2)
    return choices[rng.integers(len(choices))]
