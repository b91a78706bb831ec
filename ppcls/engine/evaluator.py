"""Evaluation: exact for any number of processes and any batch size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ppcls.config import Config
from ppcls.data.loader import DataLoader
from ppcls.engine import logging as log
from ppcls.engine.batch import build_reader, to_tensors
from ppcls.engine.checkpoint import read_state
from ppcls.engine.device import require_paddle, set_device
from ppcls.engine.distributed import World
from ppcls.engine.model import create_model
from ppcls.errors import DataError, WeightsError
from ppcls.losses import CombinedLoss
from ppcls.metrics.base import CombinedMetric, Mean
from ppcls.weights import find_weights, load_weights

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
        self.world.connect()

    def run(self) -> dict[str, float]:
        """Losses and metrics over all samples, by the names of the log."""
        section = self.config.Loss.Eval if self.config.Loss else None
        loss = CombinedLoss([spec.build() for spec in section]) if section else None
        with self.reader:
            epoch = self.state.get("epoch", 0)
            line = iteration_reporter(self.logger, epoch, self.config.Global.print_batch_step)
            result = evaluate(
                self.net, self.reader, loss, build_metric(self.config, "Eval"), self.world, line
            )
        self.logger.info(log.eval_average_line(epoch, result))
        log.close_logger(self.logger)
        return result


def build_metric(config: Config, mode: str) -> CombinedMetric:
    """The metrics of ``Metric.<mode>`` as one."""
    class_num = config.Arch.arguments["class_num"]
    return CombinedMetric([s.build(class_num=class_num) for s in getattr(config.Metric, mode)])


def evaluate(
    net: Any,
    reader: DataLoader,
    loss: CombinedLoss | None,
    metric: CombinedMetric,
    world: World,
    report: Report | None = None,
) -> dict[str, float]:
    """Runs a network over a reader.

    Every process sees its own share; what is added up are sums over samples, so neither the number
    of processes nor the batch size changes the result, and nothing is counted twice.

    Args:
        report: called for each batch with iteration, iterations, scalars and costs.

    Returns:
        Averages over all samples of all processes: losses first, then metrics.
    """
    import paddle

    mean = Mean(loss.names if loss else [])
    was_training = net.training
    net.eval()
    asked = time.perf_counter()
    with paddle.no_grad():
        for i, batch in enumerate(reader.epoch(0)):
            received = time.perf_counter()
            images, targets = to_tensors(batch, reader.dataset.pipeline)
            logits = net(images)
            losses = loss(logits, targets) if loss else {}
            if loss:
                mean.update(losses, len(batch.labels))
            metric.update(logits, targets)
            if report is not None:
                now = time.perf_counter()
                ips = len(batch.labels) / (now - asked)
                scalars = {name: value.item() for name, value in losses.items()}
                report(
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


def iteration_reporter(logger: Any, epoch: int, every: int) -> Report:
    """Logs every ``every``-th batch of an evaluation."""

    def report(i: int, n: int, scalars: Mapping[str, float], costs: Any) -> None:
        if i % every == 0:
            logger.info(log.eval_line(epoch, i, n, scalars, costs))

    return report


def load_network(
    config: Config, logger: Any, allow_random: bool = False
) -> tuple[Any, dict[str, Any]]:
    """The network with the weights that the configuration names, in evaluation mode.

    Returns:
        The network, and what ``state.json`` beside its weights says (empty without one).

    Raises:
        WeightsError: no weights are named and ``allow_random`` is off, or they do not fit.
    """
    section = config.Global
    source = section.pretrained_model or section.checkpoints or config.Arch.extra["pretrained"]
    net = create_model(config.Arch.name, **config.Arch.arguments)
    net.eval()
    if not source or source is True:
        if not allow_random:
            raise WeightsError(
                "no weights are given: set Global.pretrained_model to a checkpoint folder or a "
                "weights file (-o Global.pretrained_model=...), or allow random weights with "
                "--allow-random"
            )
        logger.warning("the network has random weights")
        return net, {}
    path = find_weights(source)
    report = load_weights(net, path)
    logger.info(f"loaded {path}: {report}")
    return net, read_state(path.parent)


def check_class_names(found: list[str] | None, expected: list[str] | None) -> None:
    """Raises DataError if class folders are not those that the labels came from in training."""
    if found and expected and found != expected:
        only_found = sorted(set(found) - set(expected))[:5]
        only_expected = sorted(set(expected) - set(found))[:5]
        raise DataError(
            "the class folders are not those of the training set, so labels would not agree: "
            f"only here {only_found}, only there {only_expected}"
        )
