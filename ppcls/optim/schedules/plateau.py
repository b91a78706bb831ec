"""The schedule that looks at the results of evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from ppcls.optim.schedules.base import Rate, RateOrZero, Run, Schedule, scheduled

Count = Annotated[int, Field(ge=0)]


@scheduled()
class ReduceOnPlateau(Schedule):
    """The rate is multiplied by ``factor`` when evaluations have stopped getting better.

    The reductions are remembered with their place, so that the rate is a function of the iteration
    here too. During warm-up the best result is noted, and no patience is lost.

    Args:
        mode: whether a better result is larger, as of the metrics here, or smaller.
        patience: so many evaluations in a row may be no better; the next one reduces the rate.
        threshold: by how much a result has to be better to count.
        threshold_mode: relative to the best result, or absolute.
        cooldown: so many evaluations after a reduction are not held against the rate.
        min_lr: the rate does not fall below it.
        epsilon: a reduction by no more than this is left out.
    """

    def __init__(
        self,
        run: Run,
        learning_rate: Rate,
        mode: Literal["min", "max"] = "max",
        factor: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        patience: Count = 10,
        threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: Count = 0,
        min_lr: RateOrZero = 0.0,
        epsilon: RateOrZero = 1e-8,
    ):
        super().__init__(run, learning_rate)
        self._sign = 1 if mode == "max" else -1
        self._factor = factor
        self._patience = patience
        self._threshold = threshold
        self._relative = threshold_mode == "rel"
        self._pause = cooldown
        self._min_lr = min_lr
        self._epsilon = epsilon
        self._reductions: list[tuple[int, float]] = []  # from which unit on, and to what
        self._best: float | None = None
        self._bad = self._paused = 0

    def after_warmup(self, unit: int) -> float:
        """The rate after the reductions up to ``unit``."""
        passed = [rate for start, rate in self._reductions if start <= unit + self.run.warmup]
        return passed[-1] if passed else self.base_lr

    def floor(self) -> float:
        """The rate after all reductions so far."""
        return self._reductions[-1][1] if self._reductions else self.base_lr

    def observe(self, metric: float, step: int) -> None:
        """Reduces the rate from the iteration ``step`` on if patience has run out.

        With ``by_epoch``, from the next epoch on.
        """
        unit = -(-step // self.run.steps_per_unit)
        if self._is_better(metric):
            self._best, self._bad = metric, 0
        else:
            self._bad += 1
        if self._paused or unit < self.run.warmup:
            self._paused, self._bad = max(0, self._paused - 1), 0
        if self._bad > self._patience:
            self._bad, self._paused = 0, self._pause
            before = self.floor()
            after = max(before * self._factor, self._min_lr)
            if before - after > self._epsilon:
                self._reductions.append((unit, after))

    def state(self) -> dict[str, Any]:
        """The reductions so far, and the counts."""
        return {
            "reductions": [list(reduction) for reduction in self._reductions],
            "best": self._best,
            "bad": self._bad,
            "paused": self._paused,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a ``state``; from an empty one, as of another schedule, as it stands."""
        if state:
            self._reductions = [(unit, rate) for unit, rate in state["reductions"]]
            self._best, self._bad, self._paused = state["best"], state["bad"], state["paused"]

    def _is_better(self, metric: float) -> bool:
        if self._best is None or math.isnan(self._best):
            return True
        margin = self._threshold * (abs(self._best) if self._relative else 1)
        return self._sign * metric > self._sign * self._best + margin
