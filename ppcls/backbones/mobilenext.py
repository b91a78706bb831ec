"""MobileNeXt: "Rethinking Bottleneck Structure for Efficient Mobile Network Design".

Zhou, Hou, Chen, Feng, Yan. ECCV 2020, https://arxiv.org/abs/2007.02269. What is special: the
sandglass block turns the inverted residual around. The shortcut joins the wide ends, both
depthwise convolutions work on the wide ends, and the bottleneck between them is linear.
"""

from __future__ import annotations

import math
from typing import Annotated

import paddle
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Backbone, FeatureInfo
from ppcls.backbones.layers import DataFormat, ResidualPath, he_initialise, make_divisible, rising
from ppcls.registry import BACKBONES

# Table 3 of the paper. t: reduction of the bottleneck, c: width, n: blocks, s: stride of the first
STAGES = [
    # t,    c, n, s
    [2, 96, 1, 2],
    [6, 144, 1, 1],
    [6, 192, 3, 2],
    [6, 288, 3, 2],
    [6, 384, 4, 1],
    [6, 576, 4, 2],
    [6, 960, 3, 1],
    [6, 1280, 1, 1],
]
STEM_WIDTH = 32

VARIANTS = {
    "MobileNeXt_x0_1": {"width": 0.1, "divisor": 4},
    "MobileNeXt_x0_35": {"width": 0.35},
    "MobileNeXt_x0_5": {"width": 0.5},
    "MobileNeXt_x0_75": {"width": 0.75},
    "MobileNeXt_x1_0": {"width": 1.0},
    "MobileNeXt_x1_4": {"width": 1.4},
}
ALIASES = {
    "MobileNeXt_35": "MobileNeXt_x0_35",
    "MobileNeXt_50": "MobileNeXt_x0_5",
    "MobileNeXt_75": "MobileNeXt_x0_75",
    "MobileNeXt_100": "MobileNeXt_x1_0",
    "MobileNeXt_140": "MobileNeXt_x1_4",
}


def depthwise(channels: int, stride: int = 1) -> list[nn.Layer]:
    """3x3 depthwise convolution and normalisation."""
    return [
        nn.Conv2D(channels, channels, 3, stride, padding=1, groups=channels, bias_attr=False),
        nn.BatchNorm2D(channels),
    ]


def pointwise(channels_in: int, channels_out: int) -> list[nn.Layer]:
    """1x1 convolution and normalisation."""
    return [nn.Conv2D(channels_in, channels_out, 1, bias_attr=False), nn.BatchNorm2D(channels_out)]


class SandglassBlock(nn.Layer):
    """Depthwise - reduce (linear) - expand - depthwise (linear), Section 3.2 and Figure 3(c).

    Where a stage of several blocks changes its width, the published networks leave out the first
    depthwise convolution, and at stride 1 also the second.

    Args:
        channels_in, channels_out: widths of the two ends.
        stride: 1 or 2, of the second depthwise convolution.
        reduction: the bottleneck is ``channels_in / reduction`` wide.
        keep_depthwise: keep both depthwise convolutions although the width changes.
        identity_share: the share of the channels that the shortcut carries (Section 3.3).
        drop_path: probability of leaving out the path for an image in training.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        reduction: int,
        keep_depthwise: bool,
        identity_share: float,
        drop_path: float = 0.0,
    ):
        super().__init__()
        hidden = channels_in // reduction
        if hidden < channels_out / 6:
            hidden = make_divisible(math.ceil(channels_out / 6), 16)
        same_width = channels_in == channels_out
        bottleneck = [
            *pointwise(channels_in, hidden),
            *pointwise(hidden, channels_out),
            nn.ReLU6(),
        ]
        if same_width or keep_depthwise:
            layers = [*depthwise(channels_in), nn.ReLU6(), *bottleneck]
        else:
            layers = bottleneck
        if same_width or keep_depthwise or stride == 2:
            layers = [*layers, *depthwise(channels_out, stride)]
        self.conv = ResidualPath(*layers, drop_path=drop_path)
        has_shortcut = same_width and stride == 1
        carried = max(1, math.floor(channels_out * identity_share + 1e-6))
        self.identity_channels = carried if has_shortcut else 0

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        if self.identity_channels == 0:
            return self.conv(x)
        return self.conv(x, shortcut=x, carried=self.identity_channels)


@BACKBONES.register_variants(VARIANTS, ALIASES)
class MobileNeXt(Backbone):
    """MobileNeXt of any width.

    Args:
        class_num: number of classes.
        width: multiplier of every stage's width; below 1.0 the last stage stays 1280 wide.
        divisor: widths are rounded to multiples of it.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        identity_tensor_multiplier: the share of the channels that each shortcut carries; a
            smaller share saves memory traffic at little cost (Section 3.3, Table 7).
        drop_path_rate: of leaving out the last block for an image; rises to it from 0.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        width: Annotated[float, Field(gt=0)] = 1.0,
        divisor: Annotated[int, Field(ge=1)] = 8,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        identity_tensor_multiplier: Annotated[float, Field(gt=0, le=1)] = 1.0,
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        self.class_num = class_num
        stem_width = make_divisible(STEM_WIDTH * width, divisor)
        blocks: list[nn.Layer] = [
            nn.Sequential(
                nn.Conv2D(in_channels, stem_width, 3, stride=2, padding=1, bias_attr=False),
                nn.BatchNorm2D(stem_width),
                nn.ReLU6(),
            )
        ]
        self.feature_info = [FeatureInfo(2, stem_width)]
        self._feature_ends = [0]
        rates = iter(rising(drop_path_rate, sum(n for _, _, n, _ in STAGES)))
        channels = stem_width
        for t, c, n, s in STAGES:
            stage_width = make_divisible(c * width, divisor)
            if c == 1280 and width < 1:
                stage_width = c
            for i in range(n):
                stride = s if i == 0 else 1
                blocks.append(
                    SandglassBlock(
                        channels,
                        stage_width,
                        stride,
                        t,
                        keep_depthwise=t == 2 or n == s == 1,
                        identity_share=identity_tensor_multiplier,
                        drop_path=next(rates),
                    )
                )
                channels = stage_width
            if s == 1:
                info = FeatureInfo(self.feature_info.pop().stride, channels)
                self._feature_ends.pop()
            else:
                info = FeatureInfo(self.feature_info[-1].stride * 2, channels)
            self.feature_info.append(info)
            self._feature_ends.append(len(blocks) - 1)
        # `features` is both the published name of these layers and the method of every network:
        # the method is found first, the layers under `blocks`.
        self.add_sublayer("features", nn.Sequential(*blocks))
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.num_features = channels
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, class_num))
        he_initialise(self)
        _initialise_linear(self.classifier[1])
        self.adopt(data_format=data_format)

    @property
    def blocks(self) -> nn.Sequential:
        """The stem and all sandglass blocks, in order."""
        return self._sub_layers["features"]

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Images [N, 3, H, W] -> logits [N, class_num]."""
        return self.classifier(self.pool(self.blocks(self._lay_out(images))).flatten(1))

    def features(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        """Maps of stride 2, 4, 8, 16 and 32; widths in ``feature_info``."""
        maps = []
        x = self._lay_out(images)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self._feature_ends:
                maps.append(self._channels_first(x))
        return maps

    def reset_classifier(self, class_num: int) -> None:
        """Replaces the classifier by a freshly initialised one for ``class_num`` classes."""
        self.class_num = class_num
        self.classifier[1] = nn.Linear(self.num_features, class_num)
        _initialise_linear(self.classifier[1])

    def classifier_names(self) -> set[str]:
        """State-dict names of the classifier."""
        return {"classifier.1.weight", "classifier.1.bias"}

    def no_weight_decay(self) -> set[str]:
        """Norm parameters and biases, which the published recipe does not decay."""
        return {name for name, p in self.named_parameters() if p.ndim == 1}


def _initialise_linear(linear: nn.Linear) -> None:
    nn.initializer.Normal(0.0, 0.01)(linear.weight)
    nn.initializer.Constant(0.0)(linear.bias)
