"""The handlers that pass results on."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ppcls.engine.handler import Handler
from ppcls.engine.trackers.base import Run, Tracker
from ppcls.registry import TRACKERS

if TYPE_CHECKING:
    from ppcls.engine.trainer import Step, Trainer


class MetricsFile(Handler):
    """One JSON object a line in ``metrics.jsonl``: kind, epoch, step, time, and the values.

    JSON has no word for what is not a finite number; such a value is null.
    """

    def scalars(self, trainer: Trainer, kind: str, values: Mapping[str, float]) -> None:
        """Appends a line."""
        place = {"kind": kind, "epoch": trainer.state.epoch, "step": trainer.state.global_step}
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        line = json.dumps({**place, "time": round(time.time(), 3), **finite})
        try:
            with (trainer.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            trainer.logger.warning(f"metrics.jsonl cannot be written: {error.strerror}")


class Tracking(Handler):
    """Passes results on to trackers: tags ``train/loss``, ``eval/top1``, ... over optimizer steps.

    A tracker that fails is switched off, with one warning. Make this in the first process only.

    Args:
        names: registered trackers, each once.

    Raises:
        UnknownName: there is no such tracker.
        EnvironmentProblem: the library of one is not installed.
    """

    def __init__(self, names: Sequence[str]):
        self._trackers: dict[str, Tracker] = {name: TRACKERS.build(name, {}) for name in names}
        self._states: dict[str, Any] = {}
        self._opened = False
        self._finished = False

    def state(self) -> dict[str, Any]:
        """What the trackers need to go on with the same curves, by name."""
        # One that is switched off, or not asked for this time, may be there the next time.
        return {**self._states, **{n: s for n, t in self._trackers.items() if (s := t.state())}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Keeps it until the trackers are opened."""
        self._states = dict(state)

    def epoch_start(self, trainer: Trainer) -> None:
        """Opens the trackers, unless results have come before the first epoch."""
        self._open(trainer)

    def scalars(self, trainer: Trainer, kind: str, values: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        self._open(trainer)
        tagged = {f"{kind}/{name}": value for name, value in values.items()}
        step = trainer.state.global_step
        self._each(trainer, lambda name, tracker: tracker.scalars(step, tagged))

    def fit_end(self, trainer: Trainer) -> None:
        """Notes that the run came to its end."""
        self._finished = True

    def close(self, trainer: Trainer) -> None:
        """Closes the trackers."""
        if self._opened:
            self._each(trainer, lambda name, tracker: tracker.close(self._finished))

    def _open(self, trainer: Trainer) -> None:
        # Not at ``fit_start``: what a resumed run goes on with is restored after that.
        if self._opened:
            return
        self._opened = True
        config = trainer.config.tree.plain() if trainer.config.tree else {}
        step = trainer.state.global_step

        def opened(name: str, tracker: Tracker) -> None:
            state = self._states.get(name, {})
            run = Run(trainer.config.Arch.name, trainer.folder, config, step, state)
            trainer.logger.info(f"curves for {tracker.title}: {tracker.open(run)}")

        self._each(trainer, opened)

    def _each(self, trainer: Trainer, action: Callable[[str, Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                action(name, tracker)
            except Exception as error:  # whatever the library raises
                reason = (str(error) or type(error).__name__).splitlines()[0]
                trainer.logger.warning(f"{tracker.title} failed and is switched off: {reason}")
                self._switch_off(name)

    def _switch_off(self, name: str) -> None:
        tracker = self._trackers.pop(name)
        with suppress(Exception):
            self._states |= {name: state} if (state := tracker.state()) else {}
            tracker.close(finished=False)


class ProgressBar(Handler):
    """A bar under the log lines, on a terminal only."""

    def __init__(self) -> None:
        self._bar: Any = None

    def fit_start(self, trainer: Trainer) -> None:
        """Shows the bar."""
        if sys.stdout.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=len(trainer.reader), unit="batch", leave=False, file=sys.stdout)

    def epoch_start(self, trainer: Trainer) -> None:
        """Starts it anew."""
        if self._bar is not None:
            self._bar.reset(trainer.batches_in(trainer.state.epoch))
            epochs = trainer.config.Global.epochs
            self._bar.set_description(f"epoch {trainer.state.epoch}/{epochs}")

    def step_end(self, trainer: Trainer, step: Step) -> None:
        """Moves it on."""
        if self._bar is not None:
            self._bar.update()

    def close(self, trainer: Trainer) -> None:
        """Takes it away."""
        if self._bar is not None:
            self._bar.close()
