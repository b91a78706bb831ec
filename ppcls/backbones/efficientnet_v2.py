"""EfficientNetV2: "EfficientNetV2: Smaller Models and Faster Training".

Tan, Le. ICML 2021, https://arxiv.org/abs/2104.00298. What is special: the first stages have one
ordinary convolution where MBConv has a pointwise and a depthwise one, because that is faster where
maps are large and narrow; and the training images grow with the epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import paddle
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage
from ppcls.backbones.efficientnet import EfficientNetBase, EfficientPadding, MBConv
from ppcls.backbones.layers import (
    ConvNorm,
    DataFormat,
    PoolToVector,
    ResidualPath,
    he_initialise,
    rising,
)
from ppcls.backbones.naming import TIMM_INVERTED_RESIDUALS, Naming, Rule
from ppcls.errors import ArgumentError
from ppcls.registry import BACKBONES

# Table 4 of the paper. t: expansion, s: stride of the first block; all kernels are 3x3
STAGES = [
    # fused, t, s
    [True, 1, 1],
    [True, 4, 2],
    [True, 4, 2],
    [False, 4, 2],
    [False, 6, 1],
    [False, 6, 2],
    [False, 6, 1],
]
HEAD_WIDTH = 1280

# The widths and depths of the authors' code, as long as the network has stages; a stem is as wide
# as the first stage. Images: in training at most `train_size`, then `image_size`.
VARIANTS = {
    "EfficientNetV2_S": {
        "widths": [24, 48, 64, 128, 160, 256],
        "depths": [2, 4, 4, 6, 9, 15],
        "train_size": 300,
        "image_size": 384,
        "dropout": 0.2,
    },
    "EfficientNetV2_M": {
        "widths": [24, 48, 80, 160, 176, 304, 512],
        "depths": [3, 5, 5, 7, 14, 18, 5],
        "train_size": 384,
        "image_size": 480,
        "dropout": 0.3,
    },
    "EfficientNetV2_L": {
        "widths": [32, 64, 96, 192, 224, 384, 640],
        "depths": [4, 7, 7, 10, 19, 25, 7],
        "train_size": 384,
        "image_size": 480,
        "dropout": 0.4,
    },
    "EfficientNetV2_XL": {
        "widths": [32, 64, 96, 192, 256, 512, 640],
        "depths": [4, 8, 8, 16, 24, 32, 8],
        "train_size": 384,
        "image_size": 512,
        "dropout": 0.4,
    },
}


class FusedMBConv(nn.Layer):
    """An ordinary 3x3 convolution that expands, then a pointwise linear one, Figure 2.

    Without expansion the 3x3 convolution is all there is, and it is not linear.

    Args:
        channels_in, channels_out: widths of the two ends.
        stride: of the 3x3 convolution.
        expansion: the middle is ``expansion * channels_in`` wide.
        drop_path: probability of leaving out the block for an image in training.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        expansion: int,
        drop_path: float = 0.0,
    ):
        super().__init__()
        hidden = channels_in * expansion if expansion > 1 else channels_out
        self.has_shortcut = stride == 1 and channels_in == channels_out
        self.path = ResidualPath(
            ("fused", ConvNorm(channels_in, hidden, 3, stride, act=nn.Silu)),
            *([("project", ConvNorm(hidden, channels_out))] if expansion > 1 else []),
            drop_path=drop_path,
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        return self.path(x, x) if self.has_shortcut else self.path(x)


Numbers = Annotated[
    Sequence[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=len(STAGES))
]


@BACKBONES.register_variants(VARIANTS)
class EfficientNetV2(EfficientNetBase):
    """EfficientNetV2 of any width and depth.

    Args:
        class_num: number of classes.
        widths: of the stages; as many stages as widths.
        depths: blocks of each stage.
        train_size: side of the largest images in training.
        image_size: side of the images in evaluation; the network takes others, too.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        drop_path_rate: of leaving out a block for an image; rises to it from 0.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
        epsilon: of the batch normalisations.
        momentum: of their running statistics.
        padding: of the convolutions, as ``EfficientNet`` says.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        widths: Numbers = (24, 48, 64, 128, 160, 256),
        depths: Numbers = (2, 4, 4, 6, 9, 15),
        train_size: Annotated[int, Field(ge=1)] = 300,
        image_size: Annotated[int, Field(ge=1)] = 384,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
        epsilon: Annotated[float, Field(gt=0)] = 1e-3,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        padding: EfficientPadding = "nominal",
    ):
        super().__init__()
        if len(depths) != len(widths):
            raise ArgumentError("depths", f"{len(depths)} depths, but {len(widths)} widths")
        self.train_size, self.image_size = train_size, image_size
        # One more, since the authors' rule would reach the rate only behind the last block.
        rates = iter(rising(drop_path_rate, sum(depths) + 1))
        channels = widths[0]
        stem = Stage(ConvNorm(in_channels, channels, 3, 2, act=nn.Silu), channels, 2)
        stages = []
        for (fused, t, s), width, n in zip(STAGES[: len(widths)], widths, depths, strict=True):
            blocks = nn.Sequential()
            for i in range(n):
                stride, rate = s if i == 0 else 1, next(rates)
                if fused:
                    block = FusedMBConv(channels, width, stride, t, rate)
                else:
                    block = MBConv(channels, width, 3, stride, t, drop_path=rate)
                blocks.add_sublayer(str(i), block)
                channels = width
            stages.append(Stage(blocks, channels, s))
        head = nn.Sequential(
            ("conv", ConvNorm(channels, HEAD_WIDTH, act=nn.Silu)), ("pool", PoolToVector())
        )
        self.assemble(stem, stages, head, HEAD_WIDTH, class_num, dropout)
        he_initialise(self, per_group=True)
        self.adopt(padding=padding, epsilon=epsilon, momentum=momentum, data_format=data_format)

    def namings(self) -> list[Naming]:
        """PaddleClas, torchvision and timm.

        timm's ``efficientnetv2_s`` and ``tf_efficientnetv2_s`` have the same names, but pad
        differently and have another epsilon. Weights are published for the latter only, so they
        are taken for it; behind weights of the former, call
        ``net.adopt(padding="symmetric", epsilon=1e-5)``.
        """
        return [
            Naming("PaddleClas", self._paddleclas_rules()),
            Naming(
                "torchvision",
                self.torchvision_rules(),
                torch=True,
                settings={"padding": "symmetric", "epsilon": 1e-3},
            ),
            Naming(
                "timm",
                [
                    (r"^stages\.0\.(\d+)\.path\.fused\.conv", r"blocks.0.\1.conv"),
                    (r"\.fused\.conv", ".conv_exp"),
                    (r"\.fused\.norm", ".bn1"),
                    (r"^(stages\.[12]\..*)\.project\.norm", r"\1.bn2"),
                    *TIMM_INVERTED_RESIDUALS,
                ],
                torch=True,
                settings={"padding": "SAME", "epsilon": 1e-3},
            ),
        ]

    def _paddleclas_rules(self) -> list[Rule]:
        """Blocks are counted through, normalisations within a block."""
        return [
            (r"^stem\.conv", "_stem._conv_stem._conv"),
            (r"^stem\.norm", "_stem._norm"),
            (r"^head\.conv\.conv", "_head._conv_head"),
            (r"^head\.conv\.norm", "_head._norm"),
            (r"^classifier\.", "_fc."),
            (r"^(stages\.0\..*\.path)\.fused\.conv", r"\1._project_conv._conv"),
            (r"^(stages\.0\..*\.path)\.fused\.norm", r"\1._norm1"),
            (r"^(stages\.[12]\..*)\.project\.norm", r"\1._norm1"),
            (r"^stages\.(\d+)\.(\d+)\.path\.", lambda m: f"_blocks.{self._block_number(m)}."),
            (r"\.squeeze\.(reduce|expand)\.", r"._se._se_\1._conv."),
            (r"\.(fused|expand)\.conv", "._expand_conv._conv"),
            (r"\.(fused|expand)\.norm", "._norm0"),
            (r"\.(depthwise|project)\.conv", r"._\1_conv._conv"),
            (r"\.depthwise\.norm", "._norm1"),
            (r"\.project\.norm", "._norm2"),
        ]
