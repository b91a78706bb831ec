"""Handlers that end a run before its last epoch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from ppcls.engine.handler import Handler
from ppcls.errors import Stopped

if TYPE_CHECKING:
    from ppcls.config.schema import EarlyStopSection
    from ppcls.engine.trainer import Step, Trainer


class EarlyStop(Handler):
    """Stops when evaluations have not become better for a while.

    Args:
        section: ``Global.early_stop``.
        sign: 1 if a higher result is the better one, -1 if a lower one is.
    """

    def __init__(self, section: EarlyStopSection, sign: int):
        self._patience = section.patience
        self._min_delta = section.min_delta
        self._sign = sign
        self._best: float | None = None
        self._waited = 0

    def fit_start(self, trainer: Trainer) -> None:
        """Keeps whom to stop."""
        self._trainer = trainer

    def evaluated(self, trainer: Trainer, result: float) -> None:
        """Compares a result with the best one so far."""
        if self._best is None or self._sign * (result - self._best) > self._min_delta:
            self._best, self._waited = result, 0
        else:
            self._waited += 1

    def epoch_end(self, trainer: Trainer) -> None:
        """Stops, if the evaluations up to here say so."""
        if self._waited >= self._patience:
            trainer.stop(
                f"{self._waited} evaluations in a row have not been better than "
                f"{self._best:.5f} by more than {self._min_delta:g}"
            )

    def state(self) -> dict[str, Any]:
        """The best result, and for how many evaluations it has been that."""
        return {"best": self._best, "waited": self._waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on counting; a run that was stopped after this epoch stays so."""
        self._best, self._waited = state.get("best"), state.get("waited", 0)
        if not self._trainer.state.step_in_epoch:
            self.epoch_end(self._trainer)


class StopOnSignal(Handler):
    """On Ctrl-C or SIGTERM, finishes the step, saves ``latest`` and stops.

    A second Ctrl-C stops at once.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def fit_start(self, trainer: Trainer) -> None:
        """Listens, if this is the main thread; no other may."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}

    def step_end(self, trainer: Trainer, step: Step) -> None:
        """Stops in the middle of an epoch, but not between batches of one step."""
        batches = trainer.batches_in(trainer.state.epoch)
        if self._received and step.updated and trainer.state.step_in_epoch < batches:
            trainer.save("latest")
            self._stop(trainer)

    def epoch_end(self, trainer: Trainer) -> None:
        """Stops between epochs, where ``latest`` has just been saved."""
        if self._received and not trainer.is_done():
            self._stop(trainer)

    def close(self, trainer: Trainer) -> None:
        """Stops listening."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A launcher repeats its SIGTERM within a step; only an impatient person forces.
        if self._received and number == signal.SIGINT:
            raise Stopped("stopped at once, by a second signal; the last checkpoint stands", number)
        self._received = number

    def _stop(self, trainer: Trainer) -> None:
        number = self._received or signal.SIGTERM
        state, folder = trainer.state, trainer.folder / "latest"
        raise Stopped(
            f"stopped by {signal.Signals(number).name} in epoch {state.epoch}, after step "
            f"{state.global_step}; go on with -o Global.checkpoints={folder}",
            number,
        )
