"""RandomRotation and RandomRot90: a picture turned around."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import cv2
import numpy as np
from pydantic import Field

from ppcls.data.image import CV2_INTERPOLATION
from ppcls.data.transforms.base import Transform, interval
from ppcls.data.transforms.fill import Fill, as_pixels, per_channel
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS

TURNS = (
    None,
    cv2.ROTATE_90_COUNTERCLOCKWISE,
    cv2.ROTATE_180,
    cv2.ROTATE_90_CLOCKWISE,
)


@TRANSFORMS.register()
class RandomRotation(Transform):
    """Turns the picture by a random angle, counter-clockwise for angles above 0.

    Args:
        degrees: d draws the angle from [-d, d]; or [low, high] itself.
        interpolation: how pixels between the old ones are made.
        expand: the result is as large as the turned picture, instead of as large as before.
        center: [x, y] in pixels from the top left corner that stays where it is; default the
            middle. With ``expand`` it makes no difference.
        fill: colour of the new corners: one number, or [r, g, b].
        prob: how often the picture is turned at all.
    """

    def __init__(
        self,
        degrees: Annotated[float, Field(ge=0)] | list[float],
        interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "nearest",
        expand: bool = False,
        center: list[float] | None = None,
        fill: Fill = 0,
        prob: Annotated[float, Field(ge=0, le=1)] = 0.5,
    ):
        limits = [-degrees, degrees] if isinstance(degrees, (int, float)) else degrees
        self.degrees = interval(limits, "degrees", -math.inf, math.inf)
        if interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
            raise ArgumentError(
                "interpolation",
                f"expected nearest, bilinear, bicubic or lanczos, received {interpolation!r}",
            )
        if center is not None and len(center) != 2:
            raise ArgumentError("center", f"expected [x, y], received {center!r}")
        self.interpolation = interpolation
        self.expand = expand
        self.center = center
        self.fill = per_channel(fill, "fill")
        self.prob = prob

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[height, width, 3] as before, or larger if ``expand``."""
        if rng.random() >= self.prob:
            return image
        return self._turned(image, rng.uniform(*self.degrees))

    def _turned(self, image: np.ndarray, angle: float) -> np.ndarray:
        height, width = image.shape[:2]
        x, y = self.center or (width / 2, height / 2)
        # OpenCV counts from the centre of the first pixel, not from its corner.
        matrix = cv2.getRotationMatrix2D((x - 0.5, y - 0.5), angle, 1.0)
        if self.expand:
            middle = matrix @ ((width - 1) / 2, (height - 1) / 2, 1.0)
            cosine, sine = np.abs(matrix[0, :2])
            # Rounded first: the cosine of 90 degrees is not quite 0.
            width, height = (
                math.ceil(round(sides, 6))
                for sides in (width * cosine + height * sine, width * sine + height * cosine)
            )
            matrix[:, 2] += ((width - 1) / 2, (height - 1) / 2) - middle
        return cv2.warpAffine(
            np.ascontiguousarray(image),
            matrix,
            (width, height),
            flags=CV2_INTERPOLATION[self.interpolation],
            borderValue=as_pixels(self.fill, image.dtype).tolist(),
        )


@TRANSFORMS.register()
class RandomRot90(Transform):
    """Turns the picture by 0, 90, 180 or 270 degrees, each as often as the others.

    A quarter turn swaps width and height: in a list for batches it belongs where pictures are
    square.
    """

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[height, width, 3] or [width, height, 3]."""
        turn = TURNS[rng.integers(4)]
        return image if turn is None else cv2.rotate(np.ascontiguousarray(image), turn)
