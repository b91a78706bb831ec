"""A network of few layers, for tests that run much or compare to the last digits."""

from __future__ import annotations

from paddle import nn

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import ConvNorm, DropPath, PoolToVector
from ppcls.registry import BACKBONES, Entry


class Small(StagedBackbone):
    """All smooth: rounding stays as small as it is, and no unit flips."""

    def __init__(self, class_num: int = 3, dropout: float = 0.0, drop_path_rate: float = 0.0):
        super().__init__()
        stem, last = (ConvNorm(c, d, 3, 2, act=nn.Silu) for c, d in ((3, 8), (8, 16)))
        stages = [Stage(nn.Sequential(last, DropPath(drop_path_rate)), 16, 2)]
        self.assemble(Stage(stem, 8, 2), stages, PoolToVector(), 16, class_num, dropout)
        self.arch_name = "Small"


def register(monkeypatch) -> None:
    """Makes ``Arch.name: Small`` known for the time of a test."""
    monkeypatch.setitem(BACKBONES._entries, "Small", Entry("Small", Small))
