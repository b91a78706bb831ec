"""AugMix: several augmented copies of a picture, mixed. Hendrycks et al., arXiv:1912.02781."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from ppcls.data.transforms.operations import BLACK, Canvas
from ppcls.data.transforms.policy import Action, Policy
from ppcls.registry import TRANSFORMS

RANDOM_DEPTHS = (1, 3)
WEAKEST_SEVERITY = 0.1
DENOMINATOR = 10  # severities are tenths

# Without the operations that the benchmark ImageNet-C tests with.
ACTIONS: dict[str, Action] = {
    "autocontrast": Action("autocontrast"),
    "equalize": Action("equalize"),
    "posterize": Action("posterize", offset=4, scale=-4, rounding=int),
    "rotate": Action("rotate", scale=30, signed=True, rounding=int),
    "solarize": Action("solarize", offset=256, scale=-256, rounding=int),
    "shear_x": Action("shear_x", scale=0.3, signed=True),
    "shear_y": Action("shear_y", scale=0.3, signed=True),
    "translate_x": Action("translate_x_whole", scale=1 / 3, signed=True),
    "translate_y": Action("translate_y_whole", scale=1 / 3, signed=True),
}


@dataclass(frozen=True)
class Mixer:
    """The mixture of the paper's algorithm 1.

    Attributes:
        alpha: of the Dirichlet distribution of the copies' weights, and of the Beta distribution
            of what they have together; the original has the rest.
        width: number of copies.
        depth: operations a copy; 0 or -1 draws 1 to 3 for each.
    """

    alpha: float
    width: int
    depth: int

    def mixed(
        self,
        picture: Image.Image,
        operation: Callable[[Image.Image, np.random.Generator], Image.Image],
        rng: np.random.Generator,
    ) -> Image.Image:
        """The picture, mixed with copies that went through ``operation`` depth times."""
        weights = rng.dirichlet([self.alpha] * self.width)
        share = rng.beta(self.alpha, self.alpha)
        mixture = (1 - share) * np.asarray(picture, np.float32)
        for weight in weights:
            low, high = RANDOM_DEPTHS
            depth = self.depth if self.depth > 0 else int(rng.integers(low, high + 1))
            copy = picture
            for _ in range(depth):
                copy = operation(copy, rng)
            mixture += np.float32(share * weight) * np.asarray(copy, np.float32)
        return Image.fromarray(np.clip(np.rint(mixture), 0, 255).astype(np.uint8))


@TRANSFORMS.register()
class AugMix(Policy):
    """The picture, mixed with copies that went through chains of random operations.

    Args:
        prob: how often a picture is changed at all.
        aug_prob_coeff: both parameters of the Dirichlet and Beta distributions of the weights.
        mixture_width: number of copies.
        mixture_depth: operations a copy; -1 draws 1 to 3 for each.
        aug_severity: each operation's strength is drawn from 0.1 to this, in tenths of its range.
    """

    per_view = True

    def __init__(
        self,
        prob: Annotated[float, Field(ge=0, le=1)] = 0.5,
        aug_prob_coeff: Annotated[float, Field(gt=0)] = 0.1,
        mixture_width: Annotated[int, Field(ge=1)] = 3,
        mixture_depth: Annotated[int, Field(ge=-1)] = 1,
        aug_severity: Annotated[float, Field(ge=WEAKEST_SEVERITY, le=10)] = 1,
    ):
        self.prob = prob
        self.aug_severity = aug_severity
        self._mixer = Mixer(aug_prob_coeff, mixture_width, mixture_depth)
        self._canvas = Canvas(BLACK, ("bilinear",))
        self._actions = tuple(ACTIONS.values())

    def changed(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The mixture, or the picture itself."""
        return self._mixer.mixed(picture, self._step, rng) if rng.random() < self.prob else picture

    def _step(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        action = self._actions[rng.integers(len(self._actions))]
        severity = rng.uniform(WEAKEST_SEVERITY, self.aug_severity)
        return action.apply(picture, severity / DENOMINATOR, self._canvas, rng)
