"""Layers that several families share."""

from __future__ import annotations


def make_divisible(width: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``width``, at least ``divisor`` and 0.9 ``width``.

    The rounding rule of the MobileNet papers' reference code, kept because the published
    weights of every width depend on it.
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * width else rounded + divisor
