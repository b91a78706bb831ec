"""``Global.to_static``: training runs the network as a compiled program."""

from __future__ import annotations

import warnings
from typing import Any

import paddle
from paddle import nn


class _Whole(nn.Layer):
    """What is traced: a layer around the network, so that the network itself stays dynamic.

    A traced one would go the way of training in evaluation, too.
    """

    def __init__(self, trained: nn.Layer):
        super().__init__()
        self.trained = trained

    def forward(self, images: paddle.Tensor) -> Any:
        """What ``trained`` gives."""
        return self.trained(images)


class Compiled(nn.Layer):
    """Runs a layer as a program; for training only.

    It is traced for each shape of a batch, and again when something about its parts has changed
    that a program holds fixed: a rate of dropout, a layer that is frozen. Parameters, buffers and
    their names stay as they are, and the layer is still to be evaluated, saved and exported.

    Where gradients add up (``Global.update_freq``), a batch of another shape than the first of its
    group, as an epoch's last one, runs without a program: the first gradients of a new program
    would take the place of those that wait, as Paddle marks them as empty when it makes one.

    Args:
        trained: the layer.
    """

    def __init__(self, trained: nn.Layer):
        super().__init__()
        self.trained = trained
        self._traced_for: Any = None
        self._shape: list[int] = []
        self._program: Any = None

    def forward(self, images: paddle.Tensor) -> Any:
        """What ``trained`` gives."""
        if all(parameter.grad is None for parameter in self.trained.parameters()):
            self._shape = images.shape
        elif images.shape != self._shape:
            return self.trained(images)
        now = _fixed(self.trained)
        if self._traced_for != now:
            whole = paddle.jit.to_static(_Whole(self.trained), full_graph=True)
            # In a list, it is no part of this layer: parameters have one name.
            self._traced_for, self._program = now, [whole]
        with warnings.catch_warnings():  # of Paddle about itself, while it traces
            warnings.filterwarnings("ignore", "Tensor do not have 'place'")
            return self._program[0](images)


def _fixed(layer: nn.Layer) -> list[tuple[Any, ...]]:
    """What a program does not look up when it runs: plain values, and which parameters train."""
    plain = (bool, int, float, str)
    values = [
        tuple(v for k, v in vars(x).items() if isinstance(v, plain) and k != "_built")
        for x in layer.sublayers(include_self=True)  # Paddle sets `_built` at the first call
    ]
    return [*values, tuple(p.stop_gradient for p in layer.parameters())]
