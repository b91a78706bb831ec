"""A run of convolutions, normalisations, activations and squeeze-excitations as one operator.

Tensors keep their logical shape [N, C, H, W]; their memory is channels-last. To everything else
they are ordinary tensors with unusual strides, so code between two chains stays correct, whatever
it does. Paddle's operators are slow on such strides, though, and give dense memory back. So a
chain answers in the layout that it was given: what comes from Paddle's operators is likely to go
to them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from ppcls.backbones.layers import ResidualPath
from ppcls.ops.library import (
    BATCH_NORM,
    CONVOLUTION,
    DEPTHWISE,
    FROZEN_NORM,
    IDENTITY,
    NO_NORM,
    SQUEEZE_EXCITATION,
    ChainStruct,
    Kernels,
    LayerStruct,
    kernels,
    thread_count,
)

DTYPES = {paddle.float32: "float32", paddle.float64: "float64"}
TO_CHANNELS_LAST = [0, 2, 3, 1]
TO_CHANNELS_FIRST = [0, 3, 1, 2]
IMAGE_CHANNELS = 4  # at most; an image's layout says nothing about what follows


@dataclass
class ConvUnit:
    """A convolution, the batch normalisation behind it if any, and the activation."""

    conv: nn.Conv2D
    norm: nn.BatchNorm2D | None
    act: int = IDENTITY

    @property
    def layers(self) -> list[nn.Layer]:
        """The layers that the unit stands for."""
        return [self.conv] if self.norm is None else [self.conv, self.norm]

    def parameters(self) -> list[tuple[str, paddle.Tensor]]:
        """Field of ``LayerStruct`` and tensor of each parameter."""
        named = [("weight", self.conv.weight), ("bias", self.conv.bias)]
        if self.norm is not None:
            named += [("gamma", self.norm.weight), ("beta", self.norm.bias)]
        return [(name, tensor) for name, tensor in named if tensor is not None]

    def describe(self, struct: LayerStruct, height: int, width: int) -> tuple[int, int, int]:
        """Fills in all but the addresses; returns the output's channels, height and width."""
        conv = self.conv
        kernel, stride = conv._kernel_size[0], conv._stride[0]
        (top, bottom), (left, right) = padding(conv, (height, width))
        channels = conv._in_channels
        depthwise = conv._groups == channels == conv._out_channels
        depthwise = depthwise and kernel in (3, 5, 7) and stride in (1, 2)
        struct.kind = DEPTHWISE if depthwise else CONVOLUTION
        struct.channels_in, struct.channels_out = channels, conv._out_channels
        struct.kernel, struct.stride, struct.groups = kernel, stride, conv._groups
        struct.pad_top, struct.pad_left = top, left
        struct.in_h, struct.in_w = height, width
        struct.out_h = (height + top + bottom - kernel) // stride + 1
        struct.out_w = (width + left + right - kernel) // stride + 1
        struct.act = self.act
        return conv._out_channels, struct.out_h, struct.out_w

    def expected_shapes(
        self, struct: LayerStruct
    ) -> Iterator[tuple[str, paddle.Tensor, list[int]]]:
        """Name, tensor, and the shape that it needs to have."""
        outputs, kernel = struct.channels_out, struct.kernel
        yield (
            "weight",
            self.conv.weight,
            [outputs, struct.channels_in // struct.groups, kernel, kernel],
        )
        for name, tensor in self.parameters():
            if name != "weight":
                yield name, tensor, [outputs]
        if self.norm is not None:
            yield "mean", self.norm._mean, [outputs]
            yield "variance", self.norm._variance, [outputs]

    def norm_kind(self) -> int:
        """How the normalisation works at the moment."""
        if self.norm is None:
            return NO_NORM
        asked = self.norm._use_global_stats
        frozen = not self.norm.training if asked is None else asked
        return FROZEN_NORM if frozen else BATCH_NORM

    def set_buffers(self, struct: LayerStruct) -> None:
        """Sets the addresses of the running statistics and how they are used."""
        struct.norm = self.norm_kind()
        if self.norm is not None:
            # Paddle's operators take both in single precision, whatever the tensors' type is.
            struct.epsilon = ctypes.c_float(self.norm._epsilon).value
            struct.momentum = ctypes.c_float(self.norm._momentum).value
            struct.running_mean = self.norm._mean.data_ptr()
            struct.running_variance = self.norm._variance.data_ptr()


@dataclass
class SqueezeUnit:
    """A squeeze-excitation: two 1x1 convolutions on the pooled map, and a gate.

    ``gate_slope`` and ``gate_offset`` are the hard sigmoid's; a slope of 0 means a sigmoid.
    """

    reduce: nn.Conv2D
    expand: nn.Conv2D
    act: int
    gate_slope: float
    gate_offset: float = 0.5

    @property
    def layers(self) -> list[nn.Layer]:
        """The layers that the unit stands for."""
        return [self.reduce, self.expand]

    def parameters(self) -> list[tuple[str, paddle.Tensor]]:
        """Field of ``LayerStruct`` and tensor of each parameter."""
        named = [("weight", self.reduce.weight), ("bias", self.reduce.bias)]
        named += [("weight2", self.expand.weight), ("bias2", self.expand.bias)]
        return [(name, tensor) for name, tensor in named if tensor is not None]

    def describe(self, struct: LayerStruct, height: int, width: int) -> tuple[int, int, int]:
        """Fills in all but the addresses; returns the output's channels, height and width."""
        channels = self.reduce._in_channels
        struct.kind, struct.norm, struct.act = SQUEEZE_EXCITATION, NO_NORM, self.act
        struct.channels_in = struct.channels_out = channels
        struct.in_h = struct.out_h = height
        struct.in_w = struct.out_w = width
        struct.reduced = self.reduce._out_channels
        # As Paddle's operator takes them.
        struct.gate_slope = ctypes.c_float(self.gate_slope).value
        struct.gate_offset = ctypes.c_float(self.gate_offset).value
        return channels, height, width

    def expected_shapes(
        self, struct: LayerStruct
    ) -> Iterator[tuple[str, paddle.Tensor, list[int]]]:
        """Name, tensor, and the shape that it needs to have."""
        channels, reduced = struct.channels_in, struct.reduced
        shapes = {"weight": [reduced, channels, 1, 1], "bias": [reduced]}
        shapes |= {"weight2": [channels, reduced, 1, 1], "bias2": [channels]}
        for name, tensor in self.parameters():
            yield name, tensor, shapes[name]

    def norm_kind(self) -> int:
        """There is none."""
        return NO_NORM

    def set_buffers(self, struct: LayerStruct) -> None:
        """There are none."""


Unit = ConvUnit | SqueezeUnit


def padding(conv: nn.Conv2D, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Zero rows before and behind, zero columns before and behind an input of ``size``."""
    given = conv._padding
    if isinstance(given, str):
        if given.upper() == "VALID":
            return [(0, 0), (0, 0)]
        pairs = []
        for length, kernel, stride in zip(size, conv._kernel_size, conv._stride, strict=True):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pairs.append((total // 2, total - total // 2))
        return pairs
    if isinstance(given, int):
        return [(given, given)] * 2
    if len(given) == 2:
        return [(given[0], given[0]), (given[1], given[1])]
    if len(given) == 4 and not isinstance(given[0], list | tuple):
        return [(given[0], given[1]), (given[2], given[3])]
    return [tuple(pair) for pair in given[-2:]]


@dataclass
class Chain:
    """A run of units; call it on a map [N, C, H, W].

    It gives and takes the same numbers as the layers one after the other, in a fraction of the
    time and memory: see ``docs/performance.md``.
    """

    units: list[Unit]
    _described: dict[tuple[int, ...], tuple[Any, list[int]]] = field(default_factory=dict)
    _parts: dict[int, tuple[Chain, Chain]] = field(default_factory=dict)

    def __call__(
        self,
        x: paddle.Tensor,
        shortcut: paddle.Tensor | None = None,
        carried: int | None = None,
    ) -> paddle.Tensor:
        """Applies the units; then adds the first ``carried`` channels of ``shortcut`` (or all)."""
        parameters = [tensor for unit in self.units for _, tensor in unit.parameters()]
        inputs = [x] if shortcut is None or shortcut is x else [x, shortcut]
        structs, output = described = self.described(x.shape)
        self._check(x, parameters, structs)
        if shortcut is not None and not self._fits(x, shortcut, output):
            return ResidualPath.add(self(x), shortcut, carried)
        records = paddle.is_grad_enabled() and not all(
            tensor.stop_gradient for tensor in (*inputs, *parameters)
        )
        if records and x.stop_gradient and (frozen := self._frozen_units()):
            # The backward pass would go through them for nothing.
            first, rest = self._parted(frozen)
            return rest(first(x), shortcut, carried)
        call = _Call(self.units, described, x, shortcut, carried, parameters)
        if records:
            return _ChainFunction.apply(call, *inputs, *parameters)
        batch_statistics = any(unit.norm_kind() == BATCH_NORM for unit in self.units)
        with paddle.no_grad():
            return call.forward(keep=batch_statistics)

    def _frozen_units(self) -> int:
        """How many units at the beginning do not learn; at least the last one is left out."""
        learns = (any(not p.stop_gradient for _, p in u.parameters()) for u in self.units[:-1])
        return next((i for i, does in enumerate(learns) if does), len(self.units) - 1)

    def _parted(self, count: int) -> tuple[Chain, Chain]:
        """The first ``count`` units, and the others, as chains."""
        if count not in self._parts:
            self._parts[count] = Chain(self.units[:count]), Chain(self.units[count:])
        return self._parts[count]

    def __post_init__(self) -> None:
        gates = [isinstance(unit, SqueezeUnit) for unit in self.units]
        if any(one and other for one, other in pairwise(gates)):
            raise ValueError("two squeeze-excitations in a row: the second would hide the first")

    def __getstate__(self) -> dict[str, Any]:
        return {"units": self.units, "_described": {}, "_parts": {}}  # a copy describes its own

    def _check(self, x: paddle.Tensor, parameters: list[paddle.Tensor], structs: Any) -> None:
        """Raises ValueError for what would have the kernels read beside the memory of x."""
        channels = x.shape[1]
        for struct in structs:
            if struct.channels_in != channels:
                expected = f"expected a map of {struct.channels_in} channels"
                raise ValueError(f"{expected}, received {channels} (input {list(x.shape)})")
            channels = struct.channels_out
        if min(*x.shape, *(min(s.out_h, s.out_w) for s in structs)) < 1:
            raise ValueError(f"a map of {list(x.shape)} is too small: nothing is left of it")
        for unit, struct in zip(self.units, structs, strict=True):
            for name, tensor, shape in unit.expected_shapes(struct):
                if tensor.shape != shape:
                    received = f"expected {shape}, received {tensor.shape}"
                    raise ValueError(f"{name} of {unit.layers[0].full_name()}: {received}")
        if any(tensor.dtype != x.dtype for tensor in parameters):
            raise ValueError(f"expected the type of the weights, received a map of {x.dtype}")

    def _fits(self, x: paddle.Tensor, shortcut: paddle.Tensor, output: list[int]) -> bool:
        batch, height, width, channels = output
        same_kind = shortcut.dtype == x.dtype and shortcut.place == x.place
        return same_kind and list(shortcut.shape) == [batch, channels, height, width]

    def described(self, shape: Sequence[int]) -> tuple[Any, list[int]]:
        """Structs without addresses for an input shape, and the output's [N, H, W, C]."""
        key = tuple(shape)
        if key not in self._described:
            structs = (LayerStruct * len(self.units))()
            channels, height, width = key[1:]
            for unit, struct in zip(self.units, structs, strict=True):
                channels, height, width = unit.describe(struct, height, width)
            if len(self._described) > 64:  # sizes that change with every batch
                self._described.clear()
            self._described[key] = structs, [key[0], height, width, channels]
        structs, output = self._described[key]
        return type(structs).from_buffer_copy(structs), output


class _Call:
    """One use of a chain: what its forward and backward pass share."""

    def __init__(
        self,
        units: list[Unit],
        described: tuple[Any, list[int]],
        x: paddle.Tensor,
        shortcut: paddle.Tensor | None,
        carried: int | None,
        parameters: list[paddle.Tensor],
    ):
        self.units = units
        self.structs, self.output = described
        self.kernels: Kernels = kernels(DTYPES[x.dtype])
        self.dtype = x.dtype
        self.parameters = parameters
        self.needs_dx = not x.stop_gradient
        self.needs_dshortcut = shortcut is not None and not shortcut.stop_gradient
        one_layout = x.shape[1] <= IMAGE_CHANNELS or x.shape[2] * x.shape[3] == 1
        self.answers_dense = x.is_contiguous() and not one_layout
        self.x = channels_last(x.detach(), self.kernels)
        self.shortcut_is_x = shortcut is x
        self.shortcut = self.x if shortcut is x else None
        if shortcut is not None and shortcut is not x:
            self.shortcut = channels_last(shortcut.detach(), self.kernels)
        channels = self.output[3]
        self.carried = channels if carried is None else min(carried, channels)
        self.saved: Any = None
        for unit, struct in zip(self.units, self.structs, strict=True):
            unit.set_buffers(struct)

    def forward(self, keep: bool) -> paddle.Tensor:
        """Runs the chain, keeping what the backward pass needs if ``keep``."""
        out = paddle.empty(self.output, self.dtype)
        call = self._struct()
        call.out = out.data_ptr()
        if keep:
            self.saved = paddle.empty([self.kernels.saved_size(call)], self.dtype)
            call.saved = self.saved.data_ptr()
            self.kernels.forward(call)
        else:
            self.kernels.infer(call)
        return self._answer(out)

    def backward(self, dout: paddle.Tensor) -> list[paddle.Tensor | None]:
        """Gradients of x, of a shortcut that is not x, and of the parameters.

        Once only: what was saved is let go, so that the next step's maps do not lie beside it.
        """
        saved, self.saved = self.saved, None
        upstream = channels_last(dout, self.kernels)
        call = self._struct()
        call.saved, call.dout = saved.data_ptr(), upstream.data_ptr()
        gradients = self._make_gradients()
        dx = None
        if self.needs_dx or isinstance(self.units[0], SqueezeUnit):
            dx = paddle.empty(self.x.shape, self.dtype)
            call.dx = dx.data_ptr()
        self.kernels.backward(call)
        result = [self._answer(dx) if dx is not None and self.needs_dx else None]
        if self.shortcut is not None and not self.shortcut_is_x:
            result.append(self._shortcut_gradient(upstream) if self.needs_dshortcut else None)
        return [*result, *gradients]

    def _shortcut_gradient(self, upstream: paddle.Tensor) -> paddle.Tensor:
        if self.carried < self.output[3]:
            upstream = upstream.clone()
            upstream[..., self.carried :] = 0
        return self._answer(upstream)

    def _answer(self, dense: paddle.Tensor) -> paddle.Tensor:
        """Memory [N, H, W, C] as a map [N, C, H, W] in the layout that x came in."""
        if not self.answers_dense:
            return dense.transpose(TO_CHANNELS_FIRST)
        batch, height, width, channels = dense.shape
        result = paddle.empty([batch, channels, height, width], self.dtype)
        size = batch, channels, height * width
        self.kernels.to_channels_first(dense.data_ptr(), result.data_ptr(), *size, thread_count())
        return result

    def _make_gradients(self) -> list[paddle.Tensor | None]:
        """Tensors for the gradients of the parameters; None for a frozen one."""
        gradients: list[paddle.Tensor | None] = []
        for struct, name, tensor in self._fields():
            gradient = None if tensor.stop_gradient else paddle.empty(tensor.shape, self.dtype)
            setattr(struct, f"d{name}", None if gradient is None else gradient.data_ptr())
            gradients.append(gradient)
        return gradients

    def _fields(self) -> Iterator[tuple[LayerStruct, str, paddle.Tensor]]:
        """Struct, field and tensor of each parameter."""
        tensors = iter(self.parameters)
        for unit, struct in zip(self.units, self.structs, strict=True):
            for name, _ in unit.parameters():
                yield struct, name, next(tensors)

    def _struct(self) -> ChainStruct:
        for struct, name, tensor in self._fields():
            setattr(struct, name, tensor.data_ptr())
        size = self.x.shape[0], len(self.structs), thread_count()
        call = ChainStruct(*size, ctypes.cast(self.structs, ctypes.POINTER(LayerStruct)))
        call.x = self.x.data_ptr()
        if self.shortcut is not None:
            call.shortcut = self.shortcut.data_ptr()
            call.shortcut_channels = self.carried
            call.shortcut_is_x = self.shortcut_is_x
        return call


class _ChainFunction(PyLayer):
    """The bridge to Paddle's automatic differentiation."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: paddle.Tensor) -> paddle.Tensor:
        ctx.call = call
        return call.forward(keep=True)

    @staticmethod
    def backward(ctx: Any, dout: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        return tuple(ctx.call.backward(dout))


def channels_last(x: paddle.Tensor, functions: Kernels) -> paddle.Tensor:
    """A map [N, C, H, W] as dense memory [N, H, W, C]: a view if it lies so already."""
    view = x.transpose(TO_CHANNELS_LAST)
    if view.is_contiguous():
        return view
    batch, channels, height, width = x.shape
    dense = x.contiguous()
    result = paddle.empty(view.shape, x.dtype)
    functions.to_channels_last(
        dense.data_ptr(),
        result.data_ptr(),
        batch,
        channels,
        height * width,
        thread_count(),
    )
    return result
