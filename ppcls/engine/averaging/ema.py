"""Exponential moving average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ppcls.config.averaging import EMASection
from ppcls.engine.averaging.base import Averaging

if TYPE_CHECKING:
    from ppcls.engine.trainer import Trainer


class EMA(Averaging):
    """After update t: ``average += (1 - decay_t) * (weights - average)``.

    The average begins as the weights with which ``start_epoch`` begins. Batch statistics are
    averaged as the weights are, so nothing has to be recomputed.
    """

    name = "ema"

    def __init__(self, section: EMASection):
        super().__init__(section.evaluate)
        self._section = section
        self._steps = 0

    def epoch_start(self, trainer: Trainer) -> None:
        """Begins the average when its epoch comes."""
        epoch, start = trainer.state.epoch, self._section.start_epoch
        if self._average is not None or epoch < start:
            return
        if epoch > start or trainer.state.step_in_epoch:
            trainer.logger.warning("the checkpoint holds no EMA: it starts from the weights as now")
        self._steps = 0
        self._average = self._weights.read()

    def update_end(self, trainer: Trainer) -> None:
        """Updates the average."""
        if self._average is None:
            return
        self._steps += 1
        update, rest = divmod(self._steps, self._section.every)
        if not rest:
            share = 1 - self._section.decay_of(update - 1)
            self._average.lerp_(self._weights.read(), share)

    def state(self) -> dict[str, Any]:
        """Steps since the average began."""
        return {**super().state(), "steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was."""
        super().restore(state)
        self._steps = state.get("steps", 0)
