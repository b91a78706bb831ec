"""Paddle's own layers, the chain that stands for them, and what a step through either gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.vision.models.mobilenetv3 import SqueezeExcitation

from ppcls.ops.chain import Chain, ConvUnit, SqueezeUnit, Unit
from ppcls.ops.library import HARDSWISH, IDENTITY, RELU, RELU6, SILU

ACTIVATIONS: dict[str, tuple[int, type[nn.Layer] | None]] = {
    "none": (IDENTITY, None),
    "ReLU": (RELU, nn.ReLU),
    "ReLU6": (RELU6, nn.ReLU6),
    "Hardswish": (HARDSWISH, nn.Hardswish),
    "Silu": (SILU, nn.Silu),
}
CORNERS = {
    nn.ReLU: (0.0,),
    nn.ReLU6: (0.0, 6.0),
    nn.Hardswish: (-3.0, 3.0),
    nn.Hardsigmoid: (-3.0, 3.0),
}
HARD_SIGMOID_SLOPE = float(np.float32(0.1666667))  # Paddle's operator takes it so

Step = dict[str, np.ndarray]
Forward = Callable[..., paddle.Tensor]


class ExactPool(nn.Layer):
    """The mean over a map. Paddle's pooling divides its gradient in single precision."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return x.mean([2, 3], keepdim=True)


class Stack:
    """Layers one after the other, grown by ``conv`` and ``squeeze``, with weights from a seed."""

    def __init__(self, seed: int = 0, dtype: str = "float64"):
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.layers: list[nn.Layer] = []
        self.units: list[Unit] = []

    def conv(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        padding: Any = 0,
        groups: int = 1,
        norm: bool | dict[str, Any] = True,
        act: str = "none",
        bias: bool = False,
    ) -> Stack:
        """Adds a convolution, a normalisation (its arguments, or True) and an activation."""
        code, act_type = ACTIVATIONS[act]
        conv = nn.Conv2D(
            *(channels_in, channels_out, kernel, stride, padding),
            groups=groups,
            bias_attr=None if bias else False,
        )
        batch_norm = None
        if norm is not False:
            batch_norm = nn.BatchNorm2D(channels_out, **(norm if isinstance(norm, dict) else {}))
        layers = [conv, batch_norm, act_type() if act_type else None]
        self._add(ConvUnit(conv, batch_norm, code), [layer for layer in layers if layer])
        return self

    def depthwise(self, channels: int, kernel: int = 3, stride: int = 1, **arguments: Any) -> Stack:
        """Adds a depthwise convolution that keeps the size of the map at stride 1."""
        arguments = {"padding": kernel // 2, "groups": channels, **arguments}
        return self.conv(channels, channels, kernel, stride, **arguments)

    def squeeze(self, channels: int, reduced: int, act: str = "ReLU", hard: bool = True) -> Stack:
        """Adds a squeeze-excitation with a hard sigmoid or a sigmoid as gate."""
        code, act_type = ACTIVATIONS[act]
        gate = nn.Hardsigmoid if hard else nn.Sigmoid
        layer = SqueezeExcitation(channels, reduced, act_type, gate)
        layer.avgpool = ExactPool()
        slope = HARD_SIGMOID_SLOPE if hard else 0.0
        self._add(SqueezeUnit(layer.fc1, layer.fc2, code, slope), [layer])
        return self

    def _add(self, unit: Unit, layers: list[nn.Layer]) -> None:
        for layer in layers:
            layer.to(dtype=self.dtype)
            for name, value in layer.state_dict().items():
                value.set_value(self._values(name, value.shape).astype(self.dtype))
        self.units.append(unit)
        self.layers += layers

    def _values(self, name: str, shape: list[int]) -> np.ndarray:
        """Statistics and factors around one, weights that keep the spread of what they meet."""
        if name == "_variance" or (name == "weight" and len(shape) == 1):
            return self.rng.uniform(0.5, 1.5, shape)
        spread = np.prod(shape[1:]) ** -0.5 if len(shape) == 4 else 0.3
        return self.rng.normal(0, spread, shape)

    @property
    def chain(self) -> Chain:
        """The kernels' way through these layers."""
        return Chain(self.units)

    @property
    def norms(self) -> list[nn.BatchNorm2D]:
        """All normalisations."""
        return [layer for layer in self.layers if isinstance(layer, nn.BatchNorm2D)]

    def named(self, statistics: bool = False) -> dict[str, paddle.Tensor]:
        """Parameters, or the running statistics, by position and name."""
        return {
            f"{i}.{name}": value
            for i, layer in enumerate(self.layers)
            for name, value in layer.state_dict().items()
            if name.startswith("_") == statistics
        }

    def to(self, dtype: str) -> Stack:
        """Changes the precision of all parameters and statistics."""
        self.dtype = dtype
        for layer in self.layers:
            layer.to(dtype=dtype)
        return self

    def stock(
        self, x: paddle.Tensor, shortcut: paddle.Tensor | None = None, carried: int | None = None
    ) -> paddle.Tensor:
        """Paddle's way through these layers."""
        for layer in self.layers:
            x = layer(x)
        if shortcut is None:
            return x
        mask = np.arange(x.shape[1]) < (x.shape[1] if carried is None else carried)
        return x + shortcut * paddle.to_tensor(mask.reshape(1, -1, 1, 1).astype(self.dtype))

    def corner_distance(self, x: paddle.Tensor) -> float:
        """How near a value comes to a corner of the activation it meets, without being there."""
        distances = [np.inf]

        def note(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...]) -> None:
            for corner in CORNERS.get(type(layer), ()):
                distance = np.abs(inputs[0].numpy() - corner)
                distances.append(distance[distance > 0].min(initial=np.inf))

        with self._watched_by(note):
            self._look(x)
        return min(distances)

    @contextmanager
    def kept_statistics(self) -> Iterator[None]:
        """Puts the running statistics back at the end."""
        before = {name: value.numpy().copy() for name, value in self.named(True).items()}
        yield
        for name, value in self.named(True).items():
            value.set_value(before[name])

    def values_a_channel(self, x: paddle.Tensor) -> list[int]:
        """How many each normalisation sees."""
        counts: list[int] = []

        def note(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...]) -> None:
            if isinstance(layer, nn.BatchNorm2D):
                counts.append(inputs[0].size // inputs[0].shape[1])

        with self._watched_by(note):
            self._look(x)
        return counts

    @contextmanager
    def _watched_by(self, note: Callable[..., None]) -> Iterator[None]:
        inner = [part for layer in self.layers for part in layer.sublayers(include_self=True)]
        hooks = [part.register_forward_pre_hook(note) for part in inner]
        yield
        for hook in hooks:
            hook.remove()

    def _look(self, x: paddle.Tensor) -> paddle.Tensor:
        with paddle.no_grad(), self.kept_statistics():
            return self.stock(x)

    def output_shape(self, x: paddle.Tensor) -> tuple[int, ...]:
        """What comes out for this input."""
        return tuple(self._look(x).shape)


def tensor(values: np.ndarray, dtype: str = "float64", channels_last: bool = False) -> Any:
    """A leaf that wants a gradient; its memory is [N, H, W, C] if asked for."""
    if channels_last:
        dense = np.ascontiguousarray(values.transpose(0, 2, 3, 1))
        x = paddle.to_tensor(dense.astype(dtype)).transpose([0, 3, 1, 2]).detach()
    else:
        x = paddle.to_tensor(values.astype(dtype))
    x.stop_gradient = False
    return x


def normal(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, shape)


def step(
    stack: Stack,
    forward: Forward,
    x: paddle.Tensor,
    shortcut: paddle.Tensor | None = None,
    carried: int | None = None,
    backwards: int = 1,
) -> Step:
    """One way forward and back: output, every gradient, and the running statistics behind it.

    The stack is left as it was.
    """
    parameters = stack.named()
    leaves = {"x": x, **parameters}
    if shortcut is not None and shortcut is not x:
        leaves["shortcut"] = shortcut
    for leaf in leaves.values():
        leaf.clear_gradient(set_to_zero=False)
    with stack.kept_statistics():
        out = forward(x, shortcut, carried)
        upstream = paddle.to_tensor(normal(tuple(out.shape), seed=99).astype(stack.dtype))
        if not out.stop_gradient:
            loss = (out * upstream).sum()
            for i in range(backwards):
                loss.backward(retain_graph=i + 1 < backwards)
        result = {"out": out.numpy()}
        result |= {n: value.numpy().copy() for n, value in stack.named(True).items()}
    for name, leaf in leaves.items():
        if leaf.grad is not None:
            result[f"d{name}"] = leaf.grad.numpy().copy()
    return result


def vanishing(stack: Stack, x: paddle.Tensor) -> set[str]:
    """Gradients that are zero by mathematics: of a bias that batch normalisation takes away."""
    counts = iter(stack.values_a_channel(x))
    found = set()
    for i, layer in enumerate(stack.layers):
        if isinstance(layer, nn.BatchNorm2D):
            frozen = not layer.training or layer._use_global_stats
            if next(counts) > 1 and not frozen:
                found.add(f"d{i - 1}.bias")
    return found


def differences(
    actual: Step, expected: Step, tolerance: float, zero: set[str] | frozenset[str] = frozenset()
) -> list[str]:
    """What differs by more than ``tolerance`` of its largest value; one line each.

    A gradient much smaller than the others has lost digits to cancellation in either; it is
    measured by a hundredth of the largest gradient.
    """
    if set(actual) != set(expected):
        return [f"there should be {sorted(expected)}, there are {sorted(actual)}"]
    gradients = [np.abs(a).max(initial=0) for name, a in expected.items() if name[0] == "d"]
    floor = 0.01 * max(gradients, default=0)
    found = []
    for name, wanted in expected.items():
        got = actual[name]
        if got.shape != wanted.shape:
            found.append(f"{name}: shape {got.shape} instead of {wanted.shape}")
            continue
        wanted = np.zeros_like(wanted) if name in zero else wanted
        scale = max(np.abs(wanted).max(initial=0), floor if name[0] == "d" else 0)
        error = np.abs(got - wanted).max(initial=0)
        if not error <= tolerance * scale:
            found.append(f"{name}: off by {error:.2e} of {scale:.2e}")
    return found
