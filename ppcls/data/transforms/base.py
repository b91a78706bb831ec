"""What every transform is, and what their arguments have in common."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ppcls.data import image as pictures
from ppcls.errors import ArgumentError

Layout = Literal["hwc", "chw"]
Backend = Literal["cv2", "pil"]
Interpolation = Literal[
    "nearest", "bilinear", "bicubic", "area", "lanczos", "box", "hamming", "random"
]
Size = Annotated[int, Field(ge=1)] | list[int]

RANDOM_INTERPOLATIONS = ("bilinear", "bicubic")  # the published choice of `random`, both backends


class Transform(ABC):
    """One operation on one picture.

    A transform holds its settings only. Whatever is random is drawn from the generator it is
    given, so that a sample depends on (seed, epoch, index) and not on the process that reads it.

    Attributes:
        needs: the layout that it works on, None for either; the pipeline checks it.
        gives: the layout of its result, None for that of what it is given.
        size: (width, height) of its result, or None if it does not set one.
        magnitude: how strong it is, or None if it has no such number.
        per_view: whether it makes the views of AugMix, where a picture has several: each has its
            own draw of it, and the first is without it.
    """

    needs: Layout | None = "hwc"
    gives: Layout | None = "hwc"
    size: Any = None
    magnitude: Any = None
    per_view: bool = False

    @abstractmethod
    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The picture, transformed.

        Args:
            image: uint8 RGB [height, width, 3], or float32 behind a normalisation.
            rng: the only source of random numbers.

        Raises:
            DataError: this picture cannot be transformed, for instance because it is too small.
        """

    def at(self, progress: float) -> Transform:
        """This transform as it is at a point of the run, from 0 (first epoch) to 1 (last)."""
        return self

    def of_size(self, size: tuple[int, int]) -> Transform:
        """This transform, with results of (width, height) if it is one that sets the size."""
        if self.size is None:
            return self
        other = copy.copy(self)
        other.size = size
        return other

    def of_magnitude(self, magnitude: float) -> Transform:
        """This transform at another magnitude, if it has one."""
        if self.magnitude is None:
            return self
        other = copy.copy(self)
        other.magnitude = magnitude
        return other


class Resizer:
    """Resizes as an operation's ``interpolation`` and ``backend`` say.

    Args:
        interpolation: a name, ``random`` for a draw of bilinear or bicubic a picture, or None for
            bilinear.

    Raises:
        ArgumentError: the backend has no such interpolation.
    """

    def __init__(self, interpolation: Interpolation | None, backend: Backend):
        pictures.check_interpolation(None if interpolation == "random" else interpolation, backend)
        self.interpolation = interpolation
        self.backend = backend

    def __call__(
        self,
        image: np.ndarray,
        width: int,
        height: int,
        rng: np.random.Generator,
        rest: pictures.Rest = pictures.NO_REST,
    ) -> np.ndarray:
        """uint8 [height, width, 3]; see :func:`ppcls.data.image.resize`."""
        name: str | None = self.interpolation
        if name == "random":
            name = RANDOM_INTERPOLATIONS[rng.integers(len(RANDOM_INTERPOLATIONS))]
        return pictures.resize(image, width, height, name, self.backend, rest)


def width_and_height(size: int | list[int], argument: str = "size") -> tuple[int, int]:
    """(width, height) of ``size``: one number for a square, or [width, height].

    Raises:
        ArgumentError: neither of the two, or a side below 1.
    """
    sides = [size, size] if isinstance(size, int) else list(size)
    if len(sides) != 2 or any(not isinstance(s, int) or s < 1 for s in sides):
        raise ArgumentError(
            argument, f"expected an integer >= 1 or [width, height], received {size!r}"
        )
    return sides[0], sides[1]


def interval(values: list[float], argument: str, low: float, high: float) -> tuple[float, float]:
    """(a, b) of ``[a, b]`` with low <= a <= b <= high.

    Raises:
        ArgumentError: ``values`` is something else.
    """
    bounds = f"{low:g} <= low <= high" + ("" if math.isinf(high) else f" <= {high:g}")
    if len(values) != 2 or not low <= values[0] <= values[1] <= high:
        raise ArgumentError(argument, f"expected [low, high] with {bounds}, received {values!r}")
    return float(values[0]), float(values[1])
