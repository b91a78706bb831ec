"""A chain against Paddle's own layers: the same numbers, forward and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stock import ACTIVATIONS, Stack, Step, differences, normal, step, tensor, vanishing

DOUBLE = 1e-9
SINGLE = 2e-4


@dataclass(frozen=True)
class Case:
    """A drawn chain and what it is used on."""

    units: list[dict[str, Any]]
    shape: tuple[int, int, int, int]
    frozen: list[bool]  # one for each normalisation: by running statistics
    shortcut: str  # "", "x" or "other"
    share: float | None  # of the channels, that the shortcut carries
    channels_last: bool
    seed: int

    def stack(self) -> Stack:
        stack = Stack(self.seed)
        for unit in self.units:
            stack.squeeze(**unit) if "reduced" in unit else stack.conv(**unit)
        for norm, frozen in zip(stack.norms, self.frozen, strict=False):
            norm.eval() if frozen else norm.train()
        return stack

    def inputs(self, stack: Stack) -> tuple[Any, Any, int | None]:
        """The input, the shortcut and the channels that it carries."""
        x = tensor(normal(self.shape, self.seed), stack.dtype, self.channels_last)
        shape = stack.output_shape(x)
        carried = None if self.share is None else max(1, int(self.share * shape[1]))
        if self.shortcut == "x" and shape == self.shape:
            return x, x, carried
        if self.shortcut:
            other = tensor(normal(shape, self.seed + 1), stack.dtype, not self.channels_last)
            return x, other, carried
        return x, None, None

    def is_well_posed(self, margin: float) -> bool:
        """Whether rounding cannot change the result by more than rounding.

        Two values normalised are plus and minus one whatever they were: their gradient is made of
        rounding, and a second normalisation would enlarge it.
        """
        stack = self.stack()
        x, _, _ = self.inputs(stack)
        counts = stack.values_a_channel(x)
        return (2 not in counts or len(counts) == 1) and stack.corner_distance(x) > margin


def side(length: int, kernel: int, stride: int, margins: Any) -> int:
    """Length of the output along one side."""
    if margins == "SAME":
        return -(-length // stride)
    before, behind = (0, 0) if margins == "VALID" else margins
    return (length + before + behind - kernel) // stride + 1


@st.composite
def convolutions(draw: st.DrawFn, channels: int, height: int, width: int) -> Any:
    """Arguments of ``Stack.conv``, and channels, height and width of what comes out."""
    kind = draw(st.sampled_from(["depthwise", "depthwise", "pointwise", "dense", "grouped"]))
    kernel = 1 if kind == "pointwise" else draw(st.sampled_from([3, 3, 5, 7, 1]))
    stride = draw(st.sampled_from([1, 1, 2]))
    out, groups = draw(st.integers(1, 40)), 1
    if kind == "depthwise":
        out = groups = channels
    elif kind == "grouped":
        groups = draw(st.sampled_from([g for g in (1, 2, 3, 5, channels) if channels % g == 0]))
        out = groups * draw(st.integers(1, max(1, 40 // groups)))
    margin = st.integers(0, kernel)
    kinds = ["usual", "usual", "SAME", "VALID", "any"] if kernel > 1 else ["usual", "SAME", "any"]
    padding: Any = draw(st.sampled_from(kinds))
    sides: Any = (padding, padding)
    if padding == "usual":
        padding, sides = kernel // 2, ((kernel // 2,) * 2,) * 2
    elif padding == "any":
        padding = draw(st.lists(margin, min_size=2, max_size=2) | st.lists(margin, min_size=4, max_size=4))
        sides = (padding[:2], padding[2:]) if len(padding) == 4 else ([padding[0]] * 2, [padding[1]] * 2)
    one_sided = kernel == 1 and sides[0][0] == sides[1][0] == 0 != sides[0][1] + sides[1][1]
    assume(not one_sided)
    size = [side(n, kernel, stride, m) for n, m in zip((height, width), sides, strict=True)]
    assume(min(size) > 0)
    norms = [True, True, False, {"epsilon": 0.1, "momentum": 0.7}, {"weight_attr": False, "bias_attr": False}]
    arguments = {
        "channels_in": channels,
        "channels_out": out,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "groups": groups,
        "norm": draw(st.sampled_from(norms)),
        "act": draw(st.sampled_from([*ACTIVATIONS])),
        "bias": draw(st.booleans()),
    }
    return arguments, (out, *size)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    side_length = st.integers(1, 17)
    batch, size = draw(st.integers(1, 3)), (
        draw(st.integers(1, 40)),
        draw(side_length),
        draw(side_length),
    )
    shape = (batch, *size)
    units: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 4))):
        gated = units and "reduced" in units[-1]
        if not gated and draw(st.integers(0, 4)) == 4:
            act, reduced = draw(st.sampled_from(["ReLU", "Hardswish", "Silu"])), draw(st.integers(1, 12))
            units.append({"channels": size[0], "reduced": reduced, "act": act, "hard": draw(st.booleans())})
        else:
            unit, size = draw(convolutions(*size))
            units.append(unit)
    return Case(
        units,
        shape,
        frozen=draw(st.sampled_from([[False] * 4, [True] * 4]) | st.lists(st.booleans(), min_size=4, max_size=4)),
        shortcut=draw(st.sampled_from(["", "x", "other"])),
        share=draw(st.none() | st.floats(0, 1)),
        channels_last=draw(st.booleans()),
        seed=draw(st.integers(0, 999)),
    )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
def test_double_precision(case):
    assume(case.is_well_posed(1e-9))
    stack = case.stack()
    inputs = case.inputs(stack)
    zero = vanishing(stack, inputs[0])
    expected = step(stack, stack.stock, *inputs)
    actual = step(stack, stack.chain, *inputs)
    assert differences(actual, expected, DOUBLE, zero) == []
