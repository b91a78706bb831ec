"""Networks by name."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppcls.config import Config
from ppcls.config.types import convert
from ppcls.engine.averaging.base import TRAINED
from ppcls.engine.calibration import read_temperature
from ppcls.engine.checkpoint import read_state
from ppcls.engine.device import require_paddle
from ppcls.errors import ArgumentError, WeightsError, suggestion
from ppcls.metrics.base import CombinedMetric
from ppcls.registry import BACKBONES, METRICS, NETWORK_GROUPS, Spec
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


def build_networks(config: Config, logger: logging.Logger) -> tuple[Any, Any | None]:
    """What a run trains: the network that is kept, and the group that it is part of, if it is.

    Raises:
        WeightsError: weights to start from do not fit.
        ConfigError: a network has no such layer as ``return_patterns`` names.
    """
    resuming, arch = bool(config.Global.checkpoints), config.Arch
    if arch.registry is NETWORK_GROUPS:
        try:
            facts = {"logger": logger, "resuming": resuming}
            group = arch.registry.build(arch.name, arch.arguments, **facts)
        except ArgumentError as error:
            raise config.problem(f"Arch.{error.argument}", str(error)) from None
        return group.student, group
    net = create_model(arch.name, **arch.arguments)
    if arch.extra["pretrained"] and not resuming:
        load_for_run(net, arch.extra["pretrained"], logger, adapt_head=True)
    return net, None


def build_metric(config: Config, mode: str, also: Sequence[str] = ()) -> CombinedMetric:
    """The metrics of ``Metric.<mode>`` as one, and those of ``also`` that are not among them."""
    class_num = config.Arch.arguments["class_num"]
    specs = list(getattr(config.Metric, mode))
    named = {spec.name for spec in specs}
    specs += [Spec(METRICS, name) for name in also if name not in named]
    return CombinedMetric([spec.build(class_num=class_num) for spec in specs])


def load_network(
    config: Config, logger: Any, allow_random: bool = False
) -> tuple[Any, dict[str, Any]]:
    """The network with the weights that the configuration names, in evaluation mode.

    Returns:
        The network, and what is known of its weights (see ``load_checkpoint``).

    Raises:
        WeightsError: no weights are named and ``allow_random`` is off, or they do not fit.
    """
    net = create_model(config.network.name, **config.network.arguments)
    net.eval()
    weights = weights_of(config)
    if weights is not None:
        return net, load_checkpoint(net, weights, config, logger)
    if not allow_random:
        raise WeightsError(
            "no weights are given: set Global.pretrained_model to a checkpoint folder or a "
            "weights file (-o Global.pretrained_model=...), or allow random weights with "
            "--allow-random"
        )
    logger.warning("the network has random weights")
    return net, {}


def weights_of(config: Config) -> Path | None:
    """The weights file that a configuration names to be used; None if it names none."""
    section = config.Global
    source = section.pretrained_model or section.checkpoints or config.network.extra["pretrained"]
    if not source:
        return None
    return find_pretrained(config.network.name) if source is True else find_weights(source)


def load_checkpoint(net: Any, weights: Path, config: Config, logger: Any) -> dict[str, Any]:
    """Loads a weights file of the configuration's network, to be used as it is.

    Returns:
        What ``state.json`` beside it says (empty without one), and the ``temperature`` that it was
        calibrated with, if it was.

    Raises:
        WeightsError: they are of another network.
    """
    state = read_state(weights.parent)
    check_arch(state, config)
    load_for_run(net, weights, logger)
    if (average := state.get("weights", TRAINED)) != TRAINED:
        logger.info(f"these weights are an average of those in training: {average}")
    temperature = read_temperature(weights, logger)
    return state if temperature is None else {**state, "temperature": temperature}


def check_arch(state: Mapping[str, Any], config: Config) -> None:
    """Compares the network of a checkpoint, as its ``state.json`` says, with the configuration's.

    Shapes alone do not tell a share of shortcut channels, for instance. What acts in training only
    may differ, and how maps lie in memory.

    Raises:
        WeightsError: naming both networks, or the argument that differs.
    """
    before, now = state.get("arch"), {"name": config.network.name, **config.network.arguments}
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
