"""MobileNetV1: "Efficient Convolutional Neural Networks for Mobile Vision Applications".

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam. 2017,
https://arxiv.org/abs/1704.04861. What is special: a convolution falls into a depthwise one, which
filters each channel alone, and a pointwise one, which mixes them, at an eighth of the cost.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import ConvNorm, DataFormat, PoolToVector, he_initialise
from ppcls.backbones.naming import Naming
from ppcls.registry import BACKBONES

# Table 1 of the paper. c: width, n: blocks, s: stride of the first
STAGES = [
    # c,  n, s
    [64, 1, 1],
    [128, 2, 2],
    [256, 2, 2],
    [512, 6, 2],
    [1024, 2, 2],
]
STEM_WIDTH = 32

VARIANTS = {
    "MobileNetV1_x0_25": {"width": 0.25},
    "MobileNetV1_x0_5": {"width": 0.5},
    "MobileNetV1_x0_75": {"width": 0.75},
    "MobileNetV1": {"width": 1.0},
}
ALIASES = {"MobileNetV1_x1_0": "MobileNetV1"}

ACTIVATIONS: dict[str, type[nn.Layer]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}


class DepthwiseSeparable(nn.Sequential):
    """Depthwise - pointwise, each with normalisation and activation, Figure 3 (right).

    Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride].
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, act: type[nn.Layer]):
        super().__init__(
            ("depthwise", ConvNorm(channels_in, channels_in, 3, stride, channels_in, act)),
            ("pointwise", ConvNorm(channels_in, channels_out, act=act)),
        )


@BACKBONES.register_variants(VARIANTS, ALIASES)
class MobileNetV1(StagedBackbone):
    """MobileNetV1 of any width.

    Args:
        class_num: number of classes.
        width: multiplier of every width (the paper's alpha); fractions are cut off.
        act: the activation everywhere. The paper and the weights of PaddleClas have ``relu``, the
            paper's code and the weights of timm ``relu6``.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        width: Annotated[float, Field(gt=0)] = 1.0,
        act: Literal["relu", "relu6"] = "relu",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        act_type = ACTIVATIONS[act]
        channels = max(1, int(STEM_WIDTH * width))
        stem = Stage(ConvNorm(in_channels, channels, 3, 2, act=act_type), channels, 2)
        stages = []
        for c, n, s in STAGES:
            blocks = nn.Sequential()
            for i in range(n):
                block = DepthwiseSeparable(
                    channels, max(1, int(c * width)), s if i == 0 else 1, act_type
                )
                blocks.add_sublayer(str(i), block)
                channels = max(1, int(c * width))
            stages.append(Stage(blocks, channels, s))
        self.assemble(stem, stages, PoolToVector(), channels, class_num, dropout)
        he_initialise(self, per_group=True)  # as PaddleClas does
        self.adopt(act=act, data_format=data_format)

    def set_own(self, name: str, value: Any) -> bool:
        """``act`` exchanges all activations."""
        if name != "act":
            return False
        for layer in self.sublayers():
            if isinstance(layer, ConvNorm):
                layer.act = ACTIVATIONS[value]()
        return True

    def namings(self) -> list[Naming]:
        """PaddleClas (blocks numbered through) and timm."""
        return [
            Naming(
                "PaddleClas",
                [
                    (r"^stem\.", "conv."),
                    (r"^classifier\.", "fc."),
                    (r"^stages\.(\d+)\.(\d+)\.", _published_block),
                    (r"\.(depthwise|pointwise)\.", r".\1_conv."),
                    (r"\.norm\.", ".bn."),
                ],
            ),
            Naming(
                "timm",
                [
                    (r"^stem\.conv", "conv_stem"),
                    (r"^stem\.norm", "bn1"),
                    (r"^stages\.", "blocks."),
                    (r"\.depthwise\.conv", ".conv_dw"),
                    (r"\.depthwise\.norm", ".bn1"),
                    (r"\.pointwise\.conv", ".conv_pw"),
                    (r"\.pointwise\.norm", ".bn2"),
                ],
                torch=True,
                settings={"act": "relu6"},
            ),
        ]


def _published_block(match: re.Match[str]) -> str:
    before = sum(n for _, n, _ in STAGES[: int(match[1])])
    return f"blocks.{before + int(match[2])}."
