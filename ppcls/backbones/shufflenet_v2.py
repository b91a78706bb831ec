"""ShuffleNetV2: "Practical Guidelines for Efficient CNN Architecture Design".

Ma, Zhang, Zheng, Sun. ECCV 2018, https://arxiv.org/abs/1807.11164. What is special: a unit splits
the channels, works on one half, joins the halves and shuffles them, so that there is no sum, no
grouped pointwise convolution, and all pointwise convolutions are as wide as their input.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import paddle
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import (
    ConvNorm,
    DataFormat,
    PoolToVector,
    channel_axis,
    he_initialise,
)
from ppcls.backbones.naming import Naming
from ppcls.registry import BACKBONES

# Units of stages 2, 3 and 4: Table 5 of the paper. The first of each has stride 2.
REPEATS = [4, 8, 4]
# Widths of the stem, stages 2, 3 and 4, and the last convolution: the same table. 0.25, 0.33 and
# swish are PaddleClas's.
VARIANTS: dict[str, dict[str, Any]] = {
    "ShuffleNetV2_x0_25": {"widths": [24, 24, 48, 96, 512]},
    "ShuffleNetV2_x0_33": {"widths": [24, 32, 64, 128, 512]},
    "ShuffleNetV2_x0_5": {"widths": [24, 48, 96, 192, 1024]},
    "ShuffleNetV2_x1_0": {"widths": [24, 116, 232, 464, 1024]},
    "ShuffleNetV2_x1_5": {"widths": [24, 176, 352, 704, 1024]},
    "ShuffleNetV2_x2_0": {"widths": [24, 244, 488, 976, 2048]},
    "ShuffleNetV2_swish": {"widths": [24, 116, 232, 464, 1024], "act": "swish"},
}
ACTIVATIONS: dict[str, type[nn.Layer]] = {"relu": nn.ReLU, "swish": nn.Swish}


class ShuffleUnit(nn.Layer):
    """Split - pointwise - depthwise - pointwise - join - shuffle, Figure 3(c) and (d).

    With stride 2 nothing is split: both branches see all channels, and the other one has a
    depthwise and a pointwise convolution, too.

    Args:
        channels_in, channels_out: widths of the map; equal with stride 1, ``channels_out`` even.
        stride: of the depthwise convolutions.
        act: class of the activation behind the pointwise convolutions.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, act: type[nn.Layer]):
        super().__init__()
        half = channels_out // 2
        self.data_format: DataFormat = "NCHW"
        self.has_shortcut = stride == 2
        if self.has_shortcut:
            self.shortcut = nn.Sequential(
                ("depthwise", ConvNorm(channels_in, channels_in, 3, stride, groups=channels_in)),
                ("project", ConvNorm(channels_in, half, act=act)),
            )
        self.path = nn.Sequential(
            ("expand", ConvNorm(channels_in if self.has_shortcut else half, half, act=act)),
            ("depthwise", ConvNorm(half, half, 3, stride, groups=half)),
            ("project", ConvNorm(half, half, act=act)),
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        axis = channel_axis(self.data_format)
        if self.has_shortcut:
            other = self.shortcut(x)
        else:
            other, x = paddle.chunk(x, 2, axis=axis)
        return self.shuffle(paddle.concat([other, self.path(x)], axis=axis))


@BACKBONES.register_variants(VARIANTS)
class ShuffleNetV2(StagedBackbone):
    """ShuffleNetV2 of any width.

    Args:
        class_num: number of classes.
        widths: of the stem, stages 2, 3 and 4, and the last convolution; those of stages even.
        act: the activation.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        widths: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=5, max_length=5)],
        class_num: Annotated[int, Field(ge=1)] = 1000,
        act: Literal["relu", "swish"] = "relu",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        layer = ACTIVATIONS[act]
        channels, *stage_widths, num_features = widths
        stem = Stage(ConvNorm(in_channels, channels, 3, 2, act=layer), channels, 2)
        # The pooling counts as a stage, so that `stages.1` is stage 2, and the map before it
        # is one of `features`.
        stages = [Stage(nn.MaxPool2D(3, 2, padding=1), channels, 2)]
        for width, repeats in zip(stage_widths, REPEATS, strict=True):
            units = [ShuffleUnit(channels, width, 2, layer)]
            units += [ShuffleUnit(width, width, 1, layer) for _ in range(repeats - 1)]
            stages.append(Stage(nn.Sequential(*units), width, 2))
            channels = width
        head = nn.Sequential(
            ("conv", ConvNorm(channels, num_features, act=layer)), ("pool", PoolToVector())
        )
        self.assemble(stem, stages, head, num_features, class_num, dropout)
        he_initialise(self)
        self.adopt(data_format=data_format)

    def namings(self) -> list[Naming]:
        """PaddleClas and torchvision."""
        return [
            Naming(
                "PaddleClas",
                [
                    (r"^stem\.", "_conv1."),
                    (r"^head\.conv\.", "_last_conv."),
                    (r"^classifier\.", "_fc."),
                    (r"^stages\.(\d+)\.(\d+)\.(path|shortcut)\.(\w+)", _published_layer),
                    (r"\.conv\.weight$", "._conv.weight"),
                    (r"\.norm\.", "._batch_norm."),
                ],
            ),
            Naming(
                "torchvision",
                [
                    (r"^stem\.", "conv1."),
                    (r"^head\.conv\.", "conv5."),
                    (r"^classifier\.", "fc."),
                    (r"^stages\.(\d+)\.", lambda match: f"stage{int(match[1]) + 1}."),
                    (r"\.shortcut\.depthwise\.conv", ".branch1.0"),
                    (r"\.shortcut\.depthwise\.norm", ".branch1.1"),
                    (r"\.shortcut\.project\.conv", ".branch1.2"),
                    (r"\.shortcut\.project\.norm", ".branch1.3"),
                    (r"\.path\.expand\.conv", ".branch2.0"),
                    (r"\.path\.expand\.norm", ".branch2.1"),
                    (r"\.path\.depthwise\.conv", ".branch2.3"),
                    (r"\.path\.depthwise\.norm", ".branch2.4"),
                    (r"\.path\.project\.conv", ".branch2.5"),
                    (r"\.path\.project\.norm", ".branch2.6"),
                    (r"\.conv\.weight$", ".0.weight"),
                    (r"\.norm\.", ".1."),
                ],
                torch=True,
            ),
        ]


def _published_layer(match: re.Match[str]) -> str:
    """The branches have a number where there are two of them."""
    stage, unit, branch, layer = int(match[1]) + 1, int(match[2]) + 1, match[3], match[4]
    name = {"expand": "_conv_pw", "depthwise": "_conv_dw", "project": "_conv_linear"}[layer]
    number = "" if unit > 1 else "_1" if branch == "shortcut" else "_2"
    return f"{stage}_{unit}.{name}{number}"
