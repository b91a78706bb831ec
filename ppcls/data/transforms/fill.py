"""What the transforms write where the picture has no pixels, or is to have none."""

from __future__ import annotations

import math

import numpy as np

from ppcls.errors import ArgumentError

Fill = float | list[float]


def per_channel(value: Fill, argument: str) -> tuple[float, float, float]:
    """Three numbers of one, or of a list of three.

    Raises:
        ArgumentError: neither of the two, or one that is not finite.
    """
    values = [value] * 3 if isinstance(value, (int, float)) else list(value)
    if len(values) != 3 or not all(math.isfinite(number) for number in values):
        raise ArgumentError(
            argument, f"expected a finite number or three of them, received {value!r}"
        )
    return float(values[0]), float(values[1]), float(values[2])


def as_pixels(values: np.ndarray | tuple[float, ...], dtype: np.dtype) -> np.ndarray:
    """Numbers as pixels of a picture: rounded and within 0 to 255 if those are bytes."""
    numbers = np.asarray(values, np.float64)
    if dtype == np.uint8:
        numbers = np.rint(numbers).clip(0, 255)
    return numbers.astype(dtype)
