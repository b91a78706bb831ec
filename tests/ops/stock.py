"""Paddle's own layers, the chain that stands for them, and what a step through either gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.vision.models.mobilenetv3 import SqueezeExcitation

from ppcls.ops.chain import Chain, ConvUnit, SqueezeUnit, Unit
from ppcls.ops.library import HARDSWISH, IDENTITY, RELU, RELU6, SILU

DOUBLE, SINGLE = 1e-9, 2e-4  # tolerances, as a share of the largest value

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
HARD_SIGMOID_SLOPE = float(np.float32(0.1666667))  # as Paddle's operator takes it

Step = dict[str, np.ndarray]
Forward = Callable[..., paddle.Tensor]


class ExactPool(nn.Layer):
    """The mean over a map. Paddle's pooling divides its gradient in single precision."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return x.mean([2, 3], keepdim=True)


@dataclass
class Look:
    """What is known of a pass through a stack.

    Attributes:
        shape: of the output.
        counts: values a channel that each normalisation sees.
        corner: how near a value comes to a corner of its activation without being there.
    """

    shape: tuple[int, ...]
    counts: list[int]
    corner: float


class Stack:
    """Layers one after the other, with weights from a seed: grown by ``conv`` and ``squeeze``."""

    def __init__(self, seed: int = 0):
        self.dtype = "float64"
        self.layers: list[nn.Layer] = []
        self.units: list[Unit] = []
        self._rng = np.random.default_rng(seed)

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
        layers: list[nn.Layer] = [
            nn.Conv2D(
                *(channels_in, channels_out, kernel, stride, padding),
                groups=groups,
                bias_attr=None if bias else False,
            )
        ]
        if norm is not False:
            layers.append(nn.BatchNorm2D(channels_out, **({} if norm is True else norm)))
        unit = ConvUnit(layers[0], layers[1] if norm is not False else None, code)
        self._add(unit, layers + ([act_type()] if act_type else []))
        return self

    def depthwise(self, channels: int, kernel: int = 3, stride: int = 1, **arguments: Any) -> Stack:
        """Adds a depthwise convolution that keeps the size of the map at stride 1."""
        arguments = {"padding": kernel // 2, "groups": channels, **arguments}
        return self.conv(channels, channels, kernel, stride, **arguments)

    def squeeze(self, channels: int, reduced: int, act: str = "ReLU", hard: bool = True) -> Stack:
        """Adds a squeeze-excitation with a hard sigmoid or a sigmoid as its gate."""
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
                value.set_value(self._values(name, value.shape))
        self.units.append(unit)
        self.layers += layers

    def _values(self, name: str, shape: list[int]) -> np.ndarray:
        """Factors and variances about one, weights that keep the spread of what they meet."""
        if name == "_variance" or (name == "weight" and len(shape) == 1):
            return single(self._rng.uniform(0.5, 1.5, shape))
        spread = np.prod(shape[1:]) ** -0.5 if len(shape) == 4 else 0.3
        return single(self._rng.normal(0, spread, shape))

    @property
    def chain(self) -> Chain:
        """The kernels' way through these layers."""
        return Chain(self.units)

    @property
    def norms(self) -> list[nn.BatchNorm2D]:
        return [layer for layer in self.layers if isinstance(layer, nn.BatchNorm2D)]

    def parameters(self) -> dict[str, paddle.Tensor]:
        """By the position of the layer and the name in it."""
        return self._state(lambda name: not name.startswith("_"))

    def statistics(self) -> dict[str, paddle.Tensor]:
        """Running means and variances."""
        return self._state(lambda name: name.startswith("_"))

    def _state(self, wanted: Callable[[str], bool]) -> dict[str, paddle.Tensor]:
        states = [(i, layer.state_dict()) for i, layer in enumerate(self.layers)]
        return {f"{i}.{n}": value for i, s in states for n, value in s.items() if wanted(n)}

    def to(self, dtype: str) -> Stack:
        self.dtype = dtype
        for layer in self.layers:
            layer.to(dtype=dtype)
        return self

    def train(self, *modes: bool) -> Stack:
        """Whether each normalisation is in training mode; the last one said goes for the rest."""
        for i, norm in enumerate(self.norms):
            norm.train() if modes[min(i, len(modes) - 1)] else norm.eval()
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

    def look(self, x: paddle.Tensor) -> Look:
        """A pass on Paddle's way that leaves nothing behind."""
        counts, distances = [], [np.inf]

        def note(layer: nn.Layer, inputs: tuple[paddle.Tensor, ...]) -> None:
            if isinstance(layer, nn.BatchNorm2D):
                counts.append(inputs[0].size // inputs[0].shape[1])
            for corner in CORNERS.get(type(layer), ()):
                distance = np.abs(inputs[0].numpy() - corner)
                distances.append(float(distance[distance > 0].min(initial=np.inf)))

        inner = [part for layer in self.layers for part in layer.sublayers(include_self=True)]
        hooks = [part.register_forward_pre_hook(note) for part in inner]
        with paddle.no_grad(), self.kept_statistics():
            shape = tuple(self.stock(x).shape)
        for hook in hooks:
            hook.remove()
        return Look(shape, counts, min(distances))

    @contextmanager
    def kept_statistics(self) -> Iterator[None]:
        """Puts the running statistics back at the end."""
        before = {name: value.numpy().copy() for name, value in self.statistics().items()}
        try:
            yield
        finally:
            for name, value in self.statistics().items():
                value.set_value(before[name])

    def vanishing(self, x: paddle.Tensor) -> set[str]:
        """Gradients that are zero by mathematics: of biases that a batch's mean takes away."""
        counts, found = iter(self.look(x).counts), set()
        for i, layer in enumerate(self.layers):
            if isinstance(layer, nn.BatchNorm2D):
                frozen = not layer.training or layer._use_global_stats
                if next(counts) > 1 and not frozen:
                    found.add(f"d{i - 1}.bias")
        return found


def single(values: np.ndarray) -> np.ndarray:
    """Values that both precisions can hold."""
    return values.astype(np.float32).astype(np.float64)


def normal(shape: Iterable[int], seed: int = 0) -> np.ndarray:
    return single(np.random.default_rng(seed).normal(0, 1.5, tuple(shape)))


def tensor(values: np.ndarray, dtype: str = "float64", channels_last: bool = False) -> Any:
    """A leaf that wants a gradient; its memory is [N, H, W, C] if asked for."""
    if channels_last:
        dense = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).astype(dtype)
        x = paddle.to_tensor(dense).transpose([0, 3, 1, 2]).detach()
    else:
        x = paddle.to_tensor(values.astype(dtype))
    x.stop_gradient = False
    return x


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
    leaves = {"x": x, **stack.parameters()}
    if shortcut is not None and shortcut is not x:
        leaves["shortcut"] = shortcut
    for leaf in leaves.values():
        leaf.grad = None
    with stack.kept_statistics():
        out = forward(x, shortcut, carried)
        if not out.stop_gradient:
            upstream = paddle.to_tensor(normal(out.shape, seed=99).astype(stack.dtype))
            loss = (out * upstream).sum()
            for i in range(backwards):
                loss.backward(retain_graph=i + 1 < backwards)
        result = {"out": out.numpy()}
        result |= {name: value.numpy().copy() for name, value in stack.statistics().items()}
    for name, leaf in leaves.items():
        if leaf.grad is not None:
            result[f"d{name}"] = leaf.grad.numpy().copy()
    return result


def differences(
    actual: Step,
    expected: Step,
    tolerance: float,
    zero: Iterable[str] = (),
    also_allowed: dict[str, float] | None = None,
) -> list[str]:
    """What differs by more than ``tolerance`` of its largest value; one line each.

    A gradient much smaller than the others has lost digits to cancellation on either way; it is
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
        if not error <= tolerance * scale + (also_allowed or {}).get(name, 0):
            found.append(f"{name}: off by {error:.2e} of {scale:.2e}")
    return found


def compare(stack: Stack, x: paddle.Tensor, *others: Any, tolerance: float = DOUBLE) -> list[str]:
    """What a step through the chain gives that one through the layers does not."""
    expected = step(stack, stack.stock, x, *others)
    actual = step(stack, stack.chain, x, *others)
    return differences(actual, expected, tolerance, stack.vanishing(x))
