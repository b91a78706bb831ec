"""RandomApply: a list of transforms, now and then."""

from __future__ import annotations

import copy
from typing import Annotated

import numpy as np
from pydantic import Field

from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.normalize import NormalizeImage
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS, Many


@TRANSFORMS.register()
class RandomApply(Transform):
    """Applies all of the transforms, one after the other, with probability ``p``; else none.

    Args:
        p: how often.
        transforms: what is applied, ``- Name: {argument: value}``; changes pixels only: neither
            DecodeImage nor NormalizeImage nor ToCHWImage.
    """

    def __init__(
        self,
        p: Annotated[float, Field(ge=0, le=1)],
        transforms: Annotated[list[Transform], Many(TRANSFORMS, whole=False)],
    ):
        for transform in transforms:
            if isinstance(transform, (DecodeImage, NormalizeImage)) or transform.gives == "chw":
                name = type(transform).__name__
                raise ArgumentError(
                    "transforms", f"expected transforms that change pixels only, received {name}"
                )
        self.p = p
        self.transforms = transforms

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 RGB [height, width, 3], transformed or as it is."""
        if rng.random() >= self.p:
            return image
        for transform in self.transforms:
            image = transform(image, rng)
        return image

    def at(self, progress: float) -> RandomApply:
        """The same at a point of the run, from 0 to 1."""
        other = copy.copy(self)
        other.transforms = [transform.at(progress) for transform in self.transforms]
        return other

    def of_size(self, size: tuple[int, int]) -> RandomApply:
        """The same with results of (width, height), from those that set the size."""
        other = copy.copy(self)
        other.transforms = [transform.of_size(size) for transform in self.transforms]
        return other

    def of_magnitude(self, magnitude: float) -> RandomApply:
        """The same with those that have a magnitude at this one."""
        other = copy.copy(self)
        other.transforms = [transform.of_magnitude(magnitude) for transform in self.transforms]
        return other
