"""The names that other libraries give to the parameters of ``resnet.ResNet``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ppcls.backbones.naming import Naming, Rule


def resnet_namings(
    depths: Sequence[int], deep_stem: bool, pooled_shortcut: bool, squeeze: bool
) -> list[Naming]:
    """PaddleClas, in its two styles; torchvision, or timm for what only timm has.

    Plain networks have the same names in torchvision and timm.

    Args:
        depths: blocks of each stage.
        deep_stem, pooled_shortcut, squeeze: as for ``ResNet``.
    """
    only_timm = deep_stem or pooled_shortcut or squeeze
    return [
        Naming("PaddleClas", numbered_through(depths)),
        Naming("PaddleClas", numbered_by_stage(deep_stem)),
        Naming(
            "timm" if only_timm else "torchvision",
            torch_rules(deep_stem, pooled_shortcut),
            torch=True,
        ),
    ]


def numbered_through(depths: Sequence[int]) -> list[Rule]:
    """PaddleClas's ResNet and ResNet-D."""

    def block(match: re.Match[str]) -> str:
        return f"blocks.{sum(depths[: int(match[1])]) + int(match[2])}."

    return [
        (r"^classifier\.", "fc."),
        (r"^stages\.(\d+)\.(\d+)\.", block),
        (r"\.path\.conv(\d)\.", _from_zero),
        (r"\.shortcut\.conv\.", ".short."),
        (r"\.norm\.", ".bn."),
    ]


def numbered_by_stage(deep_stem: bool) -> list[Rule]:
    """PaddleClas's ResNeXt, ResNet-C and SE-ResNet."""

    def stem(match: re.Match[str]) -> str:
        return f"conv1_{int(match[1]) + 1}." if deep_stem else "conv."

    return [
        (r"^classifier\.", "out."),
        (r"^stem\.(\d)\.", stem),
        (r"^stages\.(\d+)\.(\d+)\.", r"bb_\1_\2."),
        (r"\.path\.conv(\d)\.", _from_zero),
        (r"\.shortcut\.conv\.", ".short."),
        (r"\.conv\.", "._conv."),
        (r"\.norm\.", "._batch_norm."),
        (r"\.path\.squeeze\.reduce\.", ".scale.squeeze."),
        (r"\.path\.squeeze\.expand\.", ".scale.excitation."),
    ]


def torch_rules(deep_stem: bool, pooled_shortcut: bool) -> list[Rule]:
    """torchvision's and timm's."""

    def stem(match: re.Match[str]) -> str:
        """A deep stem is one sequence: convolution, norm, activation, and so on."""
        is_norm = match[2] == "norm"
        if not deep_stem or (match[1], match[2]) == ("2", "norm"):
            return "bn1." if is_norm else "conv1."
        return f"conv1.{3 * int(match[1]) + is_norm}."

    pools = int(pooled_shortcut)
    return [
        (r"^classifier\.", "fc."),
        (r"^stem\.(\d)\.(conv|norm)\.", stem),
        (r"^stages\.(\d+)\.", lambda match: f"layer{int(match[1]) + 1}."),
        (r"\.path\.conv(\d)\.conv\.", r".conv\1."),
        (r"\.path\.conv(\d)\.norm\.", r".bn\1."),
        (r"\.path\.squeeze\.reduce\.", ".se.fc1."),
        (r"\.path\.squeeze\.expand\.", ".se.fc2."),
        (r"\.shortcut\.conv\.conv\.", f".downsample.{pools}."),
        (r"\.shortcut\.conv\.norm\.", f".downsample.{pools + 1}."),
    ]


def _from_zero(match: re.Match[str]) -> str:
    """PaddleClas counts a path's convolutions from 0."""
    return f".conv{int(match[1]) - 1}."
