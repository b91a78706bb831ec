"""Schedules that fall smoothly."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from ppcls.errors import ArgumentError
from ppcls.optim.schedules.base import (
    Gamma,
    Length,
    Rate,
    RateOrZero,
    Run,
    Schedule,
    scheduled,
)


@scheduled()
class Cosine(Schedule):
    """Half a cosine from ``learning_rate`` to ``eta_min`` at the end of the run.

    SGDR (arXiv:1608.03983) without restarts. ``eta_min`` holds after the end.
    """

    def __init__(self, run: Run, learning_rate: Rate, eta_min: RateOrZero = 0.0):
        super().__init__(run, learning_rate)
        _check_at_most("eta_min", eta_min, learning_rate)
        self._eta_min = eta_min

    def after_warmup(self, unit: int) -> float:
        """``eta_min + (base - eta_min) (1 + cos(pi unit / length)) / 2``."""
        if unit >= self.run.length:
            return self._eta_min
        return _half_cosine(self.base_lr, self._eta_min, unit / self.run.length)


@scheduled("CosineRestarts", "CosineAnnealingWarmRestarts")
class CosineRestarts(Schedule):
    """Half a cosine from ``learning_rate`` to ``eta_min``, again and again: SGDR (1608.03983).

    Args:
        T_0: length of the first cosine.
        T_mult: how many times longer each next one is.
        decay: how many times smaller its first rate is (timm's ``decay_rate``).
    """

    def __init__(
        self,
        run: Run,
        learning_rate: Rate,
        T_0: Length,
        T_mult: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0,
        eta_min: RateOrZero = 0.0,
        decay: Gamma = 1.0,
    ):
        super().__init__(run, learning_rate)
        _check_at_most("eta_min", eta_min, learning_rate)
        run.whole("T_0", T_0)
        self._first = max(1, run.units(T_0))
        self._growth = T_mult
        self._eta_min = eta_min
        self._decay = decay

    def after_warmup(self, unit: int) -> float:
        """``eta_min + (top - eta_min) (1 + cos(pi passed / length)) / 2`` of the cosine at hand."""
        number, passed, length = self._place(unit)
        top = max(self._eta_min, self.base_lr * self._decay**number)
        return _half_cosine(top, self._eta_min, passed / length)

    def floor(self) -> float:
        """``eta_min``, wherever the last cosine stands."""
        return self._eta_min

    def _place(self, unit: int) -> tuple[int, float, float]:
        """The cosine that ``unit`` lies in, how far it has come, and how long it is."""
        if self._growth == 1:
            return unit // self._first, unit % self._first, self._first
        number, passed, length = 0, float(unit), float(self._first)
        while passed >= length:
            number, passed, length = number + 1, passed - length, length * self._growth
        return number, passed, length


@scheduled("Linear", "Polynomial")
class Linear(Schedule):
    """A line (``power`` 1) or polynomial from ``learning_rate`` to ``end_lr`` at the run's end.

    ``end_lr`` holds after the end; with ``cycle`` the decay starts again instead, over a length
    that grows by one run each time, as in Paddle's PolynomialDecay.
    """

    def __init__(
        self,
        run: Run,
        learning_rate: Rate,
        end_lr: RateOrZero = 0.0,
        power: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
        cycle: bool = False,
    ):
        super().__init__(run, learning_rate)
        self._end_lr = end_lr
        self._power = power
        self._cycle = cycle

    def after_warmup(self, unit: int) -> float:
        """``end_lr + (base - end_lr) (1 - unit / length) ** power``."""
        length = self.run.length
        if not length:
            return self._end_lr
        rounds = max(1, math.ceil(unit / length)) if self._cycle else 1
        left = max(0.0, 1 - unit / (rounds * length))
        return self._end_lr + (self.base_lr - self._end_lr) * left**self._power


@scheduled("Exponential", "ExponentialDecay")
class Exponential(Schedule):
    """The rate falls by the factor ``gamma`` over every ``step_size`` epochs, smoothly.

    ``Step`` is its staircase.

    Args:
        end_lr: the rate does not fall below it.
    """

    def __init__(
        self,
        run: Run,
        learning_rate: Rate,
        gamma: Gamma,
        step_size: Length = 1.0,
        end_lr: RateOrZero = 0.0,
    ):
        super().__init__(run, learning_rate)
        _check_at_most("end_lr", end_lr, learning_rate)
        per_epoch = run.units_per_epoch if run.lengths == "epochs" else 1
        self._gamma = gamma
        self._step_size = step_size * per_epoch
        self._end_lr = end_lr

    def after_warmup(self, unit: int) -> float:
        """``base * gamma ** (unit / step_size)``, at least ``end_lr``."""
        return max(self._end_lr, self.base_lr * self._gamma ** (unit / self._step_size))


def _half_cosine(top: float, bottom: float, part: float) -> float:
    return bottom + (top - bottom) * ((1 + math.cos(math.pi * part)) / 2)


def _check_at_most(argument: str, value: float, learning_rate: float) -> None:
    if value > learning_rate:
        message = f"expected at most the learning_rate {learning_rate}, received {value}"
        raise ArgumentError(argument, message)
