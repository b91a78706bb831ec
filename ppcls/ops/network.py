"""Lets the kernels stand for the layers of a built network, and takes them out again.

Only the way forward through a layer changes: layers, parameters, buffers and their names stay as
they are, and a layer finds its own way again whenever the kernels cannot serve (another device or
type, a program being traced for export, a hook on a layer).
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import paddle
from paddle import nn
from paddle.vision.models import mobilenetv2, mobilenetv3

from ppcls.backbones.layers import HardSigmoid, ResidualPath, SqueezeExcitation
from ppcls.ops.chain import DTYPES, Chain, ConvUnit, SqueezeUnit, Unit
from ppcls.ops.library import HARDSWISH, IDENTITY, RELU, RELU6, SILU, load
from ppcls.ops.pool import global_average_pool

ACTIVATIONS = {
    nn.ReLU: RELU,
    nn.ReLU6: RELU6,
    nn.Hardswish: HARDSWISH,
    nn.Silu: SILU,
    nn.Swish: SILU,
}
# Blocks of Paddle's own networks: their parts in the order that they are called in. Each adds its
# input at the end if it has `use_res_connect`.
BLOCKS = {
    mobilenetv2.InvertedResidual: ("conv",),
    mobilenetv3.InvertedResidual: ("expand_conv", "bottleneck_conv", "mid_se", "linear_conv"),
}
# The parts of a squeeze-excitation, in the order that they are called in.
SQUEEZES = {
    SqueezeExcitation: ("pool", "reduce", "act", "expand", "gate"),
    mobilenetv3.SqueezeExcitation: ("avgpool", "fc1", "activation", "fc2", "scale_activation"),
}
# Below this share of a network's convolutions, changing the layout back and forth costs more
# than the kernels gain.
WORTHWHILE = 0.5


def accelerate(net: nn.Layer, announce: Callable[[str], None] | None = None) -> int:
    """Has the CPU kernels do the work of ``net`` from now on; says how many convolutions they do.

    Parameters and state dict stay as they are. Calling it again is harmless; ``restore`` undoes
    it. 0: the network is not made of what the kernels know, and nothing was changed.

    Args:
        net: any network; ours, and what else is made of ``nn.Sequential``.
        announce: told, in one line, if the kernels are compiled now; a logger by default.

    Raises:
        BuildError: the kernels are not compiled, and cannot be.
    """
    load(announce or logging.getLogger("ppcls").info)
    restore(net)
    found = list(_find(net))
    covered = sum(len(list(way.convolutions())) for _, way in found)
    total = sum(isinstance(layer, nn.Conv2D) for layer in net.sublayers(include_self=True))
    if not total or covered < WORTHWHILE * total:
        return 0
    for layer, way in found:
        layer.forward = way
    return covered


def restore(net: nn.Layer) -> None:
    """Takes out what ``accelerate`` put in."""
    for layer in net.sublayers(include_self=True):
        if isinstance(layer.__dict__.get("forward"), _Way):
            del layer.forward


class _Way:
    """Another way forward through a layer."""

    def __init__(self, layer: nn.Layer | None):
        self.layer: Any = layer

    def convolutions(self) -> Iterator[nn.Conv2D]:
        """Those that the kernels do."""
        yield from ()

    def own(self, *arguments: Any) -> Any:
        """The layer's own way."""
        return type(self.layer).forward(self.layer, *arguments)


class _Sequence(_Way):
    """Through a sequence: chains where possible, the other layers as they are."""

    def __init__(self, layer: nn.Layer):
        super().__init__(layer)
        self._look()

    def _look(self) -> None:
        leaves = list(_leaves(self.layer))
        self.seen = _with_parts(leaves)
        self.pieces = _pieces(leaves)
        inside = [x for leaf in leaves for x in leaf.sublayers(include_self=True)]
        self.watchable = [*_inner_sequences(self.layer), *inside]

    def convolutions(self) -> Iterator[nn.Conv2D]:
        for piece in self.pieces:
            if isinstance(piece, Chain):
                for unit in piece.units:
                    yield from (x for x in unit.layers if isinstance(x, nn.Conv2D))

    def __call__(
        self, x: paddle.Tensor, shortcut: paddle.Tensor | None = None, carried: int | None = None
    ) -> paddle.Tensor:
        if not self.serves(x):
            return self.own(x) if shortcut is None else self.own(x, shortcut, carried)
        return self.run(x, shortcut, carried)

    def serves(self, x: paddle.Tensor) -> bool:
        """Whether the chains can stand for the layers, which may have been exchanged since."""
        now = _with_parts(_leaves(self.layer))
        if len(now) != len(self.seen) or any(map(operator.is_not, now, self.seen)):
            self._look()
        return _serves(x) and not any(map(_is_watched, self.watchable))

    def run(
        self, x: paddle.Tensor, shortcut: paddle.Tensor | None, carried: int | None
    ) -> paddle.Tensor:
        """Through all pieces; the last one adds the shortcut if it is a chain."""
        *pieces, last = self.pieces
        for piece in pieces:
            x = piece(x)
        if shortcut is not None and isinstance(self.layer, ResidualPath) and self.layer.drops():
            return self.layer.join(last(x), shortcut, carried)
        if isinstance(last, Chain):
            return last(x, shortcut, carried)
        return last(x) if shortcut is None else ResidualPath.add(last(x), shortcut, carried)


class _Block(_Sequence):
    """Through one of ``BLOCKS``."""

    def __call__(self, x: paddle.Tensor) -> paddle.Tensor:  # type: ignore[override]
        if not self.serves(x):
            return self.own(x)
        return self.run(x, x if self.layer.use_res_connect else None, None)


_NO_WAY = _Way(None)


class _Pool(_Way):
    """Through a pooling to one pixel."""

    def __call__(self, x: paddle.Tensor) -> paddle.Tensor:
        return global_average_pool(x) if _serves(x) else self.own(x)


def _find(net: nn.Layer) -> Iterator[tuple[nn.Layer, _Way]]:
    """The outermost layers that another way exists for."""
    if _parts(net) is not None:
        way = (_Block if type(net) in BLOCKS else _Sequence)(net)
        if any(isinstance(piece, Chain) for piece in way.pieces):
            yield net, way
        for piece in way.pieces:
            if not isinstance(piece, Chain):
                yield from _find(piece)
    elif _is_global_pooling(net):
        yield net, _Pool(net)
    else:
        for layer in net.children():
            yield from _find(layer)


def _parts(layer: nn.Layer) -> list[nn.Layer] | None:
    """The layers that a layer calls one after the other, if that is what it does."""
    if _has_own_way(layer):
        return None
    if type(layer) in BLOCKS:
        names = BLOCKS[type(layer)]
        return [layer._sub_layers[name] for name in names if name in layer._sub_layers]
    forward = type(layer).forward
    if forward is nn.Sequential.forward or forward is ResidualPath.forward:
        return list(layer._sub_layers.values())  # children() leaves out a layer's second use
    return None


def _leaves(sequence: nn.Layer) -> Iterator[nn.Layer]:
    """What a sequence calls, in order; sequences inside it opened."""
    for layer in _parts(sequence) or ():
        if type(layer) in BLOCKS or _parts(layer) is None:
            yield layer
        else:
            yield from _leaves(layer)


def _with_parts(leaves: Iterable[nn.Layer]) -> list[nn.Layer]:
    return [x for leaf in leaves for x in (leaf, *leaf._sub_layers.values())]


def _inner_sequences(sequence: nn.Layer) -> Iterator[nn.Layer]:
    for layer in _parts(sequence) or ():
        if type(layer) not in BLOCKS and _parts(layer) is not None:
            yield layer
            yield from _inner_sequences(layer)


def _pieces(leaves: list[nn.Layer]) -> list[Chain | nn.Layer]:
    """Layers called one after the other, with runs of units replaced by chains."""
    pieces: list[Chain | nn.Layer] = []
    units: list[Unit] = []
    layers = [layer for layer in leaves if type(layer) is not nn.Identity]
    while layers:
        unit = _take_unit(layers)
        second_gate = isinstance(unit, SqueezeUnit) and units and isinstance(units[-1], SqueezeUnit)
        if units and (unit is None or second_gate):
            pieces.append(Chain(units))
            units = []
        if unit is None:
            pieces.append(layers.pop(0))
        else:
            units.append(unit)
    if units:
        pieces.append(Chain(units))
    return pieces


def _has_own_way(layer: nn.Layer) -> bool:
    """Whether somebody else has put another way forward into a layer."""
    return not isinstance(layer.__dict__.get("forward", _NO_WAY), _Way)


def _is_watched(layer: nn.Layer) -> bool:
    """Whether a hook would not be called, or another way not be taken, if a chain stood in."""
    return bool(layer._forward_pre_hooks or layer._forward_post_hooks or _has_own_way(layer))


def _is_global_pooling(layer: nn.Layer) -> bool:
    return (
        type(layer) is nn.AdaptiveAvgPool2D
        and layer._data_format == "NCHW"
        and layer._output_size in (1, (1, 1), [1, 1])
        and not _has_own_way(layer)
    )


def _take_unit(layers: list[nn.Layer]) -> Unit | None:
    """Takes the unit that a list of layers begins with from it."""
    squeeze = _squeeze_unit(layers[0])
    if squeeze is not None:
        del layers[0]
        return squeeze
    conv = layers[0]
    if not _is_known_convolution(conv):
        return None
    used, norm, act = 1, None, IDENTITY
    if len(layers) > used and _is_known_norm(layers[used]):
        norm = layers[used]
        used += 1
    if len(layers) > used and type(layers[used]) in ACTIVATIONS and not _has_own_way(layers[used]):
        act = ACTIVATIONS[type(layers[used])]
        used += 1
    del layers[:used]
    return ConvUnit(conv, norm, act)


def _is_known_convolution(layer: nn.Layer) -> bool:
    return (
        type(layer) is nn.Conv2D
        and layer._data_format == "NCHW"
        and layer._padding_mode == "zeros"
        and set(layer._dilation) == {1}
        and len(set(layer._kernel_size)) == len(set(layer._stride)) == 1
        and not _has_own_way(layer)
    )


def _is_known_norm(layer: nn.Layer) -> bool:
    known = type(layer) is nn.BatchNorm2D and layer._data_format == "NCHW"
    # With False, Paddle's backward pass in evaluation mode contradicts its forward pass.
    return known and layer._use_global_stats is not False and not _has_own_way(layer)


def _squeeze_unit(layer: nn.Layer) -> SqueezeUnit | None:
    """A squeeze-excitation of this package or of ``paddle.vision``."""
    if type(layer) not in SQUEEZES or _has_own_way(layer):
        return None
    pool, reduce, act, expand, gate = (getattr(layer, name) for name in SQUEEZES[type(layer)])
    pointwise = all(
        _is_known_convolution(conv) and list(conv._kernel_size) == [1, 1] and conv._groups == 1
        for conv in (reduce, expand)
    )
    if not pointwise or type(act) not in ACTIVATIONS or not _is_global_pooling(pool):
        return None
    offset = 0.5
    if type(gate) is nn.Sigmoid:
        slope = 0.0
    elif type(gate) is nn.Hardsigmoid:
        slope = 0.1666667  # Paddle's, in single precision, which the layer cannot change
    elif type(gate) is HardSigmoid:
        slope, offset = gate.slope, gate.offset
    else:
        return None
    return SqueezeUnit(reduce, expand, ACTIVATIONS[type(act)], slope, offset)


def _serves(x: paddle.Tensor) -> bool:
    """Whether the kernels can work on a tensor, here and now."""
    return (
        paddle.in_dynamic_mode()
        and x.dtype in DTYPES
        and x.ndim == 4
        and x.place.is_cpu_place()
        and not _amp_is_on()
    )


def _amp_is_on() -> bool:
    tracer = paddle.base.framework._dygraph_tracer()
    return tracer is not None and tracer._amp_level != paddle.base.core.AmpLevel.O0
