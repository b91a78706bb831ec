"""Schedules of constant pieces."""

from __future__ import annotations

import bisect
import math
from itertools import pairwise

from ppcls.errors import ArgumentError
from ppcls.optim.schedules.base import (
    Epoch,
    Gamma,
    Length,
    Rate,
    RateOrZero,
    Run,
    Schedule,
    scheduled,
)


@scheduled("Constant", "ConstLR")
class Constant(Schedule):
    """The same rate throughout."""

    def __init__(self, run: Run, learning_rate: Rate):
        super().__init__(run, learning_rate)

    def after_warmup(self, unit: int) -> float:
        """The base rate."""
        return self.base_lr


@scheduled()
class Step(Schedule):
    """The rate is multiplied by ``gamma`` every ``step_size`` epochs.

    Args:
        step_size: may be fractional, such as the 2.4 of EfficientNet, unless ``by_epoch``.
    """

    def __init__(self, run: Run, learning_rate: Rate, step_size: Length, gamma: Gamma = 0.1):
        super().__init__(run, learning_rate)
        run.whole("step_size", step_size)
        self._step_size = max(1, run.units(step_size))
        self._gamma = gamma

    def after_warmup(self, unit: int) -> float:
        """``base * gamma ** (unit // step_size)``."""
        return self.base_lr * self._gamma ** (unit // self._step_size)


@scheduled("MultiStep", "MultiStepDecay")
class MultiStep(Schedule):
    """The rate is multiplied by ``gamma`` at each of the epochs ``milestones``."""

    def __init__(self, run: Run, learning_rate: Rate, milestones: list[Epoch], gamma: Gamma = 0.1):
        super().__init__(run, learning_rate)
        _check_rising("milestones", milestones)
        self._milestones = [run.units(milestone) for milestone in milestones]
        self._gamma = gamma

    def after_warmup(self, unit: int) -> float:
        """``base * gamma ** (milestones reached)``."""
        return self.base_lr * self._gamma ** bisect.bisect_right(self._milestones, unit)


@scheduled()
class Piecewise(Schedule):
    """``values[0]`` until the epoch ``decay_epochs[0]``, then ``values[1]``, and so on.

    Args:
        learning_rate: published configurations repeat ``values[0]`` here; it may be left out.
    """

    def __init__(
        self,
        run: Run,
        decay_epochs: list[Epoch],
        values: list[RateOrZero],
        learning_rate: Rate | None = None,
    ):
        _check_rising("decay_epochs", decay_epochs)
        if len(values) != len(decay_epochs) + 1:
            expected = f"expected {len(decay_epochs) + 1} values, one more than decay_epochs"
            raise ArgumentError("values", f"{expected}, received {len(values)}")
        if learning_rate is not None and not math.isclose(learning_rate, values[0]):
            expected = f"expected the first of values, {values[0]}, or nothing"
            raise ArgumentError("learning_rate", f"{expected}, received {learning_rate}")
        super().__init__(run, values[0])
        self._boundaries = [run.units(epoch) for epoch in decay_epochs]
        self._values = values

    def after_warmup(self, unit: int) -> float:
        """The value of the piece that ``unit`` lies in; a boundary opens the piece after it."""
        return self._values[bisect.bisect_right(self._boundaries, unit)]


def _check_rising(argument: str, epochs: list[int]) -> None:
    if any(later <= earlier for earlier, later in pairwise(epochs)):
        raise ArgumentError(argument, f"expected rising epochs, received {epochs}")
