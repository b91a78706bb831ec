"""The log: one logger a run, and the exact format of its lines, which other tools parse."""

from __future__ import annotations

import datetime
import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from ppcls.config import Config

FORMAT = "[%(asctime)s] ppcls %(levelname)s: %(message)s"
DATE = "%Y/%m/%d %H:%M:%S"


class _ConsoleHandler(logging.StreamHandler):  # generic from Python 3.11 on only
    """Writes lines above a progress bar, if one stands on the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        if not self.stream.isatty():
            super().emit(record)
            return
        from tqdm import tqdm

        tqdm.write(self.format(record), file=self.stream)

    def handleError(self, record: logging.LogRecord) -> None:
        """Lets the command end when the reader of its output has gone, as after ``| head``."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise
        super().handleError(record)


def make_logger(
    file: Path | None = None, enabled: bool = True, stream: TextIO | None = None
) -> logging.Logger:
    """A logger that belongs to one run only: not known to Python's ``logging`` by name.

    Args:
        file: also append to this file.
        enabled: processes other than the first log errors only.
        stream: the console, standard output by default.
    """
    logger = logging.Logger("ppcls", logging.INFO if enabled else logging.ERROR)
    handlers: list[logging.Handler] = [_ConsoleHandler(stream or sys.stdout)]
    if file is not None and enabled:
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(FORMAT, DATE))
        logger.addHandler(handler)
    return logger


def warn_of_config(logger: logging.Logger, config: Config) -> None:
    """Says once which keys of a configuration are accepted but mean nothing here."""
    if text := config.warning():
        logger.warning(text)


def close_logger(logger: logging.Logger) -> None:
    """Closes the logger's file."""
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)


def values(scalars: Mapping[str, float]) -> str:
    """``CELoss: 0.69339, loss: 0.69339``."""
    return ", ".join(f"{name}: {value:.5f}" for name, value in scalars.items())


def train_line(
    position: tuple[int, int, int, int],
    lr: tuple[str, float],
    scalars: Mapping[str, float],
    costs: tuple[float, float, float],
    eta: float,
) -> str:
    """One iteration of training.

    Args:
        position: epoch, epochs, iteration, iterations of the epoch.
        lr: name of the schedule, and the rate that the step used.
        scalars: metrics, then losses.
        costs: seconds a batch, of which seconds waiting for the reader, samples a second.
        eta: seconds to the end of the run.
    """
    epoch, epochs, iteration, iterations = position
    batch_cost, reader_cost, ips = costs
    left = datetime.timedelta(seconds=int(eta))
    return (
        f"[Train][Epoch {epoch}/{epochs}][Iter: {iteration}/{iterations}]"
        f"lr({lr[0]}): {lr[1]:.8f}, {values(scalars)}, batch_cost: {batch_cost:.5f}s, "
        f"reader_cost: {reader_cost:.5f}, ips: {ips:.5f} samples/s, eta: {left}"
    )


def train_average_line(epoch: int, epochs: int, scalars: Mapping[str, float]) -> str:
    """Averages of one epoch of training."""
    return f"[Train][Epoch {epoch}/{epochs}][Avg]{values(scalars)}"


def eval_line(
    epoch: int, iteration: int, iterations: int, scalars: Mapping[str, float], costs: Any
) -> str:
    """One iteration of evaluation; ``costs`` as in ``train_line``."""
    batch_cost, reader_cost, ips = costs
    return (
        f"[Eval][Epoch {epoch}][Iter: {iteration}/{iterations}]{values(scalars)}, batch_cost: "
        f"{batch_cost:.5f}s, reader_cost: {reader_cost:.5f}, ips: {ips:.5f} images/sec"
    )


def eval_average_line(epoch: int, scalars: Mapping[str, float], average: str = "") -> str:
    """Result of one evaluation; ``average`` tells it from that of the trained weights."""
    return f"[Eval][Epoch {epoch}][{_marked('Avg', average)}]{values(scalars)}"


def best_line(epoch: int, metric: float, average: str = "") -> str:
    """The best result so far, as PaddleClas marks it if averaged weights are scored (``ema``)."""
    return f"[Eval][Epoch {epoch}][{_marked('best metric', average)}: {metric:.5f}]"


def _marked(text: str, average: str) -> str:
    return f"{text} {average}" if average else text


def result_line(folder: Path, name: str, how: str, config: Config) -> str:
    """Where a run's result lies, and the command that uses it.

    The configuration that the run has written holds what was overridden on the command line, too.
    """
    weights = folder / name
    line = f"{name.replace('_', ' ')}: {weights} ({how})"
    if config.Infer is None:
        return line
    command = ["ppcls", "infer", "-c", folder / "config.yaml"]
    command += ["-o", f"Global.pretrained_model={weights}"]
    return f"{line}; {shlex.join(map(str, command))} PHOTO"
