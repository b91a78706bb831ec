"""Multiply-adds of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import paddle
from paddle import nn

from ppcls.backbones.layers import AttentionProduct

CONVOLUTIONS = (nn.Conv1D, nn.Conv2D, nn.Conv3D)


def count_macs(
    net: nn.Layer, image_size: int | tuple[int, int], channels: int = 3, attention: bool = True
) -> int:
    """Multiply-adds that a network needs for one image.

    Counted are convolutions, linear layers and, with ``attention``, the two products of each
    attention, q k^T and weights v. Pooling, normalisation, activations and the scaling of a
    squeeze-excitation are not: published figures leave them out, too. Some of these leave out
    attention's products as well, and some call one multiply-add two FLOPs.

    The network runs once, in evaluation mode, and is left as it was.

    Args:
        net: any network of Paddle's layers; products between tensors that are no layer are not
            seen, except in :class:`ppcls.backbones.layers.AttentionProduct`.
        image_size: side of a square image, or (height, width).
        channels: of the image.
        attention: whether attention's products count.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    images = paddle.zeros([1, channels, height, width])
    counts: list[int] = []

    def count(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...], output: paddle.Tensor) -> None:
        counts.append(_macs(layer, inputs, output))

    counted = (*CONVOLUTIONS, nn.Linear, *([AttentionProduct] if attention else []))
    layers = [x for x in net.sublayers(include_self=True) if isinstance(x, counted)]
    with _evaluation(net), paddle.no_grad():
        hooks = [layer.register_forward_post_hook(count) for layer in layers]
        try:
            net(images)
        finally:
            for hook in hooks:
                hook.remove()
    return sum(counts)


def _macs(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...], output: paddle.Tensor) -> int:
    """Multiply-adds of one call of a layer that counts."""
    if isinstance(layer, AttentionProduct):
        q, k, v = inputs[:3]
        pairs = math.prod(q.shape[:-1]) * k.shape[-2]
        return pairs * (q.shape[-1] + v.shape[-1])
    if isinstance(layer, nn.Linear):
        return math.prod(output.shape) * layer.weight.shape[0]
    # Each entry of the output sums over one filter, [C_in / groups, *kernel].
    return math.prod(output.shape) * math.prod(layer.weight.shape[1:])


@contextmanager
def _evaluation(net: nn.Layer) -> Iterator[None]:
    """Evaluation mode; every layer gets its own mode back."""
    modes = [(layer, layer.training) for layer in net.sublayers(include_self=True)]
    net.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
