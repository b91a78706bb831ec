"""Transforms that hide parts of a picture: RandomErasing, Cutout, HideAndSeek and GridMask.

They work before a normalisation (uint8) and behind it (float32), on channels last or first. What
they write is in the units of the picture: behind a normalisation, 0 is the data set's mean colour.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.fill import Fill, as_pixels, per_channel
from ppcls.data.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS

Probability = Annotated[float, Field(ge=0, le=1)]


class Masking(Transform):
    """Writes into a copy of the picture; its layout stays.

    Args:
        prob: how often that happens at all.
    """

    needs = gives = None

    def __init__(self, prob: float = 1.0):
        self.prob = prob

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 or float32, [height, width, 3] or [3, height, width], with parts hidden."""
        if rng.random() >= self.prob:
            return image
        result = image.copy()
        channels_first = image.shape[2] != 3 and image.shape[0] == 3
        self.hide(result.transpose(1, 2, 0) if channels_first else result, rng)
        return result

    @abstractmethod
    def hide(self, pixels: np.ndarray, rng: np.random.Generator) -> None:
        """Writes into ``pixels``, a view [height, width, 3]."""


@TRANSFORMS.register()
class RandomErasing(Masking):
    """Overwrites a random rectangle (arXiv 1708.04896, algorithm 1).

    Args:
        EPSILON: how often a picture is changed at all.
        sl: smallest area of the rectangle, as a fraction of the picture's.
        sh: largest area.
        r1: height / width lies between this and 1 / r1.
        mean: what ``const`` writes: [r, g, b]; default [0, 0, 0].
        attempt: how often a rectangle that does not fit is drawn anew, before the picture is
            left as it is.
        use_log_aspect: draws log(height / width) uniformly, so that r1 and 1 / r1 are equally
            likely.
        mode: ``const`` writes ``mean``; ``rand`` one random colour; ``pixel`` a random colour for
            each pixel. Colours come from the standard normal distribution, on a picture of bytes
            scaled by ImageNet's mean and standard deviation.
    """

    def __init__(
        self,
        EPSILON: Probability = 0.5,
        sl: Probability = 0.02,
        sh: Probability = 0.4,
        r1: Annotated[float, Field(gt=0)] = 0.3,
        mean: list[float] | None = None,
        attempt: Annotated[int, Field(ge=1)] = 100,
        use_log_aspect: bool = False,
        mode: Literal["const", "rand", "pixel"] = "const",
    ):
        super().__init__(EPSILON)
        if sl > sh:
            raise ArgumentError("sh", f"expected a number >= sl ({sl!r}), received {sh!r}")
        if mode not in ("const", "rand", "pixel"):
            raise ArgumentError("mode", f"expected const, rand or pixel, received {mode!r}")
        self.areas = (sl, sh)
        self.aspects = (min(r1, 1 / r1), max(r1, 1 / r1))
        self.mean = per_channel([0.0, 0.0, 0.0] if mean is None else mean, "mean")
        self.attempt = attempt
        self.use_log_aspect = use_log_aspect
        self.mode = mode

    def hide(self, pixels: np.ndarray, rng: np.random.Generator) -> None:
        """Overwrites one rectangle, unless none fits."""
        box = self._box(pixels.shape[1], pixels.shape[0], rng)
        if box is not None:
            left, top, width, height = box
            colours = self._colours(width, height, pixels.dtype, rng)
            pixels[top : top + height, left : left + width] = colours

    def _box(
        self, width: int, height: int, rng: np.random.Generator
    ) -> tuple[int, int, int, int] | None:
        for _ in range(self.attempt):
            area = width * height * rng.uniform(*self.areas)
            aspect = self._aspect(rng)
            box_width, box_height = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if box_width < width and box_height < height:
                left = int(rng.integers(width - box_width, endpoint=True))
                top = int(rng.integers(height - box_height, endpoint=True))
                return left, top, box_width, box_height
        return None

    def _aspect(self, rng: np.random.Generator) -> float:
        low, high = self.aspects
        if self.use_log_aspect:
            return math.exp(rng.uniform(math.log(low), math.log(high)))
        return rng.uniform(low, high)

    def _colours(
        self, width: int, height: int, dtype: np.dtype, rng: np.random.Generator
    ) -> np.ndarray:
        if self.mode == "const":
            return as_pixels(self.mean, dtype)
        normal = rng.standard_normal((height, width, 3) if self.mode == "pixel" else 3)
        if dtype == np.uint8:
            normal = 255 * (np.array(IMAGENET_MEAN) + np.array(IMAGENET_STD) * normal)
        return as_pixels(normal, dtype)


@TRANSFORMS.register()
class Cutout(Masking):
    """Overwrites squares around random pixels, cut off at the border (arXiv 1708.04552, 3.1).

    Args:
        n_holes: number of squares; they may overlap.
        length: side of a square in pixels.
        fill_value: colour of the squares: one number, or [r, g, b]; null or ``none`` gives each a
            random colour (uniform bytes, or standard normal numbers behind a normalisation).
    """

    def __init__(
        self,
        n_holes: Annotated[int, Field(ge=1)] = 1,
        length: Annotated[int, Field(ge=1)] = 112,
        fill_value: Fill | Literal["none"] | None = 0,
    ):
        super().__init__()
        self.n_holes = n_holes
        self.length = length
        self.fill_value = (
            None
            if fill_value is None or isinstance(fill_value, str)
            else per_channel(fill_value, "fill_value")
        )

    def hide(self, pixels: np.ndarray, rng: np.random.Generator) -> None:
        """Overwrites the squares."""
        for _ in range(self.n_holes):
            top, left = (int(rng.integers(side)) - self.length // 2 for side in pixels.shape[:2])
            rows = slice(max(top, 0), top + self.length)
            columns = slice(max(left, 0), left + self.length)
            pixels[rows, columns] = self._colour(pixels.dtype, rng)

    def _colour(self, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
        if self.fill_value is not None:
            return as_pixels(self.fill_value, dtype)
        if dtype == np.uint8:
            return rng.integers(256, size=3, dtype=np.uint8)
        return rng.standard_normal(3).astype(dtype)


@TRANSFORMS.register()
class HideAndSeek(Masking):
    """Sets random squares of a grid to 0 (arXiv 1704.04232, 3.1).

    Args:
        grid_sizes: (ppcls) sides of the squares in pixels, of which one is drawn for each picture;
            0 leaves the picture as it is. Default [0, 16, 32, 44, 56].
        hide_prob: (ppcls) how likely each square is hidden.
    """

    def __init__(
        self,
        grid_sizes: list[Annotated[int, Field(ge=0)]] | None = None,
        hide_prob: Probability = 0.5,
    ):
        super().__init__()
        self.grid_sizes = [0, 16, 32, 44, 56] if grid_sizes is None else list(grid_sizes)
        if not self.grid_sizes or min(self.grid_sizes) < 0:
            raise ArgumentError(
                "grid_sizes", f"expected at least one integer >= 0, received {grid_sizes!r}"
            )
        self.hide_prob = hide_prob

    def hide(self, pixels: np.ndarray, rng: np.random.Generator) -> None:
        """Sets the hidden squares to 0."""
        side = self.grid_sizes[rng.integers(len(self.grid_sizes))]
        if side == 0:
            return
        height, width = pixels.shape[:2]
        hidden = rng.random((-(-height // side), -(-width // side))) < self.hide_prob
        pixels[hidden.repeat(side, axis=0).repeat(side, axis=1)[:height, :width]] = 0


@TRANSFORMS.register()
class GridMask(Masking):
    """Sets a grid of bars, or the squares between them, to 0 (arXiv 2001.04086, 3).

    Args:
        d1: smallest distance in pixels from one bar to the next.
        d2: the distance is smaller than this.
        rotate: the grid is turned by a random whole number of degrees below this; 1 does not turn.
        ratio: thickness of a bar, as a fraction of the distance.
        mode: 0 hides the bars, 1 the squares between them.
        prob: how often a picture is changed at all.
        ramp: (ppcls) part of the run over which the probability grows from 0 to ``prob``; the
            paper's section 4.1 takes 0.8.
    """

    def __init__(
        self,
        d1: Annotated[int, Field(ge=1)] = 96,
        d2: Annotated[int, Field(ge=2)] = 224,
        rotate: Annotated[int, Field(ge=1)] = 1,
        ratio: Probability = 0.5,
        mode: Literal[0, 1] = 0,
        prob: Probability = 1.0,
        ramp: Probability = 0.0,
    ):
        super().__init__(prob)
        if d2 <= d1:
            raise ArgumentError("d2", f"expected an integer > d1 ({d1}), received {d2}")
        if mode not in (0, 1):
            raise ArgumentError("mode", f"expected 0 or 1, received {mode!r}")
        self.distances = (d1, d2)
        self.rotate = rotate
        self.ratio = ratio
        self.mode = mode
        self.ramp = ramp

    def at(self, progress: float) -> GridMask:
        """This transform with the probability of a point of the run, from 0 to 1."""
        if progress >= self.ramp:
            return self
        other = copy.copy(self)
        other.prob = self.prob * progress / self.ramp
        return other

    def hide(self, pixels: np.ndarray, rng: np.random.Generator) -> None:
        """Sets the hidden part to 0."""
        height, width = pixels.shape[:2]
        distance = int(rng.integers(*self.distances))
        thickness = int(distance * self.ratio + 0.5)
        shift_x, shift_y = rng.integers(distance, size=2)
        angle = math.radians(int(rng.integers(self.rotate)))
        x = np.arange(width) - width // 2
        y = (np.arange(height) - height // 2)[:, None]
        across = (math.cos(angle) * x + math.sin(angle) * y + shift_x) % distance
        down = (math.cos(angle) * y - math.sin(angle) * x + shift_y) % distance
        bars = (across < thickness) | (down < thickness)
        pixels[~bars if self.mode == 1 else bars] = 0
