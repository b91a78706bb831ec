"""Chains of every kind that the kernels know, for Hypothesis to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from stock import ACTIVATIONS, Look, Stack, normal, tensor

CHANNELS = st.integers(1, 40)
SIDES = st.integers(1, 17)
NORMS = [
    True,
    True,
    False,
    {"epsilon": 0.1, "momentum": 0.7},
    {"weight_attr": False, "bias_attr": False},
]


@dataclass(frozen=True)
class Case:
    """A chain and what it is used on.

    Attributes:
        units: arguments of ``Stack.conv`` or ``Stack.squeeze``.
        shape: of the input.
        trained: of each normalisation, whether it is in training mode.
        shortcut: "", "x" (if the chain keeps the shape) or "other".
        share: the part of the channels that the shortcut carries; None for all.
        channels_last: the memory of the input; that of another shortcut is the opposite.
        seed: of all values.
    """

    units: list[dict[str, Any]]
    shape: tuple[int, int, int, int]
    trained: list[bool]
    shortcut: str
    share: float | None
    channels_last: bool
    seed: int

    def stack(self) -> Stack:
        stack = Stack(self.seed)
        for unit in self.units:
            stack.squeeze(**unit) if "reduced" in unit else stack.conv(**unit)
        return stack.train(*self.trained)

    def x(self, stack: Stack) -> Any:
        return tensor(normal(self.shape, self.seed), stack.dtype, self.channels_last)

    def inputs(self, stack: Stack, look: Look) -> tuple[Any, Any, int | None]:
        """The input, the shortcut, and how many channels it carries."""
        x = self.x(stack)
        carried = None if self.share is None else max(1, int(self.share * look.shape[1]))
        if self.shortcut == "x" and look.shape == self.shape:
            return x, x, carried
        if self.shortcut:
            values = normal(look.shape, self.seed + 1)
            return x, tensor(values, stack.dtype, not self.channels_last), carried
        return x, None, None


def is_well_posed(look: Look, margin: float) -> bool:
    """Whether rounding changes the result by no more than rounding.

    Two values normalised are plus and minus one whatever they were; their gradient is made of
    what rounding leaves, and a further normalisation enlarges it.
    """
    return (2 not in look.counts or len(look.counts) == 1) and look.corner > margin


def _length(length: int, kernel: int, stride: int, margins: Any) -> int:
    """One side of the output."""
    if margins == "SAME":
        return -(-length // stride)
    before, behind = (0, 0) if margins == "VALID" else margins
    return (length + before + behind - kernel) // stride + 1


@st.composite
def _paddings(draw: st.DrawFn, kernel: int) -> tuple[Any, list[Any]]:
    """A convolution's argument, and what it means for either side."""
    kind = draw(st.sampled_from(["usual", "usual", "SAME", "VALID", "two", "four"]))
    if kind == "usual":
        return kernel // 2, [(kernel // 2, kernel // 2)] * 2
    if kind in ("SAME", "VALID"):
        return kind, [kind, kind]
    margin = st.integers(0, kernel)
    if kind == "two":
        pair = [draw(margin), draw(margin)]
        return pair, [(n, n) for n in pair]
    four = [draw(margin) for _ in range(4)]
    return four, [tuple(four[:2]), tuple(four[2:])]


@st.composite
def _convolutions(draw: st.DrawFn, channels: int, height: int, width: int) -> Any:
    """Arguments of ``Stack.conv``, and channels, height and width of what comes out."""
    kind = draw(st.sampled_from(["depthwise", "depthwise", "pointwise", "dense", "grouped"]))
    kernel = 1 if kind == "pointwise" else draw(st.sampled_from([3, 3, 5, 7, 1]))
    stride = draw(st.sampled_from([1, 1, 2]))
    out, groups = draw(CHANNELS), 1
    if kind == "depthwise":
        out = groups = channels
    elif kind == "grouped":
        groups = draw(st.sampled_from([g for g in (1, 2, 3, 5, channels) if channels % g == 0]))
        out = groups * draw(st.integers(1, max(1, 40 // groups)))
    padding, margins = draw(_paddings(kernel))
    size = [_length(n, kernel, stride, m) for n, m in zip((height, width), margins, strict=True)]
    assume(min(size) > 0)
    arguments = {
        "channels_in": channels,
        "channels_out": out,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "groups": groups,
        "norm": draw(st.sampled_from(NORMS)),
        "act": draw(st.sampled_from([*ACTIVATIONS])),
        "bias": draw(st.booleans()),
    }
    return arguments, (out, *size)


@st.composite
def _squeezes(draw: st.DrawFn, channels: int) -> dict[str, Any]:
    act = draw(st.sampled_from(["ReLU", "ReLU6", "Hardswish", "Silu"]))
    reduced, hard = draw(st.integers(1, 12)), draw(st.booleans())
    return {"channels": channels, "reduced": reduced, "act": act, "hard": hard}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One to four units; a squeeze-excitation may stand anywhere but behind another one."""
    batch = draw(st.integers(1, 3))
    size = first = draw(st.tuples(CHANNELS, SIDES, SIDES))
    units: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 4))):
        gated = units and "reduced" in units[-1]
        if not gated and draw(st.integers(0, 3)) == 3:
            units.append(draw(_squeezes(size[0])))
        else:
            unit, size = draw(_convolutions(*size))
            units.append(unit)
    modes = st.sampled_from([[True], [False]]) | st.lists(st.booleans(), min_size=4, max_size=4)
    return Case(
        units,
        (batch, *first),
        trained=draw(modes),
        shortcut=draw(st.sampled_from(["", "x", "other"])),
        share=draw(st.none() | st.floats(0, 1)),
        channels_last=draw(st.booleans()),
        seed=draw(st.integers(0, 999)),
    )
