"""TimmAutoAugment: timm's RandAugment, AutoAugment and AugMix, by its configuration strings.

What the strings and magnitudes mean follows timm's documentation; the facts are its author's.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from ppcls.data.transforms.augmix import Mixer
from ppcls.data.transforms.base import Size, width_and_height
from ppcls.data.transforms.normalize import IMAGENET_MEAN
from ppcls.data.transforms.operations import Canvas, Colour, Resampling
from ppcls.data.transforms.policy import Action, Policy
from ppcls.data.transforms.timm_strings import Settings, parse
from ppcls.data.transforms.timm_tables import (
    AUGMIX,
    DENOMINATOR,
    INCREASING,
    OF_THREE_AUGMENT,
    PLAIN,
    POLICIES,
    W0,
    WEIGHTS,
    WEIGHTS_3A,
)
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS


@TRANSFORMS.register()
class TimmAutoAugment(Policy):
    """timm's RandAugment, AutoAugment or AugMix, as a string says.

    - ``rand-m9-n2-p0.5-mstd0.5-mmax10-inc1``: ``n`` operations at magnitude ``m``, each applied
      with probability ``p``; ``inc1`` makes all of them stronger with the magnitude; ``tweights``,
      ``t3a``, ``t3aw`` and ``w0`` choose other operations or other weights.
    - ``original``, ``originalr``, ``v0``, ``v0r``, ``3a``: a sub-policy of a table, drawn for each
      picture; takes ``mstd``.
    - ``augmix-m3-w3-d2-a1-mstd0.5``: ``w`` chains of ``d`` operations (without it 1 to 3), mixed.

    ``mstd`` is the standard deviation of noise on every magnitude; ``mstdinf``, or more than 100,
    draws each from 0 to its value instead, which AugMix does by itself. Magnitudes are cut off at
    ``mmax``, which is 10 if it is not given.

    Args:
        prob: how often a picture is changed at all.
        config_str: the string.
        interpolation: of the operations that move pixels; ``random`` or None draws bilinear or
            bicubic for each.
        img_size: accepted because published configurations write it; all distances are parts of
            the picture's sides.
        mean: of the pixels, 0 to 1 a channel: the colour of what comes in from outside; default
            ImageNet's.
    """

    def __init__(
        self,
        prob: Annotated[float, Field(ge=0, le=1)] = 1.0,
        config_str: str = "rand-m9-mstd0.5-inc1",
        interpolation: Literal["bilinear", "bicubic", "random"] | None = "bicubic",
        img_size: Size = 224,
        mean: list[Annotated[float, Field(ge=0, le=1)]] | None = None,
    ):
        width_and_height(img_size, "img_size")
        self.prob = prob
        self.settings = parse(config_str)
        self.per_view = self.settings.policy == "augmix"
        self._canvas = Canvas(_fill(mean), _resampling(interpolation))
        self._choose()

    def _choose(self) -> None:
        settings = self.settings
        self._names, self._actions, weights = _choice(settings)
        self._weights: np.ndarray | None = None
        if weights is not None:
            relative = np.array([weights[name] for name in self._names], np.float64)
            self._weights = relative / relative.sum()
            likely = int(np.count_nonzero(relative))
            if settings.layers > likely:
                raise ArgumentError(
                    "config_str",
                    f"expected at most n{likely} with weights, received n{settings.layers}",
                )
        self._mixer = Mixer(settings.alpha, settings.width, settings.depth)

    def changed(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The picture after the policy, or the picture itself."""
        if rng.random() >= self.prob:
            return picture
        if self.settings.policy == "augmix":
            return self._mixer.mixed(picture, self._augmix_step, rng)
        if self.settings.policy == "rand":
            return self._rand(picture, rng)
        sub_policies, _ = POLICIES[self.settings.policy]
        for name, probability, magnitude in sub_policies[rng.integers(len(sub_policies))]:
            if rng.random() < probability:
                picture = self._apply(name, magnitude, picture, rng)
        return picture

    def _rand(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        repeat = self._weights is None
        count = len(self._names)
        for number in rng.choice(count, self.settings.layers, replace=repeat, p=self._weights):
            if rng.random() < self.settings.probability:
                name = self._names[number]
                picture = self._apply(name, self.settings.magnitude, picture, rng)
        return picture

    def _augmix_step(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        name = self._names[rng.integers(len(self._names))]
        return self._apply(name, self.settings.magnitude, picture, rng)

    def _apply(
        self, name: str, magnitude: float, picture: Image.Image, rng: np.random.Generator
    ) -> Image.Image:
        level = noisy(magnitude, self.settings, rng) / DENOMINATOR
        return self._actions[name].apply(picture, level, self._canvas, rng)


def noisy(magnitude: float, settings: Settings, rng: np.random.Generator) -> float:
    """The magnitude of one operation, from 0 to ``settings.limit``."""
    if math.isinf(settings.deviation):
        magnitude = rng.uniform(0, magnitude)
    elif settings.deviation > 0:
        magnitude = rng.normal(magnitude, settings.deviation)
    return min(max(magnitude, 0.0), settings.limit)


def _choice(
    settings: Settings,
) -> tuple[tuple[str, ...], dict[str, Action], dict[str, float] | None]:
    """What ``rand`` and ``augmix`` choose among: names, what they mean, and their weights."""
    increasing = INCREASING | OF_THREE_AUGMENT
    if settings.policy == "augmix":
        return tuple(AUGMIX), AUGMIX, None
    if settings.policy != "rand":
        return (), POLICIES[settings.policy][1], None
    if settings.choice == "3a":
        return ("solarize", "desaturate", "gaussian_blur"), increasing, None
    if settings.choice is not None:
        weights = WEIGHTS if settings.choice == "weights" else WEIGHTS_3A
        return tuple(weights), increasing, weights
    actions = INCREASING if settings.increasing else PLAIN
    return tuple(PLAIN), actions, None if settings.weight_set is None else W0


def _resampling(interpolation: str | None) -> tuple[Resampling, ...]:
    if interpolation == "bilinear":
        return ("bilinear",)
    return ("bicubic",) if interpolation == "bicubic" else ("bilinear", "bicubic")


def _fill(mean: list[float] | None) -> Colour:
    values = list(IMAGENET_MEAN) if mean is None else mean
    if len(values) != 3:
        raise ArgumentError("mean", f"expected three numbers from 0 to 1, received {mean!r}")
    red, green, blue = (round(255 * value) for value in values)
    return red, green, blue
