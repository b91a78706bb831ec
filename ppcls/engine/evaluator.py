"""Evaluation: exact for any number of processes and any batch size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.config import Config
from ppcls.data.loader import DataLoader
from ppcls.engine import logging as log
from ppcls.engine.batch import ToTensors, build_reader, check_class_names
from ppcls.engine.device import require_paddle, set_device, use_kernels
from ppcls.engine.distributed import World
from ppcls.engine.model import build_metric, load_checkpoint, load_network, weights_of
from ppcls.engine.views import Kind, Views
from ppcls.losses import CombinedLoss
from ppcls.metrics.base import CombinedMetric, Mean, Table
from ppcls.weights import find_weights, load_weights

Report = Callable[[int, int, Mapping[str, float], tuple[float, float, float]], None]


@dataclass(frozen=True)
class Result:
    """What an evaluation has found.

    Attributes:
        values: averages over all samples of all processes: losses first, then metrics.
        tables: what one number cannot say, such as each class's recall.
        samples: how many were evaluated.
    """

    values: dict[str, float]
    tables: dict[str, Table] = field(default_factory=dict)
    samples: int = 0


class Evaluator:
    """Evaluates the weights that a configuration names on ``DataLoader.Eval``, and others after.

    Args:
        config: a checked configuration.
        allow_random: evaluate a network without weights.
        tta: answer with the mean over several views of each picture, see ``Views``.
        logger: where results are said; standard output by default.

    Attributes:
        weights: the file that the weights come from; None if there is none.
        state: what is known of them, see ``load_checkpoint``.
        main_name: the metric by which weights are compared.
        higher_is_better: whether the best have the highest of it.
    """

    def __init__(
        self,
        config: Config,
        allow_random: bool = False,
        tta: Kind | None = None,
        logger: Any = None,
    ):
        config.require("DataLoader.Eval", "Metric.Eval", purpose="evaluation")
        require_paddle()
        self.config = config
        self.world = World.from_environment()
        self.logger = logger or log.make_logger(enabled=self.world.is_first)
        log.warn_of_config(self.logger, config)
        metric = build_metric(config, "Eval")
        self.main_name, self.higher_is_better = metric.main_name, metric.higher_is_better
        views = Views(tta) if tta else None
        prepare = views.prepare if views else None
        self.reader = build_reader(config, "Eval", self.world, self.logger, prepare)
        set_device(config.Global.device, self.logger)
        self.net, self.state = load_network(config, self.logger, allow_random)
        self.weights = weights_of(config)
        self._forward = partial(views, self.net) if views else None
        self._check_class_names()
        kernels = use_kernels(self.net, config.Global.cpu_kernels, self.logger)
        self._to_tensors = ToTensors(self.reader.dataset.pipeline, kernels)
        self.world.connect()

    def run(self) -> dict[str, float]:
        """Losses and metrics over all samples, by the names of the log; ends the evaluator."""
        try:
            return self.measure().values
        finally:
            self.close()

    def measure(self, also: Sequence[str] = ()) -> Result:
        """Evaluates the network as it is now; may be called again.

        Args:
            also: names of metrics beside those of ``Metric.Eval``.
        """
        section = self.config.Loss.Eval if self.config.Loss else None
        loss = CombinedLoss([spec.build() for spec in section]) if section else None
        epoch = self.state.get("epoch", 0)
        line = iteration_reporter(self.logger, epoch)
        metric = build_metric(self.config, "Eval", also)
        report = self.config.Global.print_batch_step, line
        source = self.reader, self._to_tensors
        result = evaluate_fully(
            self.net, source, loss, metric, self.world, report, forward=self._forward
        )
        self.logger.info(log.eval_average_line(epoch, result.values))
        return result

    def load(self, source: str | Path) -> None:
        """Takes other weights of the same network into it.

        Raises:
            WeightsError: they cannot be read, or are of another network.
            DataError: they were trained on other classes.
        """
        self.weights = find_weights(source)
        self.state = load_checkpoint(self.net, self.weights, self.config, self.logger)
        self._check_class_names()

    def use(self, weights: Mapping[str, np.ndarray]) -> None:
        """Puts weights by name into the network."""
        load_weights(self.net, weights)
        self.weights, self.state = None, {}

    def close(self) -> None:
        """Ends the reading processes and closes the log."""
        self.reader.close()
        log.close_logger(self.logger)

    def _check_class_names(self) -> None:
        check_class_names(self.reader.dataset.class_names, self.state.get("class_names"))


def evaluate(
    net: Any,
    source: tuple[DataLoader, ToTensors],
    loss: CombinedLoss | None,
    metric: CombinedMetric,
    world: World,
    report: tuple[int, Report],
    max_batches: int | None = None,
) -> dict[str, float]:
    """The values of ``evaluate_fully``."""
    return evaluate_fully(net, source, loss, metric, world, report, max_batches).values


def evaluate_fully(
    net: Any,
    source: tuple[DataLoader, ToTensors],
    loss: CombinedLoss | None,
    metric: CombinedMetric,
    world: World,
    report: tuple[int, Report],
    max_batches: int | None = None,
    forward: Callable[[Any], Any] | None = None,
) -> Result:
    """Runs a network over a reader.

    Every process sees its own share; what is added up are sums over samples, so neither the number
    of processes nor the batch size changes the result, and nothing is counted twice.

    Args:
        source: the reader, and what makes tensors of its batches.
        report: called for every n-th batch with iteration, iterations, scalars and costs; each
            call makes the host wait for the device.
        max_batches: look at no more batches than these.
        forward: images -> logits, if that is not ``net`` itself.
    """
    import paddle

    reader, to_tensors = source
    mean = Mean(loss.names if loss else [])
    forward = forward or net
    samples = 0
    was_training = net.training
    net.eval()
    asked = time.perf_counter()
    with paddle.no_grad():
        for i, batch in enumerate(islice(reader.epoch(0), max_batches)):
            received = time.perf_counter()
            images, targets = to_tensors(batch)
            logits = forward(images)
            losses = loss(logits, targets) if loss else {}
            if loss:
                mean.update(losses, len(batch.labels))
            metric.update(logits, targets)
            samples += len(batch.labels)
            if world.is_first and i % report[0] == 0:
                now = time.perf_counter()
                ips = len(batch.labels) / (now - asked)
                scalars = {name: value.item() for name, value in losses.items()}
                costs = now - asked, received - asked, ips
                report[1](i, len(reader), {**scalars, **metric.interim()}, costs)
            asked = time.perf_counter()
    if was_training:
        net.train()
    return _gathered(world, mean, metric, samples, bool(loss))


def _gathered(
    world: World, mean: Mean, metric: CombinedMetric, samples: int, has_loss: bool
) -> Result:
    """The result over the samples of all processes."""
    metric.share(world.gather)
    own = np.array([float(samples)]), mean.state(), metric.state()
    total = world.sum(np.concatenate(own))
    count, mean_state, metric_state = np.split(total, np.cumsum([len(part) for part in own[:-1]]))
    values = mean.value(mean_state) if has_loss else {}
    return Result(
        {**values, **metric.value(metric_state)}, metric.tables(metric_state), int(count.item())
    )


def iteration_reporter(logger: Any, epoch: int) -> Report:
    """Logs batches of an evaluation."""

    def report(i: int, n: int, scalars: Mapping[str, float], costs: Any) -> None:
        logger.info(log.eval_line(epoch, i, n, scalars, costs))

    return report
