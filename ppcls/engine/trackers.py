"""Where results go besides the log. None of them ever stops a run."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ppcls.engine.handler import Handler
from ppcls.errors import EnvironmentProblem

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


class VisualDL(Handler):
    """Curves in ``vdl/``: tags ``train/loss``, ``eval/top1``, ... over optimizer steps."""

    def __init__(self) -> None:
        try:
            from visualdl import LogWriter
        except ImportError as error:
            message = f"Global.use_visualdl needs VisualDL ({error}): pip install visualdl"
            raise EnvironmentProblem(message) from None
        self._open = LogWriter
        self._writer: Any = None

    def fit_start(self, trainer: Trainer) -> None:
        """Opens the log folder."""
        self._guarded(trainer, lambda: setattr(self, "_writer", self._new_writer(trainer)))

    def scalars(self, trainer: Trainer, kind: str, values: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        if self._writer is not None:
            self._guarded(trainer, lambda: self._add(trainer.state.global_step, kind, values))

    def close(self, trainer: Trainer) -> None:
        """Closes the log file."""
        if self._writer is not None:
            self._guarded(trainer, self._writer.close)

    def _new_writer(self, trainer: Trainer) -> Any:
        return self._open(logdir=str(trainer.folder / "vdl"))

    def _add(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def _guarded(self, trainer: Trainer, action: Any) -> None:
        try:
            action()
        except Exception as error:
            trainer.logger.warning(f"VisualDL failed and is switched off: {error}")
            self._writer = None


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
            self._bar.reset()
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
