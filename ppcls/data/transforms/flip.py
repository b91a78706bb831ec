"""RandFlipImage and RandomHorizontalFlip: mirror a picture."""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import Field

from ppcls.data.transforms.base import Transform
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS


@TRANSFORMS.register()
class RandFlipImage(Transform):
    """Mirrors the picture with probability ``prob``.

    Args:
        flip_code: 1 mirrors left and right, 0 top and bottom, -1 both.
    """

    def __init__(
        self,
        flip_code: Literal[1, 0, -1] = 1,
        prob: Annotated[float, Field(ge=0, le=1)] = 0.5,
    ):
        if flip_code not in (1, 0, -1):
            raise ArgumentError("flip_code", f"expected 1, 0 or -1, received {flip_code!r}")
        if not 0 <= prob <= 1:
            raise ArgumentError("prob", f"expected a number from 0 to 1, received {prob!r}")
        self.flip_code = flip_code
        self.prob = prob

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[height, width, 3], mirrored or not."""
        if rng.random() >= self.prob:
            return image
        # Not a view: copying one with negative strides into a batch takes forty times as long.
        return cv2.flip(image, self.flip_code)


@TRANSFORMS.register()
class RandomHorizontalFlip(RandFlipImage):
    """Mirrors left and right with probability ``prob``, under paddle.vision's name."""

    def __init__(self, prob: Annotated[float, Field(ge=0, le=1)] = 0.5):
        super().__init__(flip_code=1, prob=prob)
