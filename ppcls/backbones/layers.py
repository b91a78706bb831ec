"""Layers that several families share."""

from __future__ import annotations

import paddle
from paddle import nn


def make_divisible(width: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``width``, at least ``divisor`` and 0.9 ``width``.

    The rounding rule of the MobileNet papers' reference code, kept because the published
    weights of every width depend on it.
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * width else rounded + divisor


class ResidualPath(nn.Sequential):
    """Layers one after the other; then, if one is given, a shortcut is added.

    The sum is part of the path so that a CPU can do both in one go.
    """

    def forward(
        self, x: paddle.Tensor, shortcut: paddle.Tensor | None = None, carried: int | None = None
    ) -> paddle.Tensor:
        """Maps x through the layers and adds the first ``carried`` channels of the shortcut."""
        for layer in self:
            x = layer(x)
        return x if shortcut is None else self.add(x, shortcut, carried)

    @staticmethod
    def add(x: paddle.Tensor, shortcut: paddle.Tensor, carried: int | None) -> paddle.Tensor:
        """x + shortcut on the first ``carried`` channels (all if None), x on the others."""
        if carried is None or carried == x.shape[1]:
            return x + shortcut
        return paddle.concat([x[:, :carried] + shortcut[:, :carried], x[:, carried:]], axis=1)
