"""Schedules that rise and fall."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from ppcls.errors import ArgumentError
from ppcls.optim.schedules.base import Fraction, Rate, RateOrZero, Run, Schedule, scheduled

Units = Annotated[int, Field(ge=1)]


@scheduled("OneCycle", "OneCycleLR")
class OneCycle(Schedule):
    """Up to ``max_learning_rate`` and down to nearly nothing: super-convergence (1708.07120).

    The phases meet where PyTorch's OneCycleLR lets them: the last unit of the run has the end rate.
    A warm-up before it leads to the first rate.

    Args:
        divide_factor: the first rate is ``max_learning_rate / divide_factor``.
        end_learning_rate: the last rate.
        phase_pct: the part of the run in which the rate rises.
        anneal_strategy: along half a cosine, or a line.
        three_phase: go down to the first rate as steeply as up, and then on to the last one, as in
            the paper; else to the last one straight away, as in fastai.
    """

    def __init__(
        self,
        run: Run,
        max_learning_rate: Rate,
        divide_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 25.0,
        end_learning_rate: RateOrZero = 1e-10,
        phase_pct: Fraction = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        three_phase: bool = False,
    ):
        first = max_learning_rate / divide_factor
        super().__init__(run, first)
        if end_learning_rate > first:
            expected = f"expected at most the first rate, {first:g}"
            raise ArgumentError("end_learning_rate", f"{expected}, received {end_learning_rate}")
        if three_phase and phase_pct >= 0.5:
            expected = "expected less than 0.5 because three_phase is on"
            raise ArgumentError("phase_pct", f"{expected}, received {phase_pct}")
        rise, last = phase_pct * run.length - 1, run.length - 1
        self._corners = [(0.0, first), (rise, max_learning_rate), (last, end_learning_rate)]
        if three_phase:
            self._corners.insert(2, (2 * rise, first))
        self._cosine = anneal_strategy == "cos"

    def after_warmup(self, unit: int) -> float:
        """Between two corners ``from (1 - part) + to part``, ``part`` along a line or a cosine."""
        for (start, before), (end, after) in pairwise(self._corners):
            if unit <= end:
                part = (unit - start) / (end - start) if end > start else 1.0
                part = (1 - math.cos(math.pi * part)) / 2 if self._cosine else part
                return before * (1 - part) + after * part
        return self._corners[-1][1]


@scheduled()
class Cyclic(Schedule):
    """Triangles between two rates: cyclical learning rates (arXiv:1506.01186).

    Args:
        step_size_up: length of the rise, always in units: iterations, or epochs with ``by_epoch``.
        step_size_down: length of the fall; by default that of the rise.
        mode: all triangles are of one height; or each is half as high as the one before
            (``triangular2``); or the height falls by ``exp_gamma`` with every unit.
    """

    def __init__(
        self,
        run: Run,
        base_learning_rate: Rate,
        max_learning_rate: Rate,
        step_size_up: Units,
        step_size_down: Units | None = None,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        exp_gamma: Annotated[float, Field(gt=0, le=1)] = 1.0,
    ):
        super().__init__(run, base_learning_rate)
        if max_learning_rate < base_learning_rate:
            expected = f"expected at least the base_learning_rate {base_learning_rate}"
            raise ArgumentError("max_learning_rate", f"{expected}, received {max_learning_rate}")
        self._height = max_learning_rate - base_learning_rate
        self._up = step_size_up
        self._down = step_size_down or step_size_up
        self._mode = mode
        self._gamma = exp_gamma

    def after_warmup(self, unit: int) -> float:
        """``base + (max - base) h scale``, with ``h`` rising from 0 to 1 and falling again."""
        cycle, place = divmod(unit, self._up + self._down)
        height = place / self._up if place <= self._up else 1 - (place - self._up) / self._down
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": self._gamma**unit}
        return self.base_lr + self._height * height * scale[self._mode]

    def floor(self) -> float:
        """The lower rate, wherever the last triangle stands."""
        return self.base_lr
