"""Evaluation: exact for any number of processes and any batch size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ppcls.config import Config
from ppcls.data.loader import DataLoader
from ppcls.engine import logging as log
from ppcls.engine.batch import ToTensors, build_reader, check_class_names
from ppcls.engine.device import require_paddle, set_device, use_kernels
from ppcls.engine.distributed import World
from ppcls.engine.model import build_metric, load_network
from ppcls.losses import CombinedLoss
from ppcls.metrics.base import CombinedMetric, Mean

Report = Callable[[int, int, Mapping[str, float], tuple[float, float, float]], None]


class Evaluator:
    """Evaluates the weights that a configuration names on ``DataLoader.Eval``.

    Args:
        config: a checked configuration.
        allow_random: evaluate a network without weights.
    """

    def __init__(self, config: Config, allow_random: bool = False):
        config.require("DataLoader.Eval", "Metric.Eval", purpose="evaluation")
        require_paddle()
        self.config = config
        self.world = World.from_environment()
        self.logger = log.make_logger(enabled=self.world.is_first)
        log.warn_of_config(self.logger, config)
        self.reader = build_reader(config, "Eval", self.world, self.logger)
        set_device(config.Global.device, self.logger)
        self.net, self.state = load_network(config, self.logger, allow_random)
        check_class_names(self.reader.dataset.class_names, self.state.get("class_names"))
        kernels = use_kernels(self.net, config.Global.cpu_kernels, self.logger)
        self._to_tensors = ToTensors(self.reader.dataset.pipeline, kernels)
        self.world.connect()

    def run(self) -> dict[str, float]:
        """Losses and metrics over all samples, by the names of the log."""
        section = self.config.Loss.Eval if self.config.Loss else None
        loss = CombinedLoss([spec.build() for spec in section]) if section else None
        with self.reader:
            epoch = self.state.get("epoch", 0)
            line = iteration_reporter(self.logger, epoch)
            metric = build_metric(self.config, "Eval")
            every = self.config.Global.print_batch_step
            reader = self.reader, self._to_tensors
            result = evaluate(self.net, reader, loss, metric, self.world, (every, line))
        self.logger.info(log.eval_average_line(epoch, result))
        log.close_logger(self.logger)
        return result


def evaluate(
    net: Any,
    source: tuple[DataLoader, ToTensors],
    loss: CombinedLoss | None,
    metric: CombinedMetric,
    world: World,
    report: tuple[int, Report],
) -> dict[str, float]:
    """Runs a network over a reader.

    Every process sees its own share; what is added up are sums over samples, so neither the number
    of processes nor the batch size changes the result, and nothing is counted twice.

    Args:
        source: the reader, and what makes tensors of its batches.
        report: called for every n-th batch with iteration, iterations, scalars and costs; each
            call makes the host wait for the device.

    Returns:
        Averages over all samples of all processes: losses first, then metrics.
    """
    import paddle

    reader, to_tensors = source
    mean = Mean(loss.names if loss else [])
    was_training = net.training
    net.eval()
    asked = time.perf_counter()
    with paddle.no_grad():
        for i, batch in enumerate(reader.epoch(0)):
            received = time.perf_counter()
            images, targets = to_tensors(batch)
            logits = net(images)
            losses = loss(logits, targets) if loss else {}
            if loss:
                mean.update(losses, len(batch.labels))
            metric.update(logits, targets)
            if world.is_first and i % report[0] == 0:
                now = time.perf_counter()
                ips = len(batch.labels) / (now - asked)
                scalars = {name: value.item() for name, value in losses.items()}
                report[1](
                    i,
                    len(reader),
                    {**scalars, **metric.value()},
                    (now - asked, received - asked, ips),
                )
            asked = time.perf_counter()
    if was_training:
        net.train()
    own = mean.state(), metric.state()
    total = world.sum(np.concatenate(own))
    mean_state, metric_state = np.split(total, [len(own[0])])
    return {**(mean.value(mean_state) if loss else {}), **metric.value(metric_state)}


def iteration_reporter(logger: Any, epoch: int) -> Report:
    """Logs batches of an evaluation."""

    def report(i: int, n: int, scalars: Mapping[str, float], costs: Any) -> None:
        logger.info(log.eval_line(epoch, i, n, scalars, costs))

    return report
