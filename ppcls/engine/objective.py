"""What a run minimises, and by which optimizer, as the configuration says."""

from __future__ import annotations

from typing import Any

from ppcls.config import Config
from ppcls.data.loader import DataLoader
from ppcls.engine.distributed import World
from ppcls.engine.model import build_metric
from ppcls.errors import ArgumentError
from ppcls.losses import CombinedLoss
from ppcls.registry import Spec


def build_loss(config: Config, specs: list[Spec], dataset: Any) -> CombinedLoss:
    """The sum of some losses, told what they ask of the run and of its data set."""
    facts = {
        "class_num": config.Arch.arguments["class_num"],
        "label_ratio": getattr(dataset, "label_ratio", None),
    }
    return CombinedLoss([spec.build(**facts) for spec in specs])


def build_optimizer(
    config: Config, spec: Spec, network: Any, reader: DataLoader, world: World
) -> Any:
    """The optimizer of ``network``, with a schedule over the steps that the reader gives.

    Raises:
        ConfigError: a length of the schedule does not fit the run, or nothing is to be trained.
    """
    every = config.Global.update_freq
    batch = getattr(reader.sampler, "batch_size", None)
    try:
        optimizer = spec.build(
            epochs=config.Global.epochs,
            steps_per_epoch=-(-len(reader) // every),
            total_batch=batch and batch * world.size * every,
            network=network,
        )
        optimizer.schedule(0)  # lengths in steps are compared with the data's
    except ArgumentError as error:
        known = error.argument in spec.arguments
        path = f"Optimizer.{error.argument}" if known else f"Optimizer.lr.{error.argument}"
        raise config.problem(path, str(error)) from None
    return optimizer


def check_evaluation(config: Config) -> None:
    """Raises ConfigError if what goes by evaluations has none, or would take the worst for best."""
    rate: Any = config.Optimizer.arguments["lr"] if config.Optimizer else None
    is_plateau = rate is not None and rate.name == "ReduceOnPlateau"
    asks = {"Global.early_stop": config.Global.early_stop, "Optimizer.lr": is_plateau}
    if not config.Global.eval_during_train:
        for path in (path for path, does in asks.items() if does):
            raise config.problem(path, "goes by evaluations, and Global.eval_during_train is off")
    elif is_plateau:
        metric = build_metric(config, "Eval")
        received = rate.arguments.get("mode") or "max"
        expected = "max" if metric.higher_is_better else "min"
        if received != expected:
            message = f"expected {expected} for {metric.main_name} of Metric.Eval"
            raise config.problem("Optimizer.lr.mode", f"{message}, received {received}")
