"""Parts of a network by name, and what comes out of them on the way to the logits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import paddle
from paddle import nn

from ppcls.backbones.base import Backbone
from ppcls.errors import ArgumentError, suggestion

# Parts that run one after the other: what comes out of the last of some comes out of them all.
IN_A_ROW = re.compile(r"stages\.\d+(\.\d+)?")


def find_layer(net: Backbone, name: str) -> nn.Layer:
    """The part of a network whose output ``name`` means.

    Args:
        net: the network.
        name: ours (``stages.3``, also written ``stages[3]``), or PaddleClas's of the part with
            the same weights (``blocks5``, ``blocks[0].expand_conv``).

    Raises:
        ArgumentError: it has no such part.
    """
    dotted = re.sub(r"\[(\d+)\]", r".\1", name)
    parts = dict(net.named_sublayers())
    found = parts.get(dotted) or _published(net, parts, dotted)
    if found is None or isinstance(found, nn.LayerList):
        hint = suggestion(dotted, parts)
        raise ArgumentError("return_patterns", f"the network has no layer '{name}'{hint}")
    return found


def _published(net: Backbone, parts: Mapping[str, nn.Layer], name: str) -> nn.Layer | None:
    """The part with the weights that PaddleClas has under ``name``, or the last such part."""
    for naming in net.namings():
        if naming.library != "PaddleClas":
            continue
        wanted = [own for own in net.state_dict() if naming.rename(own).startswith(f"{name}.")]
        for path, layer in parts.items():  # a part comes before its own parts
            held = {f"{path}.{own}" for own in layer.state_dict()}
            if held and held == set(wanted):
                return layer
            if held < set(wanted) and wanted[-1] in held and IN_A_ROW.fullmatch(path):
                return layer
    return None


@contextmanager
def watched(net: Backbone, layers: Mapping[str, nn.Layer]) -> Iterator[dict[str, paddle.Tensor]]:
    """Inside, a call of the network fills the map: the output of each layer under its key.

    Maps are [N, C, H, W], whatever the layers' own layout.
    """
    seen: dict[str, paddle.Tensor] = {}

    def note(key: str) -> object:
        def hook(layer: nn.Layer, inputs: object, output: paddle.Tensor) -> None:
            seen[key] = net._channels_first(output) if output.ndim == 4 else output

        return hook

    # For the call only: a network with hooks does without the CPU kernels, and is not exported.
    hooks = [layer.register_forward_post_hook(note(key)) for key, layer in layers.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
