"""Pad and Padv2: pixels around a picture."""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import Field

from ppcls.data.transforms.base import Backend, Size, Transform, width_and_height
from ppcls.data.transforms.fill import Fill, as_pixels, per_channel
from ppcls.errors import ArgumentError, DataError
from ppcls.registry import TRANSFORMS

Pixels = Annotated[int, Field(ge=0)]
PaddingMode = Literal["constant", "edge", "reflect", "symmetric"]
BORDERS: dict[str, int] = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}


@TRANSFORMS.register("Pad", "Pad_paddle_vision")
class Pad(Transform):
    """Puts a border around the picture.

    Args:
        padding: pixels on every side; or [left and right, top and bottom]; or [left, top, right,
            bottom].
        fill: colour of a constant border: one number, or [r, g, b].
        padding_mode: ``constant``; ``edge`` repeats the outermost pixels; ``reflect`` mirrors the
            picture in its outermost pixels, ``symmetric`` in its edge, which repeats them.
        backend: accepted because published configurations write it; the pixels are the same.
    """

    def __init__(
        self,
        padding: Pixels | list[Pixels],
        fill: Fill = 0,
        padding_mode: PaddingMode = "constant",
        backend: Backend = "pil",
    ):
        self.padding = _borders(padding)
        self.fill = per_channel(fill, "fill")
        if padding_mode not in BORDERS:
            raise ArgumentError(
                "padding_mode", f"expected one of {', '.join(BORDERS)}, received {padding_mode!r}"
            )
        self.padding_mode = padding_mode

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[top + height + bottom, left + width + right, 3]."""
        left, top, right, bottom = self.padding
        fill = as_pixels(self.fill, image.dtype).tolist()
        border = BORDERS[self.padding_mode]
        return cv2.copyMakeBorder(
            np.ascontiguousarray(image), top, bottom, left, right, border, value=fill
        )


@TRANSFORMS.register()
class Padv2(Transform):
    """Puts the picture on a canvas of a given size, or of the next multiple of a number.

    The published one turned the picture into floats; here it stays what it is, and on a picture
    of bytes 127.5 becomes 128.

    Args:
        size: one number for a square, or [width, height]; None for multiples of ``size_divisor``.
        size_divisor: what both sides become multiples of, if there is no ``size``.
        pad_mode: where the picture lies: 0 top left, 1 in the middle, 2 bottom right, -1 at
            ``offsets``.
        offsets: [x, y] of the picture's top left corner, with ``pad_mode`` -1.
        fill_value: colour of the canvas: one number, or [r, g, b].
    """

    def __init__(
        self,
        size: Size | None = None,
        size_divisor: Annotated[int, Field(ge=1)] = 32,
        pad_mode: Literal[-1, 0, 1, 2] = 0,
        offsets: list[Pixels] | None = None,
        fill_value: Fill = 127.5,
    ):
        if pad_mode not in (-1, 0, 1, 2):
            raise ArgumentError("pad_mode", f"expected -1, 0, 1 or 2, received {pad_mode!r}")
        if pad_mode == -1 and (offsets is None or len(offsets) != 2):
            raise ArgumentError(
                "offsets", f"expected [x, y] with pad_mode -1, received {offsets!r}"
            )
        self.size = None if size is None else width_and_height(size)
        self.size_divisor = size_divisor
        self.pad_mode = pad_mode
        self.offsets = offsets
        self.fill_value = per_channel(fill_value, "fill_value")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[height of the canvas, width of the canvas, 3].

        Raises:
            DataError: the picture does not fit.
        """
        height, width = image.shape[:2]
        canvas_width, canvas_height = self.size or (
            -(-side // self.size_divisor) * self.size_divisor for side in (width, height)
        )
        left, top = self._offsets(canvas_width - width, canvas_height - height)
        if left + width > canvas_width or top + height > canvas_height:
            raise DataError(
                f"Padv2 expected a picture that fits on {canvas_width} x {canvas_height} pixels,"
                f" received {width} x {height} at [{max(left, 0)}, {max(top, 0)}]"
            )
        canvas = np.empty((canvas_height, canvas_width, 3), image.dtype)
        canvas[:] = as_pixels(self.fill_value, image.dtype)
        canvas[top : top + height, left : left + width] = image
        return canvas

    def _offsets(self, free_width: int, free_height: int) -> tuple[int, int]:
        """Where the picture goes; never negative, so that one too large ends outside."""
        if self.pad_mode == -1 and self.offsets is not None:
            return self.offsets[0], self.offsets[1]
        share = {0: (0, 0), 1: (free_width // 2, free_height // 2), 2: (free_width, free_height)}
        left, top = share[self.pad_mode]
        return max(left, 0), max(top, 0)


def _borders(padding: int | list[int]) -> tuple[int, int, int, int]:
    sides = [padding] * 4 if isinstance(padding, int) else list(padding)
    if len(sides) not in (2, 4) or min(sides) < 0:
        raise ArgumentError(
            "padding", f"expected an integer >= 0 or a list of 2 or 4, received {padding!r}"
        )
    left, top, right, bottom = sides * (4 // len(sides))
    return left, top, right, bottom
