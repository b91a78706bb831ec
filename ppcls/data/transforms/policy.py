"""What augmentation policies have in common: how a magnitude becomes an operation's amount."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.operations import OPERATIONS, Canvas, Colour, Resampling
from ppcls.errors import ArgumentError, DataError


@dataclass(frozen=True)
class Action:
    """An operation, and the amount that a policy gives it: offset + sign * rounding(scale * level).

    Attributes:
        operation: name in ``OPERATIONS``.
        scale: what a level of 1 adds to ``offset``.
        signed: the sign is - half the time.
        rounding: ``int`` towards zero or ``round``, where the published amounts are whole.
        low, high: bounds of the amount.
        resampling: instead of the canvas's.
    """

    operation: str
    offset: float = 0.0
    scale: float = 0.0
    signed: bool = False
    rounding: Callable[[float], float] | None = None
    low: float = -np.inf
    high: float = np.inf
    resampling: Resampling | None = None

    def amount(self, level: float, rng: np.random.Generator) -> float:
        """The operation's argument in its own unit.

        Args:
            level: 0 to 1, the policy's weakest to strongest; more extrapolates.
        """
        change = self.scale * level
        if self.rounding is not None:
            change = self.rounding(change)
        if self.signed and rng.random() < 0.5:
            change = -change
        return min(max(self.offset + change, self.low), self.high)

    def apply(
        self, picture: Image.Image, level: float, canvas: Canvas, rng: np.random.Generator
    ) -> Image.Image:
        """The picture, changed; the given one stays as it is."""
        if self.resampling is not None:
            canvas = replace(canvas, resampling=(self.resampling,))
        amount = self.amount(level, rng)
        return OPERATIONS[self.operation](picture, amount, canvas, rng)


SubPolicy = tuple[tuple[str, float, float], ...]  # (action, probability, magnitude) one by one


def apply_sub_policy(
    picture: Image.Image,
    sub_policy: SubPolicy,
    actions: Mapping[str, Action],
    canvas: Canvas,
    rng: np.random.Generator,
    steps: float,
) -> Image.Image:
    """Each action of the sub-policy with its probability, at magnitude / ``steps``."""
    for name, probability, magnitude in sub_policy:
        if rng.random() < probability:
            picture = actions[name].apply(picture, magnitude / steps, canvas, rng)
    return picture


class Policy(Transform):
    """A transform that changes a Pillow picture."""

    @abstractmethod
    def changed(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """The picture after the policy, of the same size; the given one stays as it is."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 RGB [height, width, 3] -> the same shape.

        Raises:
            DataError: the pixels are not uint8.
        """
        picture = as_picture(image, type(self).__name__)
        result = self.changed(picture, rng)
        return image if result is picture else np.array(result)


def as_picture(image: np.ndarray, name: str) -> Image.Image:
    """uint8 RGB [height, width, 3] as a Pillow picture.

    Args:
        name: of the operation, for the message.

    Raises:
        DataError: the pixels are not uint8.
    """
    if image.dtype != np.uint8:
        raise DataError(
            f"{name} expected a picture of uint8, received {image.dtype};"
            " put it before NormalizeImage"
        )
    return Image.fromarray(np.ascontiguousarray(image))


def colour(values: list[int] | None, default: Colour, argument: str = "fillcolor") -> Colour:
    """(red, green, blue) of ``values``, or the default for None.

    Raises:
        ArgumentError: something else than three integers from 0 to 255.
    """
    if values is None:
        return default
    if len(values) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in values):
        raise ArgumentError(
            argument, f"expected [red, green, blue], each 0 to 255, received {values!r}"
        )
    return values[0], values[1], values[2]
