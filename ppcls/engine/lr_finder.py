"""The learning-rate finder: a short run with a rising rate, whose losses say which rate to use.

Smith, "Cyclical Learning Rates for Training Neural Networks" (arXiv:1506.01186), section 3.3. The
two suggestions are those that fastai made popular: the rate at which the loss falls fastest, and a
tenth of the rate at which it is lowest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ppcls.config import Config
from ppcls.engine.handler import Handler
from ppcls.engine.handlers import training_handlers
from ppcls.engine.rehearsal import Rehearsal
from ppcls.engine.trainer import TrainState
from ppcls.errors import ArgumentError
from ppcls.optim.schedules.base import Run, Schedule

if TYPE_CHECKING:
    from ppcls.engine.trainer import Step, Trainer

MEMORY = 0.9  # of the running mean that tells whether the loss explodes
WIDTH = 0.03  # of the bell that smooths the curve, as a part of the sweep
CERTAIN = 6.5  # standard errors that a fall has to be larger than
FEWEST = 10  # steps, before which no loss counts as exploded
ENDLESS = 10**9  # epochs


@dataclass(frozen=True)
class Sweep:
    """What the finder measured.

    Attributes:
        rates: learning rates of the optimizer's steps, rising.
        losses: the mean loss of each step's batches.
        exploded: whether the loss exploded before the last rate.
        scale: what a rate of the configuration is multiplied by (``base_batch_size``).
    """

    rates: np.ndarray
    losses: np.ndarray
    exploded: bool
    scale: float = 1.0

    @cached_property
    def smooth(self) -> np.ndarray:
        """The losses under a bell curve, which moves no minimum to higher rates as a mean would."""
        places = np.arange(len(self.losses))
        weights = np.exp(-0.5 * ((places[:, None] - places) / self._width) ** 2)
        smooth: np.ndarray = weights @ self.losses / weights.sum(axis=1)
        return smooth

    @property
    def lowest(self) -> int:
        """Number of the step where the smoothed loss is lowest."""
        return int(self.smooth.argmin())

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls fastest over the rate's logarithm.

        None if the loss does not fall by more than it scatters.
        """
        if not self._falls:
            return None
        slopes = np.gradient(self.smooth, np.log(self.rates))
        return float(self.rates[slopes[: self.lowest + 1].argmin()])

    @property
    def tenth(self) -> float | None:
        """A tenth of the rate where the smoothed loss is lowest; None as for ``steepest``."""
        return float(self.rates[self.lowest]) / 10 if self._falls else None

    @property
    def suggestion(self) -> float | None:
        """The rate for the configuration, to two digits: where the loss falls fastest."""
        return None if self.steepest is None else float(f"{self.steepest / self.scale:.1e}")

    @property
    def _width(self) -> float:
        """Standard deviation of the bell, in steps."""
        return max(1.0, WIDTH * len(self.losses))

    @property
    def _falls(self) -> bool:
        """Whether the loss gets lower than at the start by more than chance would have it."""
        before = slice(self.lowest + 1)
        scatter = float(np.std(self.losses[before] - self.smooth[before]))
        # The bell's mean scatters by so much less: white noise through its weights.
        error = scatter / math.sqrt(2 * math.sqrt(math.pi) * self._width)
        start = float(self.losses[: max(1, len(self.losses) // 10)].mean())
        return self.lowest > 2 and bool(start - self.smooth[self.lowest] > CERTAIN * error)


def find_rate(
    config: Config,
    first: float = 1e-6,
    last: float = 10.0,
    steps: int = 200,
    limit: float = 4.0,
    on_step: Callable[[], object] = lambda: None,
) -> Sweep:
    """Trains ``steps`` optimizer steps while the rate rises exponentially; writes nothing.

    The same seed gives the same losses. The weights that the configuration names are loaded.

    Args:
        first, last: rates of the first and of the last step.
        limit: the sweep is over where the smoothed loss is so many times its lowest value.
        on_step: called after each step.

    Raises:
        ArgumentError: the numbers are no sweep.
        ConfigError, DataError, WeightsError, EnvironmentProblem: as before any training.
    """
    _check(first, last, steps, limit)
    recorder = _Recorder(steps, limit, on_step)
    trainer = _Finder(config, recorder, _Ramp(first, last, steps))
    with suppress(_Over):
        trainer.fit()
    return Sweep(
        np.array(recorder.rates), np.array(recorder.losses), recorder.exploded, trainer.scale
    )


def _check(first: float, last: float, steps: int, limit: float) -> None:
    if not 0 < first < last < math.inf:
        raise ArgumentError("last", f"expected a rate > the first, {first:g}, received {last:g}")
    if steps < FEWEST:
        raise ArgumentError("steps", f"expected an integer >= {FEWEST}, received {steps}")
    if limit <= 1:
        raise ArgumentError("limit", f"expected a number > 1, received {limit:g}")


class _Ramp(Schedule):
    """Exponentially from ``first`` to ``last``, and on at that."""

    def __init__(self, first: float, last: float, steps: int):
        super().__init__(Run(epochs=1, steps_per_epoch=steps), first)
        self._ratio = last / first
        self._last = steps - 1

    def after_warmup(self, unit: int) -> float:
        return float(self.base_lr * self._ratio ** min(1.0, unit / self._last))


class _Finder(Rehearsal):
    """Trains by a ramp, for as many epochs as it takes."""

    def __init__(self, config: Config, recorder: Handler, ramp: Schedule):
        super().__init__(config, [*training_handlers(config), recorder])
        self.scale = self.optimizer.schedule.run.scale()
        self.optimizer.schedule = ramp
        # A checkpoint's weights count, not how far it had come.
        self.state, self._checkpoint = TrainState(), None
        section = replace(self.config.Global, epochs=ENDLESS)
        self.config = replace(self.config, Global=section)

    def schedule_step(self, batch: int) -> int:
        """The optimizer's steps count, whatever the batches of a stage are."""
        return self.state.global_step


class _Over(Exception):
    """The sweep has come to its end."""


class _Recorder(Handler):
    """Notes rate and loss of each optimizer step, and ends the run."""

    def __init__(self, steps: int, limit: float, on_step: Callable[[], object]):
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.exploded = False
        self._steps = steps
        self._limit = limit
        self._on_step = on_step
        self._sum = self._samples = 0.0
        self._mean = 0.0
        self._lowest = math.inf

    def step_end(self, trainer: Trainer, step: Step) -> None:
        """Adds a batch; ends the run if that was the last step, or one too many."""
        self._sum += step.losses["loss"].item() * step.samples
        self._samples += step.samples
        if not step.updated:
            return
        loss = self._sum / self._samples
        self._sum = self._samples = 0.0
        self.exploded = self._explodes(loss)
        if math.isfinite(loss):
            self.rates.append(step.lr)
            self.losses.append(loss)
        self._on_step()
        if self.exploded or len(self.rates) == self._steps:
            raise _Over

    def _explodes(self, loss: float) -> bool:
        if not math.isfinite(loss):
            return True
        done = len(self.losses) + 1
        self._mean = MEMORY * self._mean + (1 - MEMORY) * loss
        mean = self._mean / (1 - MEMORY**done)
        self._lowest = min(self._lowest, mean)
        return done >= FEWEST and mean > self._limit * self._lowest
