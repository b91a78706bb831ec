"""Learning-rate schedules: the rate of an iteration as a plain function of its number.

A schedule has no state, so resuming a run needs nothing but the number of the iteration. All of
them share the warm-up of "Bag of Tricks for Image Classification" (arXiv:1812.01187): the rate
rises linearly from ``warmup_start_lr`` to the schedule's first rate, and the schedule itself then
counts from zero at the end of warm-up. The published recipes rely on both.
"""

from __future__ import annotations

import bisect
import math
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from ppcls.errors import ArgumentError
from ppcls.registry import SCHEDULES

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
RateOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Epoch = Annotated[int, Field(ge=1)]
Epochs = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Gamma = Annotated[float, Field(gt=0, le=1)]


class Schedule:
    """Learning rates of a run.

    Lengths in the configuration are epochs. They are counted here in units: iterations, or whole
    epochs with ``by_epoch``, where the rate stays the same during an epoch.

    Args:
        base_lr: the rate at the end of warm-up.
        warmup_epoch: length of warm-up, in epochs; may be fractional unless ``by_epoch``.
        warmup_start_lr: the rate of the first unit of warm-up.
        by_epoch: whether the rate changes between epochs only.
        epochs: length of the run, warm-up included.
        steps_per_epoch: optimizer steps in an epoch.

    Raises:
        ArgumentError: warm-up is longer than the run, falls, or is fractional with ``by_epoch``.
    """

    def __init__(
        self,
        base_lr: float,
        warmup_epoch: float,
        warmup_start_lr: float,
        by_epoch: bool,
        epochs: int,
        steps_per_epoch: int,
    ):
        _check_warmup(base_lr, warmup_epoch, warmup_start_lr, by_epoch, epochs)
        self.base_lr = base_lr
        self._warmup_start_lr = warmup_start_lr
        self._steps_per_unit = steps_per_epoch if by_epoch else 1
        self._units_per_epoch = 1 if by_epoch else steps_per_epoch
        self._warmup = round(warmup_epoch * self._units_per_epoch)
        self._length = epochs * self._units_per_epoch - self._warmup

    @property
    def name(self) -> str:
        """What log lines call it: ``LinearWarmup`` with a warm-up, as in PaddleClas."""
        return "LinearWarmup" if self._warmup else type(self).__name__

    def __call__(self, step: int) -> float:
        """The learning rate of the 0-based iteration ``step``, counted over the whole run."""
        unit = step // self._steps_per_unit
        if unit < self._warmup:
            rise = self.base_lr - self._warmup_start_lr
            return self._warmup_start_lr + rise * unit / self._warmup
        return self.after_warmup(unit - self._warmup)

    def after_warmup(self, unit: int) -> float:
        """The rate of the unit (iteration or epoch) ``unit``, counted from the end of warm-up."""
        raise NotImplementedError

    def _units(self, epochs: list[int]) -> list[int]:
        return [epoch * self._units_per_epoch for epoch in epochs]


@SCHEDULES.register("Constant", "ConstLR")
class Constant(Schedule):
    """The same rate throughout."""

    def __init__(
        self,
        learning_rate: Rate,
        warmup_epoch: Epochs = 0,
        warmup_start_lr: RateOrZero = 0.0,
        by_epoch: bool = False,
        *,
        epochs: int,
        steps_per_epoch: int,
    ):
        super().__init__(
            learning_rate, warmup_epoch, warmup_start_lr, by_epoch, epochs, steps_per_epoch
        )

    def after_warmup(self, unit: int) -> float:
        """The base rate."""
        return self.base_lr


@SCHEDULES.register()
class Cosine(Schedule):
    """Half a cosine from ``learning_rate`` to ``eta_min`` at the end of the run.

    SGDR (arXiv:1608.03983) without restarts. ``eta_min`` holds after the end.
    """

    def __init__(
        self,
        learning_rate: Rate,
        eta_min: RateOrZero = 0.0,
        warmup_epoch: Epochs = 0,
        warmup_start_lr: RateOrZero = 0.0,
        by_epoch: bool = False,
        *,
        epochs: int,
        steps_per_epoch: int,
    ):
        super().__init__(
            learning_rate, warmup_epoch, warmup_start_lr, by_epoch, epochs, steps_per_epoch
        )
        if eta_min > learning_rate:
            message = f"expected at most the learning_rate {learning_rate}, received {eta_min}"
            raise ArgumentError("eta_min", message)
        self._eta_min = eta_min

    def after_warmup(self, unit: int) -> float:
        """``eta_min + (base - eta_min) (1 + cos(pi unit / length)) / 2``."""
        if unit >= self._length:
            return self._eta_min
        falling = (1 + math.cos(math.pi * unit / self._length)) / 2
        return self._eta_min + (self.base_lr - self._eta_min) * falling


@SCHEDULES.register()
class Linear(Schedule):
    """A line (``power`` 1) or polynomial from ``learning_rate`` to ``end_lr`` at the run's end.

    ``end_lr`` holds after the end; with ``cycle`` the decay starts again instead, over a length
    that grows by one run each time, as in Paddle's PolynomialDecay.
    """

    def __init__(
        self,
        learning_rate: Rate,
        end_lr: RateOrZero = 0.0,
        power: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
        cycle: bool = False,
        warmup_epoch: Epochs = 0,
        warmup_start_lr: RateOrZero = 0.0,
        by_epoch: bool = False,
        *,
        epochs: int,
        steps_per_epoch: int,
    ):
        super().__init__(
            learning_rate, warmup_epoch, warmup_start_lr, by_epoch, epochs, steps_per_epoch
        )
        self._end_lr = end_lr
        self._power = power
        self._cycle = cycle

    def after_warmup(self, unit: int) -> float:
        """``end_lr + (base - end_lr) (1 - unit / length) ** power``."""
        if not self._length:
            return self._end_lr
        rounds = max(1, math.ceil(unit / self._length)) if self._cycle else 1
        left = max(0.0, 1 - unit / (rounds * self._length))
        return self._end_lr + (self.base_lr - self._end_lr) * left**self._power


@SCHEDULES.register()
class Step(Schedule):
    """The rate is multiplied by ``gamma`` every ``step_size`` epochs.

    Args:
        step_size: may be fractional, such as the 2.4 of EfficientNet, unless ``by_epoch``.
    """

    def __init__(
        self,
        learning_rate: Rate,
        step_size: Annotated[float, Field(gt=0, allow_inf_nan=False)],
        gamma: Gamma = 0.1,
        warmup_epoch: Epochs = 0,
        warmup_start_lr: RateOrZero = 0.0,
        by_epoch: bool = False,
        *,
        epochs: int,
        steps_per_epoch: int,
    ):
        super().__init__(
            learning_rate, warmup_epoch, warmup_start_lr, by_epoch, epochs, steps_per_epoch
        )
        if by_epoch and step_size != int(step_size):
            expected = "expected whole epochs because by_epoch is on"
            raise ArgumentError("step_size", f"{expected}, received {step_size:g}")
        self._step_size = max(1, round(step_size * self._units_per_epoch))
        self._gamma = gamma

    def after_warmup(self, unit: int) -> float:
        """``base * gamma ** (unit // step_size)``."""
        return self.base_lr * self._gamma ** (unit // self._step_size)


@SCHEDULES.register("MultiStep", "MultiStepDecay")
class MultiStep(Schedule):
    """The rate is multiplied by ``gamma`` at each of the epochs ``milestones``."""

    def __init__(
        self,
        learning_rate: Rate,
        milestones: list[Epoch],
        gamma: Gamma = 0.1,
        warmup_epoch: Epochs = 0,
        warmup_start_lr: RateOrZero = 0.0,
        by_epoch: bool = False,
        *,
        epochs: int,
        steps_per_epoch: int,
    ):
        super().__init__(
            learning_rate, warmup_epoch, warmup_start_lr, by_epoch, epochs, steps_per_epoch
        )
        _check_rising("milestones", milestones)
        self._milestones = self._units(milestones)
        self._gamma = gamma

    def after_warmup(self, unit: int) -> float:
        """``base * gamma ** (milestones reached)``."""
        return self.base_lr * self._gamma ** bisect.bisect_right(self._milestones, unit)


@SCHEDULES.register()
class Piecewise(Schedule):
    """``values[0]`` until the epoch ``decay_epochs[0]``, then ``values[1]``, and so on.

    Args:
        learning_rate: published configurations repeat ``values[0]`` here; it may be left out.
    """

    def __init__(
        self,
        decay_epochs: list[Epoch],
        values: list[RateOrZero],
        learning_rate: Rate | None = None,
        warmup_epoch: Epochs = 0,
        warmup_start_lr: RateOrZero = 0.0,
        by_epoch: bool = False,
        *,
        epochs: int,
        steps_per_epoch: int,
    ):
        _check_rising("decay_epochs", decay_epochs)
        if len(values) != len(decay_epochs) + 1:
            expected = f"expected {len(decay_epochs) + 1} values, one more than decay_epochs"
            raise ArgumentError("values", f"{expected}, received {len(values)}")
        if learning_rate is not None and not math.isclose(learning_rate, values[0]):
            expected = f"expected the first of values, {values[0]}, or nothing"
            raise ArgumentError("learning_rate", f"{expected}, received {learning_rate}")
        super().__init__(
            values[0], warmup_epoch, warmup_start_lr, by_epoch, epochs, steps_per_epoch
        )
        self._boundaries = self._units(decay_epochs)
        self._values = values

    def after_warmup(self, unit: int) -> float:
        """The value of the piece that ``unit`` lies in; a boundary opens the piece after it."""
        return self._values[bisect.bisect_right(self._boundaries, unit)]


def _check_warmup(
    base_lr: float, warmup_epoch: float, warmup_start_lr: float, by_epoch: bool, epochs: int
) -> None:
    if warmup_epoch > epochs:
        expected = f"expected at most the {epochs} epochs of the run (Global.epochs)"
        raise ArgumentError("warmup_epoch", f"{expected}, received {warmup_epoch:g}")
    if by_epoch and warmup_epoch != int(warmup_epoch):
        expected = "expected whole epochs because by_epoch is on"
        raise ArgumentError("warmup_epoch", f"{expected}, received {warmup_epoch:g}")
    if warmup_epoch and warmup_start_lr > base_lr:
        expected = f"expected at most the rate {base_lr} that warm-up leads to"
        raise ArgumentError("warmup_start_lr", f"{expected}, received {warmup_start_lr}")


def _check_rising(argument: str, epochs: list[int]) -> None:
    if any(later <= earlier for earlier, later in pairwise(epochs)):
        raise ArgumentError(argument, f"expected rising epochs, received {epochs}")
