"""Networks by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppcls.config.types import convert
from ppcls.errors import ArgumentError, WeightsError, suggestion
from ppcls.registry import BACKBONES
from ppcls.weights import load_weights


def list_models(pattern: str = "*") -> list[str]:
    """Names of all networks that match a shell pattern, aliases included, sorted."""
    return BACKBONES.names(pattern)


def create_model(
    name: str, class_num: int = 1000, pretrained: bool | str | Path | None = None, **arch: Any
) -> Any:
    """Builds a network.

    Args:
        name: one of ``list_models()``, such as ``"MobileNeXt_x1_0"``.
        class_num: number of classes.
        pretrained: weights to load: a path, or True for the published ones. Weights with another
            number of classes give the network a new classifier.
        arch: further arguments of the family, such as ``dropout=0.0``.

    Raises:
        UnknownName: there is no such network.
        ArgumentError: the family has no such argument, or not with that value.
        WeightsError: the weights cannot be read or belong to another network.
    """
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
    if pretrained is True:
        message = "no published weights are known to this version; give the path of a file"
        raise WeightsError(f"{name}: {message}")
    if pretrained:
        load_weights(net, pretrained, adapt_head=True)
    return net
