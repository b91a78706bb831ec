"""``Global.recompute``: less memory for a second forward pass of each block."""

from __future__ import annotations

from typing import Any

from ppcls.registry import BACKBONES


def use_recompute(trained: Any) -> int:
    """Lets all blocks that can recompute do so from now on; returns how many.

    Args:
        trained: a network, or a layer that holds networks.
    """
    blocks = recomputed_blocks(trained)
    for block in blocks:
        block.recomputes = True
    return len(blocks)


def recomputed_blocks(layer: Any) -> list[Any]:
    """The blocks that can be recomputed, of all networks in a layer."""
    from ppcls.backbones.base import Backbone

    networks = [x for x in layer.sublayers(include_self=True) if isinstance(x, Backbone)]
    return [block for network in networks for block in network.recomputed_blocks()]


def why_not_recompute(net: Any) -> str | None:
    """Why a network cannot, and which can; None if it can."""
    if recomputed_blocks(net):
        return None
    able = {BACKBONES.entry(name).builder for name in BACKBONES}
    names = sorted(builder.__name__ for builder in able if getattr(builder, "recomputable", ()))
    return (
        f"{net.arch_name} cannot: a block's batch normalisations would count each batch twice; "
        f"{', '.join(names)} can"
    )
