"""RandAugment (Cubuk et al., arXiv:1909.13719) in the published variants.

A magnitude of 10 is the strongest of the paper; published recipes go up to 20. The variants differ
in what a magnitude means for each operation, which the tables say.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from ppcls.data.transforms.autoaugment import ACTIONS as AUTOAUGMENT
from ppcls.data.transforms.autoaugment import STEPS
from ppcls.data.transforms.base import interval
from ppcls.data.transforms.operations import BLACK, GREY, Canvas, Colour, Resampling
from ppcls.data.transforms.policy import Action, Policy, apply_sub_policy, colour
from ppcls.registry import TRANSFORMS

Magnitude = Annotated[float, Field(ge=0)] | list[float]
Progress = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]
DENOMINATOR = 10  # magnitudes are tenths

V1: dict[str, Action] = AUTOAUGMENT | {
    # Stronger with a smaller magnitude: fewer bits are kept, and more values are inverted.
    "posterize": Action("posterize", scale=4, rounding=int),
    "solarize": Action("solarize", scale=256),
}
V2: dict[str, Action] = V1 | {
    "shear_x": Action("shear_x", scale=0.3, signed=True),
    "shear_y": Action("shear_y", scale=0.3, signed=True),
    "translate_x": Action("translate_x_pixels", scale=100, signed=True),
    "translate_y": Action("translate_y_pixels", scale=100, signed=True),
    "color": Action("color", offset=0.1, scale=1.8),
    "contrast": Action("contrast", offset=0.1, scale=1.8),
    "sharpness": Action("sharpness", offset=0.1, scale=1.8),
    "brightness": Action("brightness", offset=0.1, scale=1.8),
    "solarize": Action("solarize", scale=256, rounding=int),
    "solarize_add": Action("solarize_add", scale=110, rounding=int),
    "cutout": Action("cutout", scale=40, rounding=int),
}
V3: dict[str, Action] = V1 | {
    "shear_x": Action("shear_x", scale=0.3, signed=True),
    "shear_y": Action("shear_y", scale=0.3, signed=True),
    "posterize": Action("posterize", offset=8, scale=-4, rounding=int),
    "solarize": Action("solarize", offset=255, scale=-255),
}
V4: dict[str, Action] = AUTOAUGMENT | {"cutout": Action("cutout", scale=20, rounding=round)}
V4_PROBABILITY = 0.5


@TRANSFORMS.register()
class RandAugment(Policy):
    """``num_layers`` operations out of 14, equally likely, all at one magnitude.

    Args:
        num_layers: operations a picture.
        magnitude: strength, in tenths of the paper's range; see the table ``V1``. [first, last]
            grows evenly from the first epoch of the run to the last, as in progressive learning.
        fillcolor: [red, green, blue] of what comes in from outside; default [128, 128, 128].

    Attributes:
        magnitude: the present one.
        magnitudes: (first, last) of a run.
    """

    actions: ClassVar[Mapping[str, Action]] = V1

    def __init__(
        self,
        num_layers: Annotated[int, Field(ge=0)] = 2,
        magnitude: Magnitude = 5,
        fillcolor: list[int] | None = None,
    ):
        self._settle(num_layers, magnitude, Canvas(colour(fillcolor, GREY)))

    def _settle(self, num_layers: int, magnitude: float | list[float], canvas: Canvas) -> None:
        values = magnitude if isinstance(magnitude, list) else [magnitude, magnitude]
        self.num_layers = num_layers
        self.magnitudes = interval(values, "magnitude", 0.0, float("inf"))
        self.magnitude = self.magnitudes[0]
        self._canvas = canvas
        self._actions = tuple(self.actions.values())

    def at(self, progress: float) -> RandAugment:
        """The same policy with the magnitude of a point of the run, from 0 to 1."""
        first, last = self.magnitudes
        other = copy.copy(self)
        other.magnitude = first + (last - first) * progress
        return other

    def changed(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The picture after ``num_layers`` operations."""
        for number in rng.integers(len(self._actions), size=self.num_layers):
            action = self._actions[number]
            picture = action.apply(picture, self.magnitude / DENOMINATOR, self._canvas, rng)
        return picture


@TRANSFORMS.register()
class RandAugmentV2(RandAugment):
    """RandAugment of EfficientNetV2 (arXiv:2104.00298), with solarize-add and cutout.

    Args:
        num_layers: operations a picture.
        magnitude: strength; see the table ``V2``, and RandAugment.
        progress_magnitude: instead, that of each stage of ``Global.train_mode: progressive``.
        fillcolor: [red, green, blue] of what comes in from outside; default [128, 128, 128].
    """

    actions: ClassVar[Mapping[str, Action]] = V2

    def __init__(
        self,
        num_layers: Annotated[int, Field(ge=0)] = 2,
        magnitude: Magnitude = 5,
        progress_magnitude: Progress | None = None,
        fillcolor: list[int] | None = None,
    ):
        self.progress_magnitude = progress_magnitude
        self._settle(num_layers, magnitude, Canvas(colour(fillcolor, GREY)))


@TRANSFORMS.register()
class RandAugmentV3(RandAugment):
    """RandAugment of MobileViTv2 (arXiv:2206.02680): all are stronger with the magnitude.

    Args:
        num_layers: operations a picture.
        magnitude: strength; see the table ``V3``, and RandAugment.
        fillcolor: [red, green, blue] of what comes in from outside; default [0, 0, 0].
        interpolation: of the operations that move pixels.
    """

    actions: ClassVar[Mapping[str, Action]] = V3

    def __init__(
        self,
        num_layers: Annotated[int, Field(ge=0)] = 2,
        magnitude: Magnitude = 3,
        fillcolor: list[int] | None = None,
        interpolation: Resampling = "bicubic",
    ):
        fill: Colour = colour(fillcolor, BLACK)
        self._settle(num_layers, magnitude, Canvas(fill, (interpolation,)))


@TRANSFORMS.register()
class RandAugmentV4(Policy):
    """RandAugment of ML-Decoder (arXiv:2111.12933).

    Two operations out of 15, each at a magnitude drawn from 1 to 9 of AutoAugment's, and each
    applied half the time. What comes in from outside is grey, a cutout black.
    """

    def changed(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The picture after none, one or two operations."""
        names = list(V4)
        for _ in range(2):
            name, magnitude = names[rng.integers(len(names))], int(rng.integers(1, STEPS + 1))
            canvas = Canvas(BLACK if name == "cutout" else GREY)
            layer = ((name, V4_PROBABILITY, magnitude),)
            picture = apply_sub_policy(picture, layer, V4, canvas, rng, STEPS)
        return picture
