"""The handlers of an ordinary run: one small class for each feature beside the loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.config import Config
from ppcls.engine import logging as log
from ppcls.engine import trackers
from ppcls.engine.batch import batch_transforms
from ppcls.engine.distributed import World
from ppcls.engine.handler import Handler
from ppcls.engine.model import build_metric
from ppcls.errors import CURE, Stopped, TrainingError
from ppcls.metrics.base import CombinedMetric, Mean

if TYPE_CHECKING:
    from ppcls.engine.trainer import Step, Trainer


def default_handlers(config: Config, world: World) -> list[Handler]:
    """The handlers of an ordinary run; their order is that of their work at each event."""
    handlers: list[Handler] = [SeedSteps(), Log(config)]
    if world.is_first:
        handlers += [trackers.MetricsFile(), trackers.ProgressBar()]
        if config.Global.use_visualdl:
            handlers.append(trackers.VisualDL())
    if config.Global.eval_during_train:
        handlers.append(Evaluate())
    handlers.append(Checkpoints())
    if world.size == 1:
        # Several processes would have to agree on the step to stop after; a launcher's signal
        # ends them at once, and `latest` is that of the last epoch.
        handlers.append(StopOnSignal())
    return handlers


class SeedSteps(Handler):
    """Draws everything random of a step (dropout) from the seed, the step and the process.

    A resumed run then needs no generator's state: it draws what the whole run would have drawn.
    """

    def step_start(self, trainer: Trainer) -> None:
        """Seeds Paddle's generators."""
        import paddle

        key = trainer.config.Global.seed, trainer.state.global_step, trainer.world.rank
        paddle.seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


class Log(Handler):
    """The lines of the log; stops a run whose loss is lost."""

    def __init__(self, config: Config):
        self._every = config.Global.print_batch_step
        self._metric: CombinedMetric | None = None
        measures = config.Metric is not None and bool(config.Metric.Train)
        # A mixture has no single class that an answer could be right about.
        self._leaves_out = measures and bool(batch_transforms(config))
        if measures and not self._leaves_out:
            self._metric = build_metric(config, "Train")
        self._before = np.zeros(0)

    def state(self) -> dict[str, Any]:
        """The sums of the epoch in progress."""
        return {"sums": self._sums().tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the sums of an epoch that was stopped in the middle."""
        self._before = np.array(state.get("sums", []))

    def fit_start(self, trainer: Trainer) -> None:
        """Says what is trained."""
        if self._leaves_out:
            trainer.logger.warning(
                "Metric.Train is left out: batch_transform_ops mix pictures of several classes"
            )
        self._mean = Mean(trainer.loss.names)
        parameters = sum(p.size for p in trainer.net.parameters() if not p.stop_gradient)
        trainer.logger.info(
            f"{trainer.config.Arch.name}: {parameters:,} parameters, "
            f"{len(trainer.reader.dataset):,} samples, {len(trainer.reader):,} iterations an "
            f"epoch, {trainer.world.size} process(es); results in {trainer.folder}"
        )

    def epoch_start(self, trainer: Trainer) -> None:
        """Starts averages and clocks."""
        self._mean.reset()
        if not trainer.state.step_in_epoch:
            self._before = np.zeros(0)
        if self._metric is not None:
            self._metric.reset()
        self._epoch_clock = _Clock()
        self._clock = _Clock()

    def step_start(self, trainer: Trainer) -> None:
        """Notes how long the reader took."""
        self._clock.batch_arrived()

    def step_end(self, trainer: Trainer, step: Step) -> None:
        """Adds the step to the averages; prints every ``print_batch_step``-th."""
        self._mean.update(step.losses, step.samples)
        if self._metric is not None:
            self._metric.update(step.logits, step.targets)
        for clock in (self._clock, self._epoch_clock):
            clock.step_done(step.samples)
        if step.index % self._every == 0:
            self._print(trainer, step)
            self._clock = _Clock()

    def epoch_end(self, trainer: Trainer) -> None:
        """Prints the averages over all samples of all processes."""
        total = trainer.world.sum(self._sums())
        loss_state, metric_state = np.split(total, [len(self._mean.state())])
        values = self._metric.value(metric_state) if self._metric else {}
        values |= self._mean.value(loss_state)
        _refuse_lost(values["loss"], trainer)
        epoch, epochs = trainer.state.epoch, trainer.config.Global.epochs
        trainer.logger.info(log.train_average_line(epoch, epochs, values))
        trainer.emit("scalars", "train_avg", values)

    def fit_end(self, trainer: Trainer) -> None:
        """Says where the results are, and how to use them."""
        state, folder = trainer.state, trainer.folder
        line = ""
        if state.best_metric is not None and (folder / "best_model").is_dir():
            name = build_metric(trainer.config, "Eval").main_name
            how = f"{name} {state.best_metric:.5f} in epoch {state.best_epoch}"
            line = log.result_line(folder, "best_model", how, trainer.config)
        elif (folder / "latest").is_dir():
            line = log.result_line(folder, "latest", f"epoch {state.epoch}", trainer.config)
        if line:
            trainer.logger.info(line)

    def _sums(self) -> np.ndarray:
        metric = self._metric.state() if self._metric else np.zeros(0)
        sums = np.concatenate([self._mean.state(), metric])
        return sums + self._before if self._before.shape == sums.shape else sums

    def _print(self, trainer: Trainer, step: Step) -> None:
        losses = {name: value.item() for name, value in step.losses.items()}
        _refuse_lost(losses["loss"], trainer)
        values = {**(self._metric.value() if self._metric else {}), **losses}
        epoch, epochs = trainer.state.epoch, trainer.config.Global.epochs
        iterations = len(trainer.reader)
        left = (epochs - epoch + 1) * iterations - step.index - 1
        costs = self._clock.costs()
        line = log.train_line(
            (epoch, epochs, step.index, iterations),
            (trainer.optimizer.schedule.name, step.lr),
            values,
            costs,
            eta=left * self._epoch_clock.costs()[0],
        )
        trainer.logger.info(line)
        speed = {"batch_cost": costs[0], "reader_cost": costs[1], "ips": costs[2]}
        trainer.emit("scalars", "train", {"lr": step.lr, **values, **speed})


class Evaluate(Handler):
    """Evaluates after every ``eval_interval``-th epoch, keeps the best result and its weights."""

    def epoch_end(self, trainer: Trainer) -> None:
        """Evaluates, all processes together; saves ``best_model`` if the result is the best."""
        section, state = trainer.config.Global, trainer.state
        due = state.epoch % section.eval_interval == 0 or state.epoch == section.epochs
        if not due or state.epoch < section.start_eval_epoch:
            return
        result = trainer.evaluate()
        main = build_metric(trainer.config, "Eval").main_name
        state.metric = result[main]
        trainer.logger.info(log.eval_average_line(state.epoch, result))
        trainer.emit("scalars", "eval", result)
        if state.best_metric is None or state.metric > state.best_metric:
            state.best_metric, state.best_epoch = state.metric, state.epoch
            trainer.save("best_model")
        trainer.logger.info(log.best_line(state.epoch, state.best_metric))


class Checkpoints(Handler):
    """Saves ``latest`` after every epoch, and ``epoch_N`` after every ``save_interval``-th."""

    def epoch_end(self, trainer: Trainer) -> None:
        """Saves; the other processes wait for the first one, however long it takes."""
        section, epoch = trainer.config.Global, trainer.state.epoch
        trainer.world.share_buffers(trainer.net)
        if epoch % section.save_interval == 0:
            trainer.save(f"epoch_{epoch}")
        trainer.save("latest")
        trainer.world.wait()


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
        """Stops in the middle of an epoch."""
        if self._received and trainer.state.step_in_epoch < len(trainer.reader):
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


class _Clock:
    """Time of steps, and the part of it spent waiting for the reader."""

    def __init__(self) -> None:
        self._start = self._asked = time.perf_counter()
        self._waited = 0.0
        self._steps = 0
        self._samples = 0

    def batch_arrived(self) -> None:
        self._waited += time.perf_counter() - self._asked

    def step_done(self, samples: int) -> None:
        self._asked = time.perf_counter()
        self._steps += 1
        self._samples += samples

    def costs(self) -> tuple[float, float, float]:
        """Seconds a batch, seconds of waiting a batch, samples a second."""
        elapsed = time.perf_counter() - self._start
        return elapsed / self._steps, self._waited / self._steps, self._samples / elapsed


def _refuse_lost(loss: float, trainer: Trainer) -> None:
    if not math.isfinite(loss):
        state = trainer.state
        raise TrainingError(
            f"the loss is {loss} in epoch {state.epoch}, step {state.global_step}: the run cannot "
            f"go on; {CURE}"
        )
