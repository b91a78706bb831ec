"""ResNet: "Deep Residual Learning for Image Recognition", and what became of it.

He, Zhang, Ren, Sun. CVPR 2016, https://arxiv.org/abs/1512.03385. What is special: each block adds
to its input instead of replacing it, so that a hundred layers can be trained. Its descendants here:

- C and D ("vc", "vd"): "Bag of Tricks for Image Classification with Convolutional Neural
  Networks", He, Zhang, Zhang, Zhang, Xie, Li. CVPR 2019, https://arxiv.org/abs/1812.01187. C has
  three small convolutions in the stem, D also averages before a shortcut's convolution.
- ResNeXt: "Aggregated Residual Transformations for Deep Neural Networks", Xie, Girshick, Dollar,
  Tu, He. CVPR 2017, https://arxiv.org/abs/1611.05431. Grouped convolutions in wider bottlenecks.
- SE: "Squeeze-and-Excitation Networks", Hu, Shen, Sun. CVPR 2018,
  https://arxiv.org/abs/1709.01507. A gate on each channel before the sum.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import paddle
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import (
    ConvNorm,
    DataFormat,
    PoolToVector,
    ResidualPath,
    SqueezeExcitation,
    he_initialise,
    identity_conv_norm,
    rising,
)
from ppcls.backbones.naming import Naming
from ppcls.backbones.resnet_names import resnet_namings
from ppcls.errors import ArgumentError
from ppcls.registry import BACKBONES

# Table 1 of the ResNet paper. Network -> blocks of each stage; 18 and 34 are made of basic blocks,
# the others of bottlenecks. The published network of 200 layers is not the one of later papers.
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 12, 48, 3),
}
WIDTHS = 64, 128, 256, 512  # of the 3x3 convolutions of each stage
STEM_WIDTH = 64
DEEP_STEM_WIDTH = 32  # of the first two of three convolutions
EXPANSION = 4  # of a bottleneck's end
SQUEEZE = 16  # reduction of the squeeze-excitations

C = {"deep_stem": True}
D = {"deep_stem": True, "pooled_shortcut": True}
X32 = {"groups": 32, "group_width": 4}
X64 = {"groups": 64, "group_width": 4}
SE = {"squeeze": True}
VARIANTS = {
    "ResNet18": {"depth": 18},
    "ResNet34": {"depth": 34},
    "ResNet50": {"depth": 50},
    "ResNet101": {"depth": 101},
    "ResNet152": {"depth": 152},
    "ResNet50_vc": {"depth": 50, **C},
    "ResNet18_vd": {"depth": 18, **D},
    "ResNet34_vd": {"depth": 34, **D},
    "ResNet50_vd": {"depth": 50, **D},
    "ResNet101_vd": {"depth": 101, **D},
    "ResNet152_vd": {"depth": 152, **D},
    "ResNet200_vd": {"depth": 200, **D},
    "ResNeXt50_32x4d": {"depth": 50, **X32},
    "ResNeXt50_64x4d": {"depth": 50, **X64},
    "ResNeXt101_32x4d": {"depth": 101, **X32},
    "ResNeXt101_32x8d": {"depth": 101, "groups": 32, "group_width": 8},
    "ResNeXt101_64x4d": {"depth": 101, **X64},
    "ResNeXt152_32x4d": {"depth": 152, **X32},
    "ResNeXt152_64x4d": {"depth": 152, **X64},
    "ResNeXt50_vd_32x4d": {"depth": 50, **X32, **D},
    "ResNeXt50_vd_64x4d": {"depth": 50, **X64, **D},
    "ResNeXt101_vd_32x4d": {"depth": 101, **X32, **D},
    "ResNeXt101_vd_64x4d": {"depth": 101, **X64, **D},
    "ResNeXt152_vd_32x4d": {"depth": 152, **X32, **D},
    "ResNeXt152_vd_64x4d": {"depth": 152, **X64, **D},
    "SE_ResNet50": {"depth": 50, **SE},
    "SE_ResNet18_vd": {"depth": 18, **SE, **D},
    "SE_ResNet34_vd": {"depth": 34, **SE, **D},
    "SE_ResNet50_vd": {"depth": 50, **SE, **D},
}


class ResidualBlock(nn.Layer):
    """A basic block or a bottleneck (Figure 5), the sum with its shortcut, ReLU.

    Args:
        channels_in, channels_out: widths of the two ends.
        width: of the convolutions in between.
        stride: of the first 3x3 convolution.
        groups: of a bottleneck's 3x3 convolution; None makes a basic block.
        squeeze: whether a squeeze-excitation ends the path.
        shortcut: what the input goes through before the sum.
        drop_path: probability of leaving out the path for an image in training.
    """

    def __init__(
        self,
        channels_in: int,
        width: int,
        channels_out: int,
        stride: int,
        groups: int | None,
        squeeze: bool,
        shortcut: nn.Layer,
        drop_path: float,
    ):
        super().__init__()
        if groups is None:
            convolutions = [
                ConvNorm(channels_in, width, 3, stride, act=nn.ReLU),
                ConvNorm(width, channels_out, 3),
            ]
        else:
            convolutions = [
                ConvNorm(channels_in, width, act=nn.ReLU),
                ConvNorm(width, width, 3, stride, groups, act=nn.ReLU),
                ConvNorm(width, channels_out),
            ]
        self.path = ResidualPath(
            *[(f"conv{i}", layer) for i, layer in enumerate(convolutions, start=1)],
            drop_path=drop_path,
        )
        if squeeze:
            gate = SqueezeExcitation(channels_out, channels_out // SQUEEZE)
            self.path.add_sublayer("squeeze", gate)
        self.shortcut = shortcut
        self.act = nn.ReLU()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        return self.act(self.path(x, self.shortcut(x)))


def projection(channels_in: int, channels_out: int, stride: int, pooled: bool) -> nn.Sequential:
    """The shortcut of a stage's first block, which all published networks have in every stage."""
    pools = pooled and stride > 1
    layers = [("pool", nn.AvgPool2D(2, 2, ceil_mode=True))] if pools else []
    conv = ConvNorm(channels_in, channels_out, 1, 1 if pools else stride)
    return nn.Sequential(*layers, ("conv", conv))


@BACKBONES.register_variants(VARIANTS)
class ResNet(StagedBackbone):
    """ResNet, ResNet-C, ResNet-D, ResNeXt, SE-ResNet.

    Args:
        class_num: number of classes.
        depth: layers with weights, from the first convolution to the classifier.
        deep_stem: three 3x3 convolutions in the stem instead of one of 7x7.
        pooled_shortcut: where a shortcut shrinks the map, average, then convolve with stride 1.
        groups: of the 3x3 convolutions; from 50 layers on.
        group_width: channels of a group in the first stage; 64 and one group are plain ResNet.
        squeeze: whether the paths end in a squeeze-excitation.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        drop_path_rate: of leaving out the last block for an image; rises to it from 0.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        depth: Literal[18, 34, 50, 101, 152, 200] = 50,
        deep_stem: bool = False,
        pooled_shortcut: bool = False,
        groups: Annotated[int, Field(ge=1)] = 1,
        group_width: Annotated[int, Field(ge=1)] = 64,
        squeeze: bool = False,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        self.depth, self.deep_stem, self.pooled_shortcut = depth, deep_stem, pooled_shortcut
        self.groups, self.group_width, self.squeeze = groups, group_width, squeeze
        self.basic = depth < 50
        for argument, value, plain in (("groups", groups, 1), ("group_width", group_width, 64)):
            if self.basic and value != plain:
                message = f"expected {plain} with depth {depth}, received {value}"
                raise ArgumentError(argument, message)
        rates = iter(rising(drop_path_rate, sum(DEPTHS[depth])))
        stages, channels = [], STEM_WIDTH
        for i, n in enumerate(DEPTHS[depth]):
            stage = self._stage(i, channels, [next(rates) for _ in range(n)])
            stages.append(stage)
            channels = stage.channels
        stem = Stage(self._stem(in_channels), STEM_WIDTH, 2)
        self.assemble(stem, stages, PoolToVector(), channels, class_num, dropout)
        he_initialise(self)
        self.adopt(data_format=data_format)

    def _stem(self, in_channels: int) -> nn.Sequential:
        if not self.deep_stem:
            return nn.Sequential(ConvNorm(in_channels, STEM_WIDTH, 7, 2, act=nn.ReLU))
        return nn.Sequential(
            ConvNorm(in_channels, DEEP_STEM_WIDTH, 3, 2, act=nn.ReLU),
            ConvNorm(DEEP_STEM_WIDTH, DEEP_STEM_WIDTH, 3, act=nn.ReLU),
            ConvNorm(DEEP_STEM_WIDTH, STEM_WIDTH, 3, act=nn.ReLU),
        )

    def _stage(self, index: int, channels: int, rates: list[float]) -> Stage:
        """Blocks of one width, as many as drop-path rates; a pooling begins the first stage."""
        width = wide = WIDTHS[index]
        if not self.basic:
            width, wide = width * self.group_width // 64 * self.groups, width * EXPANSION
        layers = nn.Sequential(*([("pool", nn.MaxPool2D(3, 2, 1))] if index == 0 else []))
        for i, rate in enumerate(rates):
            stride, shortcut = 1, nn.Identity()
            if i == 0:
                stride = 2 if index > 0 else 1
                shortcut = projection(channels, wide, stride, self.pooled_shortcut)
            groups = None if self.basic else self.groups
            block = ResidualBlock(
                channels, width, wide, stride, groups, self.squeeze, shortcut, rate
            )
            layers.add_sublayer(str(i), block)
            channels = wide
        return Stage(layers, channels, 2)

    def namings(self) -> list[Naming]:
        """PaddleClas, in its two styles; torchvision, or timm for networks that only timm has."""
        return resnet_namings(
            DEPTHS[self.depth], self.deep_stem, self.pooled_shortcut, self.squeeze
        )

    def adapt_weights(
        self, weights: dict[str, np.ndarray], naming: Naming | None
    ) -> dict[str, np.ndarray]:
        """Fills the first 1x1 convolution, which PyTorch's networks lack: the identity."""
        absent = naming is not None and naming.torch and self.basic
        if not absent or "stages.0.0.path.conv1.conv.weight" not in weights:
            return weights
        return identity_conv_norm("stages.0.0.shortcut.conv", self.state_dict()) | weights
