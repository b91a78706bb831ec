"""What all schedules share: arguments, warm-up, cool-down, noise, scaling with the batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from ppcls.errors import ArgumentError
from ppcls.registry import SCHEDULES

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
RateOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Epoch = Annotated[int, Field(ge=1)]
Epochs = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Gamma = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass
class Run:
    """Arguments that every schedule takes beside its own, and the run that it is for.

    A schedule counts in units: iterations, or whole epochs with ``by_epoch``. Warm-up is that of
    "Bag of Tricks for Image Classification" (arXiv:1812.01187): the rate rises linearly from
    ``warmup_start_lr`` to the schedule's first rate, and the schedule itself then counts from zero.

    Args:
        warmup_epoch: length of warm-up; may be a fraction of an epoch unless ``by_epoch``.
        warmup_start_lr: the rate of the first unit of warm-up.
        by_epoch: whether the rate changes between epochs only.
        lengths: what the schedule's lengths count: epochs, or iterations with ``steps``.
        cooldown_epoch: length of the cool-down at the end of the run; the schedule itself ends
            that much earlier.
        cooldown_lr: the rate of the cool-down; by default the one that the schedule ends at.
        lr_noise: the rate is multiplied by ``1 + n`` from this part of the run on, up to the
            second part if there are two: ``[0.42, 0.9]``. Not during cool-down.
        lr_noise_pct: an ``n`` of this size or more is drawn again.
        lr_noise_std: the standard deviation of the normal distribution that ``n`` is drawn from.
        lr_noise_seed: ``n`` is drawn from this and the number of the unit.
        base_batch_size: the total batch that the schedule's rates are meant for; all of them are
            multiplied by ``total_batch / base_batch_size`` (arXiv:1706.02677).
        epochs: length of the run, warm-up and cool-down included.
        steps_per_epoch: optimizer steps in an epoch.
        total_batch: samples in one optimizer step, over all processes and accumulated batches.

    Raises:
        ArgumentError: lengths are longer than the run, or cannot be counted in whole epochs.
    """

    warmup_epoch: Epochs = 0.0
    warmup_start_lr: RateOrZero = 0.0
    by_epoch: bool = False
    lengths: Literal["epochs", "steps"] = "epochs"
    cooldown_epoch: Epochs = 0.0
    cooldown_lr: RateOrZero | None = None
    lr_noise: Annotated[list[Fraction], Field(min_length=1, max_length=2)] | None = None
    lr_noise_pct: Annotated[float, Field(gt=0, lt=1)] = 0.67
    lr_noise_std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    lr_noise_seed: Annotated[int, Field(ge=0)] = 42
    base_batch_size: Annotated[int, Field(ge=1)] | None = None
    _: KW_ONLY
    epochs: int
    steps_per_epoch: int
    total_batch: int | None = None

    def __post_init__(self) -> None:
        if self.by_epoch and self.lengths == "steps":
            raise ArgumentError("lengths", "expected 'epochs' because by_epoch is on")
        for name in ("warmup_epoch", "cooldown_epoch"):
            length = getattr(self, name)
            self.whole(name, length)
            if self.lengths == "epochs" and length > self.epochs:
                expected = f"expected at most the {self.epochs} epochs of the run (Global.epochs)"
                raise ArgumentError(name, f"{expected}, received {length:g}")
        if self.lengths == "epochs" and self.warmup_epoch + self.cooldown_epoch > self.epochs:
            left = f"{self.epochs - self.warmup_epoch:g} epochs that warm-up leaves"
            message = f"expected at most the {left}, received {self.cooldown_epoch:g}"
            raise ArgumentError("cooldown_epoch", message)
        if self.lr_noise and self.lr_noise != sorted(self.lr_noise):
            raise ArgumentError("lr_noise", f"expected rising parts, received {self.lr_noise}")
        self.steps_per_unit = self.steps_per_epoch if self.by_epoch else 1
        self.units_per_epoch = 1 if self.by_epoch else self.steps_per_epoch
        self.warmup = self.units(self.warmup_epoch)
        self.cooldown = self.units(self.cooldown_epoch)
        self.active = self.epochs * self.units_per_epoch - self.cooldown  # warm-up included
        self.length = max(0, self.active - self.warmup)

    def units(self, length: float) -> int:
        """A length of the configuration in units."""
        return round(length * (self.units_per_epoch if self.lengths == "epochs" else 1))

    def whole(self, argument: str, length: float) -> None:
        """Raises ArgumentError if a length has to be whole and is not."""
        if length != int(length) and (self.by_epoch or self.lengths == "steps"):
            why = "epochs because by_epoch is on" if self.by_epoch else "steps"
            raise ArgumentError(argument, f"expected whole {why}, received {length:g}")

    def check_data(self) -> None:
        """Checks what is only known once the data set is read, and not with the configuration.

        Raises:
            ArgumentError: a length in steps is longer than the run, or nothing says how large the
                batch is that the rate is scaled with.
        """
        if self.base_batch_size and not self.total_batch:
            raise ArgumentError("base_batch_size", "expected a run that knows its total batch")
        steps = self.epochs * self.steps_per_epoch
        if self.lengths == "steps" and self.warmup + self.cooldown > steps:
            name = "warmup_epoch" if self.warmup > steps else "cooldown_epoch"
            received = f"received {self.warmup} of warm-up and {self.cooldown} of cool-down"
            raise ArgumentError(name, f"expected at most the {steps} steps of the run, {received}")

    def scale(self) -> float:
        """What all rates are multiplied by."""
        if not (self.base_batch_size and self.total_batch):
            return 1.0
        return self.total_batch / self.base_batch_size

    def noise(self, unit: int) -> float:
        """What the rate of a unit of the run is multiplied by; drawn from the unit's number."""
        if self.lr_noise is None:
            return 1.0
        start, end = (*self.lr_noise, 1.0)[:2]
        if not start * self.active <= unit < end * self.active:
            return 1.0
        generator = np.random.default_rng([self.lr_noise_seed, unit])
        while True:
            drawn = generator.normal(0.0, self.lr_noise_std)
            if abs(drawn) < self.lr_noise_pct:
                return 1.0 + float(drawn)


class Schedule:
    """Learning rates of a run.

    A schedule derives from this, passes ``run`` on, and is decorated with ``scheduled``.

    Attributes:
        run: the shared arguments, and the run's lengths in units.
        base_lr: the rate at the end of warm-up, before it is scaled with the batch.

    Raises:
        ArgumentError: the shared arguments do not go with ``base_lr``.
    """

    def __init__(self, run: Run, base_lr: float):
        self.run = run
        self.base_lr = base_lr
        if run.warmup_epoch and run.warmup_start_lr > base_lr:
            expected = f"expected at most the rate {base_lr} that warm-up leads to"
            raise ArgumentError("warmup_start_lr", f"{expected}, received {run.warmup_start_lr}")

    @property
    def name(self) -> str:
        """What log lines call it: ``LinearWarmup`` with a warm-up, as in PaddleClas."""
        return "LinearWarmup" if self.run.warmup else type(self).__name__

    def __call__(self, step: int) -> float:
        """The learning rate of the 0-based iteration ``step``, counted over the whole run.

        Raises:
            ArgumentError: the run turned out to be too short, or not to know its batch.
        """
        run = self.run
        run.check_data()
        return self._rate(step // run.steps_per_unit) * run.scale()

    def _rate(self, unit: int) -> float:
        run = self.run
        if run.cooldown and unit >= run.active:
            return self.floor() if run.cooldown_lr is None else run.cooldown_lr
        if unit < run.warmup:
            rise = self.base_lr - run.warmup_start_lr
            rate = run.warmup_start_lr + rise * unit / run.warmup
        else:
            rate = self.after_warmup(unit - run.warmup)
        return rate * run.noise(unit)

    def after_warmup(self, unit: int) -> float:
        """The rate of the unit (iteration or epoch) ``unit``, counted from the end of warm-up."""
        raise NotImplementedError

    def floor(self) -> float:
        """The rate that the schedule ends at, at which it cools down."""
        return self.after_warmup(self.run.length)

    def observe(self, metric: float, step: int) -> None:
        """Takes note of an evaluation.

        Args:
            metric: its main result.
            step: optimizer steps so far, which is the number of the next one.
        """

    def state(self) -> dict[str, Any]:
        """What the evaluations so far have changed, as plain JSON; empty for most schedules."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a ``state``: all rates are what they would have been."""


S = TypeVar("S", bound=type[Schedule])


def scheduled(*names: str) -> Callable[[S], S]:
    """Decorator: registers a schedule, whose signature becomes its own arguments and ``Run``'s.

    The class's own ``__init__`` takes the ``run`` first.
    """

    def decorate(cls: S) -> S:
        own = cls.__init__
        self, _run, *mine = inspect.signature(own, eval_str=True).parameters.values()
        shared = inspect.signature(Run, eval_str=True).parameters
        if clash := shared.keys() & {p.name for p in mine}:
            raise TypeError(f"{cls.__name__}: {sorted(clash)} are arguments of Run already")
        signature = inspect.Signature([self, *mine, *shared.values()])

        def initialize(*given: Any, **named: Any) -> None:
            values = signature.bind(*given, **named).arguments
            common = {name: values.pop(name) for name in shared if name in values}
            own(run=Run(**common), **values)
            _check_cooldown(values["self"])

        initialize.__signature__ = signature  # type: ignore[attr-defined]
        cls.__init__ = initialize  # type: ignore[method-assign]
        return SCHEDULES.register(*names or (cls.__name__,))(cls)

    return decorate


def _check_cooldown(schedule: Schedule) -> None:
    """Epochs at a rate of zero would be spent for nothing."""
    run = schedule.run
    if run.cooldown_epoch and run.cooldown_lr is None and schedule.floor() == 0:
        message = "expected a rate, because the schedule ends at 0; received none"
        raise ArgumentError("cooldown_lr", message)
