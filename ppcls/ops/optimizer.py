"""An optimizer's step over all parameters in one call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import paddle

from ppcls.ops.library import kernels, thread_count


class ParameterStruct(ctypes.Structure):
    """``Parameter`` of ``csrc/optimizer.cc``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("value", "velocity", "gradient")),
        ("size", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("decay", "share")),
    )


@dataclass
class Slot:
    """A parameter, its velocity, its L2 coefficient and its own factor of the learning rate."""

    parameter: paddle.Tensor
    velocity: paddle.Tensor
    decay: float
    share: float


class FusedMomentum:
    """Momentum over 32-bit parameters on a CPU, in place.

    Args:
        slots: what to update.
        momentum: factor of the velocity.
        use_nesterov: take Nesterov's step.
    """

    def __init__(self, slots: Sequence[Slot], momentum: float, use_nesterov: bool):
        self._slots = list(slots)
        self._momentum = momentum
        self._use_nesterov = use_nesterov

    def step(self, rate: float) -> None:
        """Updates every parameter that has a gradient."""
        structs = (ParameterStruct * len(self._slots))()
        gradients: list[paddle.Tensor] = []  # kept alive until the call is over
        for slot in self._slots:
            gradient = slot.parameter.grad
            if gradient is None:
                continue
            gradient = gradient.contiguous()
            struct = structs[len(gradients)]
            gradients.append(gradient)
            struct.value = slot.parameter.data_ptr()
            struct.velocity = slot.velocity.data_ptr()
            struct.gradient = gradient.data_ptr()
            struct.size = slot.parameter.size
            struct.decay, struct.share = slot.decay, slot.share
        kernels("float32").momentum(
            ctypes.cast(structs, ctypes.c_void_p),
            len(gradients),
            rate,
            self._momentum,
            self._use_nesterov,
            thread_count(),
        )
