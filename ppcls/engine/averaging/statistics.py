"""Batch statistics of averaged weights, which no batch has ever seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paddle


def refresh(net: paddle.nn.Layer, batches: Iterable[paddle.Tensor]) -> int:
    """Replaces the running statistics of batch norm by averages over batches.

    Mean and variance become the averages of the batches' own, each batch weighing as much as it
    has samples. Layers that are not in training mode keep theirs: they are frozen. Everything
    else is as in evaluation, dropout for instance (arXiv:1803.05407, section 3.2).

    Args:
        net: the network, in training mode; it is left in the mode of each layer.
        batches: images [N, 3, H, W], preprocessed.

    Returns:
        How many batches there were.
    """
    import paddle

    norms = trained_norms(net)
    momenta = [norm._momentum for norm in norms]
    seen = count = 0
    with paddle.no_grad(), _only_training(net, norms):
        try:
            for images in batches:
                total = seen + len(images)
                for norm in norms:
                    norm._momentum = seen / total  # what Paddle keeps of the running value
                net(images)
                seen, count = total, count + 1
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm._momentum = momentum
    return count


def trained_norms(net: paddle.nn.Layer) -> list[paddle.nn.Layer]:
    """The layers whose batch statistics training changes."""
    import paddle
    from paddle.nn.layer.norm import _BatchNormBase

    kinds = (_BatchNormBase, paddle.nn.BatchNorm)
    found = [layer for layer in net.sublayers(include_self=True) if isinstance(layer, kinds)]
    return [norm for norm in found if norm.training and not norm._use_global_stats]


@contextmanager
def _only_training(net: paddle.nn.Layer, norms: list[paddle.nn.Layer]) -> Iterator[None]:
    modes = [(layer, layer.training) for layer in net.sublayers(include_self=True)]
    net.eval()
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
