"""The handlers of an ordinary run: one small class for each feature beside the loop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.config import Config
from ppcls.engine import logging as log
from ppcls.engine import trackers
from ppcls.engine.averaging import build_averaging
from ppcls.engine.batch import batch_transforms
from ppcls.engine.distributed import World
from ppcls.engine.fix_resolution import FixResolution
from ppcls.engine.folded_norms import UnfoldNorms
from ppcls.engine.handler import Handler
from ppcls.engine.model import build_metric
from ppcls.engine.objective import check_evaluation
from ppcls.engine.progressive import Progressive
from ppcls.engine.stopping import EarlyStop, StopOnSignal
from ppcls.metrics.base import CombinedMetric, Mean

if TYPE_CHECKING:
    from ppcls.engine.trainer import Step, Trainer


def default_handlers(config: Config, world: World) -> list[Handler]:
    """The handlers of an ordinary run; their order is that of their work at each event.

    Raises:
        ConfigError: something goes by the results of evaluation, and cannot.
    """
    check_evaluation(config)
    handlers = training_handlers(config)
    if world.is_first and (names := config.Global.tracker_names):
        handlers.append(trackers.Tracking(names))  # before the log's clocks: it opens connections
    handlers.append(Log(config))
    if world.is_first:
        handlers += [trackers.MetricsFile(), trackers.ProgressBar()]
    if averaging := build_averaging(config):
        handlers.append(averaging)  # before what scores and saves the average
    if config.Global.eval_during_train:
        handlers.append(Evaluate())
        if config.Global.early_stop is not None:
            handlers.append(EarlyStop(config.Global.early_stop, _sign(config)))
    handlers.append(Checkpoints())
    if world.size == 1:
        # Several processes would have to agree on the step to stop after; a launcher's signal
        # ends them at once, and `latest` is that of the last epoch.
        handlers.append(StopOnSignal())
    return handlers


def training_handlers(config: Config) -> list[Handler]:
    """Those of them that training steps depend on: the others look on, score and save."""
    staged = Progressive.of(config), FixResolution.of(config)
    found = SeedSteps(), UnfoldNorms(), *staged
    return [handler for handler in found if handler is not None]


class SeedSteps(Handler):
    """Draws everything random of a batch (dropout) from the seed, its number and the process.

    A resumed run then needs no generator's state: it draws what the whole run would have drawn.
    """

    def step_start(self, trainer: Trainer) -> None:
        """Seeds Paddle's generators."""
        import paddle

        state = trainer.state
        key = trainer.config.Global.seed, state.epoch, state.step_in_epoch, trainer.world.rank
        paddle.seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


class Log(Handler):
    """The lines of the log."""

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
            rows = slice(step.samples)  # of several views of a picture the first, without AugMix
            self._metric.update(step.logits[rows], step.targets[rows])
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
        epoch, epochs = trainer.state.epoch, trainer.config.Global.epochs
        trainer.logger.info(log.train_average_line(epoch, epochs, values))
        trainer.emit("scalars", "train_avg", values)

    def fit_end(self, trainer: Trainer) -> None:
        """Says where the results are, and how to use them."""
        if trainer.max_batches is not None:
            return  # a dry run has no results
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
        values = {**(self._metric.value() if self._metric else {}), **losses}
        epoch, epochs = trainer.state.epoch, trainer.config.Global.epochs
        iterations = trainer.batches_in(epoch)
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
    """Evaluates when it is due, keeps the best result and its weights."""

    def fit_start(self, trainer: Trainer) -> None:
        """Counts optimizer steps from here."""
        self._evaluated = trainer.state.global_step  # at the last evaluation

    def state(self) -> dict[str, Any]:
        """The optimizer step of the last evaluation."""
        return {"evaluated": self._evaluated}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on counting."""
        self._evaluated = state.get("evaluated", self._evaluated)

    def epoch_start(self, trainer: Trainer) -> None:
        """Evaluates what training starts from, if ``eval_before_training`` says so."""
        if trainer.config.Global.eval_before_training and trainer.state.global_step == 0:
            result = trainer.evaluate()
            trainer.logger.info(log.eval_average_line(0, result))
            trainer.emit("scalars", "eval", result)

    def step_end(self, trainer: Trainer, step: Step) -> None:
        """Evaluates after every ``eval_every_steps``-th step; an epoch's last one does it later."""
        is_last = trainer.state.step_in_epoch == trainer.batches_in(trainer.state.epoch)
        if step.updated and not is_last and self._steps_are_over(trainer):
            self._evaluate(trainer)

    def epoch_end(self, trainer: Trainer) -> None:
        """Evaluates after every ``eval_interval``-th epoch, and after the last one."""
        section, state = trainer.config.Global, trainer.state
        by_epoch = not section.eval_every_steps and state.epoch % section.eval_interval == 0
        if by_epoch or self._steps_are_over(trainer) or state.epoch == section.epochs:
            self._evaluate(trainer)

    def _steps_are_over(self, trainer: Trainer) -> bool:
        """Whether ``eval_every_steps`` are; one of them may have ended with a batch left out."""
        every, step = trainer.config.Global.eval_every_steps, trainer.state.global_step
        return every is not None and step // every > self._evaluated // every

    def _evaluate(self, trainer: Trainer) -> None:
        """Evaluates, all processes together; saves ``best_model`` if the result is the best."""
        state = trainer.state
        self._evaluated = state.global_step
        if state.epoch < trainer.config.Global.start_eval_epoch:
            return
        averaging = trainer.averaging
        both = averaging is not None and averaging.score_trained(trainer)
        result = trainer.evaluate()
        average = averaging.scored_name if averaging is not None else ""
        state.metric = result[build_metric(trainer.config, "Eval").main_name]
        line = log.eval_average_line(state.epoch, result, average if both else "")
        trainer.logger.info(line)
        trainer.emit("scalars", "eval", result)
        batch = state.step_in_epoch or trainer.batches_in(state.epoch)
        trainer.optimizer.schedule.observe(state.metric, trainer.schedule_step(batch))
        trainer.emit("evaluated", state.metric)
        best, sign = state.best_metric, _sign(trainer.config)
        if best is None or _is_better(state.metric, best, sign):
            best = state.best_metric = state.metric
            state.best_epoch = state.epoch
            trainer.save("best_model")
        trainer.logger.info(log.best_line(state.epoch, best, average))


def _is_better(metric: float, best: float, sign: int) -> bool:
    """Whether a result is to be kept; anything is better than what is not a number."""
    return math.isnan(best) or sign * metric > sign * best


def _sign(config: Config) -> int:
    """1 if the higher result is the better one, -1 if the lower one is."""
    return 1 if build_metric(config, "Eval").higher_is_better else -1


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
