"""TrivialAugment: one operation at a random strength. Müller and Hutter, arXiv:2103.10158."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from ppcls.data.transforms.operations import BLACK, Canvas, Resampling
from ppcls.data.transforms.policy import Action, Policy, colour
from ppcls.registry import TRANSFORMS

# The paper's wide space: amounts at the strongest of the levels.
WIDE: dict[str, Action] = {
    "identity": Action("identity"),
    "shear_x": Action("shear_x", scale=0.99, signed=True),
    "shear_y": Action("shear_y", scale=0.99, signed=True),
    "translate_x": Action("translate_x_pixels", scale=32, signed=True),
    "translate_y": Action("translate_y_pixels", scale=32, signed=True),
    "rotate": Action("rotate", scale=135, signed=True),
    "brightness": Action("brightness", offset=1, scale=0.99, signed=True),
    "color": Action("color", offset=1, scale=0.99, signed=True),
    "contrast": Action("contrast", offset=1, scale=0.99, signed=True),
    "sharpness": Action("sharpness", offset=1, scale=0.99, signed=True),
    "posterize": Action("posterize", offset=8, scale=-6, rounding=round),
    "solarize": Action("solarize", offset=255, scale=-255),
    "autocontrast": Action("autocontrast"),
    "equalize": Action("equalize"),
}


@TRANSFORMS.register("TrivialAugment", "TrivialAugmentWide")
class TrivialAugment(Policy):
    """One of 14 operations, equally likely, at a level drawn for each picture; the wide space.

    Args:
        num_magnitude_bins: number of levels, from no change to the strongest.
        fillcolor: [red, green, blue] of what comes in from outside; default [0, 0, 0].
        interpolation: of the operations that move pixels.
    """

    def __init__(
        self,
        num_magnitude_bins: Annotated[int, Field(ge=2)] = 31,
        fillcolor: list[int] | None = None,
        interpolation: Resampling = "nearest",
    ):
        self.num_magnitude_bins = num_magnitude_bins
        self._canvas = Canvas(colour(fillcolor, BLACK), (interpolation,))
        self._actions = tuple(WIDE.values())

    def changed(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The picture after one operation."""
        action = self._actions[rng.integers(len(self._actions))]
        level = int(rng.integers(self.num_magnitude_bins)) / (self.num_magnitude_bins - 1)
        return action.apply(picture, level, self._canvas, rng)
