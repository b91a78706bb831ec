"""Networks by name."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppcls.config import Config
from ppcls.config.types import convert
from ppcls.engine.checkpoint import read_state
from ppcls.engine.device import require_paddle
from ppcls.errors import ArgumentError, WeightsError, suggestion
from ppcls.metrics.base import CombinedMetric
from ppcls.registry import BACKBONES
from ppcls.weights import WeightReport, find_pretrained, find_weights, load_weights

MAY_DIFFER = {"dropout", "attention_dropout", "drop_path_rate", "data_format"}


def list_models(pattern: str = "*") -> list[str]:
    """Names of all networks that match a shell pattern, aliases included, sorted."""
    require_paddle()
    return BACKBONES.names(pattern)


def create_model(
    name: str, class_num: int = 1000, pretrained: bool | str | Path | None = None, **arch: Any
) -> Any:
    """Builds a network.

    Args:
        name: one of ``list_models()``, such as ``"MobileNeXt_x1_0"``.
        class_num: number of classes.
        pretrained: weights to load: a path, a URL, or True for the published ones. Weights with
            another number of classes give the network a new classifier. A PyTorch library's may
            change settings of the network, such as ``epsilon``, to those they were trained with.
        arch: further arguments of the family, such as ``dropout=0.0``.

    Raises:
        UnknownName: there is no such network.
        ArgumentError: the family has no such argument, or not with that value.
        WeightsError: the weights cannot be read or belong to another network.
    """
    require_paddle()
    known = BACKBONES.entry(name).arguments()
    checked = {}
    for argument, value in {"class_num": class_num, **arch}.items():
        if argument not in known:
            message = f"{name} has no argument '{argument}'{suggestion(argument, known)}"
            raise ArgumentError(argument, message)
        try:
            checked[argument] = convert(value, known[argument].annotation)
        except ValueError as error:
            raise ArgumentError(argument, f"{argument}: {error}") from None
    net = BACKBONES.build(name, checked)
    net.arch_name = name
    if pretrained is not None and pretrained is not False:
        if not isinstance(pretrained, (bool, str, Path)) or not str(pretrained):
            message = f"pretrained: expected a path, a URL or True, received {pretrained!r}"
            raise ArgumentError("pretrained", message)
        source = find_pretrained(name) if pretrained is True else pretrained
        report = load_weights(net, source, adapt_head=True)
        if report.adopted:
            logging.getLogger("ppcls").info("%s took over %s", name, report.adopted)
    return net


def load_for_run(
    net: Any, source: bool | str | Path, logger: logging.Logger, **options: bool
) -> WeightReport:
    """Loads weights into the network of a configuration, which has to describe it wholly.

    A network that took settings over from its weights would be built anew without them, when
    what was trained is loaded. So the configuration has to say them.

    Args:
        source: see ``find_weights``; True means the published weights.
        options: of ``load_weights``.

    Raises:
        WeightsError: naming the settings that the configuration lacks.
    """
    path = find_pretrained(net.arch_name) if source is True else find_weights(str(source))
    report = load_weights(net, path, **options)
    if report.adopted:
        settings = ", ".join(f"Arch.{name}: {value}" for name, value in report.adopted.items())
        message = f"holds {report.library}'s weights, which go with {settings}"
        raise WeightsError(f"{path}: {message}: add them to the configuration")
    logger.info(f"loaded {path}: {report}")
    if report.new_head:
        logger.info(f"the classifier starts anew, for {net.class_num} classes")
    return report


def build_metric(config: Config, mode: str) -> CombinedMetric:
    """The metrics of ``Metric.<mode>`` as one."""
    class_num = config.Arch.arguments["class_num"]
    return CombinedMetric([s.build(class_num=class_num) for s in getattr(config.Metric, mode)])


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
    if not source:
        if not allow_random:
            raise WeightsError(
                "no weights are given: set Global.pretrained_model to a checkpoint folder or a "
                "weights file (-o Global.pretrained_model=...), or allow random weights with "
                "--allow-random"
            )
        logger.warning("the network has random weights")
        return net, {}
    state: dict[str, Any] = {}
    if source is not True:
        source = find_weights(source)
        state = read_state(source.parent)
        check_arch(state, config)
    load_for_run(net, source, logger)
    return net, state


def check_arch(state: Mapping[str, Any], config: Config) -> None:
    """Compares the network of a checkpoint, as its ``state.json`` says, with the configuration's.

    Shapes alone do not tell a share of shortcut channels, for instance. What acts in training only
    may differ, and how maps lie in memory.

    Raises:
        WeightsError: naming both networks, or the argument that differs.
    """
    before, now = state.get("arch"), {"name": config.Arch.name, **config.Arch.arguments}
    if not isinstance(before, dict):
        return
    if not _same_variant(str(before["name"]), now["name"]):
        raise WeightsError(f"the checkpoint is of {before['name']}, the network is {now['name']}")
    for name in before.keys() & now.keys() - {"name", "class_num", *MAY_DIFFER}:
        if _plain(before[name]) != _plain(now[name]):
            message = f"{name} is {before[name]} in the checkpoint, and {now[name]} in Arch"
            raise WeightsError(f"{now['name']}: {message}")


def _same_variant(name: str, other: str) -> bool:
    if not {name, other} <= set(BACKBONES.names()):
        return name == other
    first, second = BACKBONES.entry(name), BACKBONES.entry(other)
    return first.builder is second.builder and _plain(first.preset) == _plain(second.preset)


def _plain(value: Any) -> Any:
    """As a checkpoint's JSON gives it back: sequences of all kinds are lists there."""
    return json.loads(json.dumps(value))
