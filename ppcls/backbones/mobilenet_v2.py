"""MobileNetV2: "Inverted Residuals and Linear Bottlenecks".

Sandler, Howard, Zhu, Zhmoginov, Chen. CVPR 2018, https://arxiv.org/abs/1801.04381. What is
special: the shortcut joins the narrow ends of a block, the depthwise convolution works on its wide
middle, and the layer before the sum has no activation.
"""

from __future__ import annotations

import re
from typing import Annotated

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
    he_initialise,
    identity_conv_norm,
    make_divisible,
    rising,
)
from ppcls.backbones.naming import TIMM_INVERTED_RESIDUALS, Naming
from ppcls.registry import BACKBONES

# Table 2 of the paper. t: expansion, c: width, n: blocks, s: stride of the first
STAGES = [
    # t,  c, n, s
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]
STEM_WIDTH = 32
HEAD_WIDTH = 1280

# The published PaddleClas networks cut widths off, and expand in the first block too. Those that
# PaddleClas lacks are the paper's: widths rounded to multiples of 8, no expansion where t is 1.
PAPER = {"divisor": 8, "expand_first": False}
VARIANTS = {
    "MobileNetV2_x0_25": {"width": 0.25},
    "MobileNetV2_x0_35": {"width": 0.35, **PAPER},
    "MobileNetV2_x0_5": {"width": 0.5},
    "MobileNetV2_x0_75": {"width": 0.75},
    "MobileNetV2": {"width": 1.0},
    "MobileNetV2_x1_4": {"width": 1.4, **PAPER},
    "MobileNetV2_x1_5": {"width": 1.5},
    "MobileNetV2_x2_0": {"width": 2.0},
}
ALIASES = {"MobileNetV2_x1_0": "MobileNetV2"}

FIRST_EXPANSION = "stages.0.0.path.expand"  # PaddleClas has it, PyTorch's networks do not


class InvertedResidual(nn.Layer):
    """Expand - depthwise - project (linear), Section 3.3 and Table 1.

    Args:
        channels_in, channels_out: widths of the two ends.
        stride: of the depthwise convolution.
        expansion: the middle is ``expansion * channels_in`` wide.
        expand: whether there is an expanding convolution.
        drop_path: probability of leaving out the block for an image in training.
        act: class of the two activations.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        expansion: int,
        expand: bool,
        drop_path: float,
        act: type[nn.Layer] = nn.ReLU6,
    ):
        super().__init__()
        hidden = channels_in * expansion
        self.has_shortcut = stride == 1 and channels_in == channels_out
        self.path = ResidualPath(
            *([("expand", ConvNorm(channels_in, hidden, act=act))] if expand else []),
            ("depthwise", ConvNorm(hidden, hidden, 3, stride, groups=hidden, act=act)),
            ("project", ConvNorm(hidden, channels_out)),
            drop_path=drop_path,
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        return self.path(x, x) if self.has_shortcut else self.path(x)


@BACKBONES.register_variants(VARIANTS, ALIASES)
class MobileNetV2(StagedBackbone):
    """MobileNetV2 of any width.

    Args:
        class_num: number of classes.
        width: multiplier of every width; below 1.0 the head stays 1280 wide.
        divisor: widths are rounded to multiples of it; 1 cuts them off.
        expand_first: whether the first block, whose expansion is 1, has an expanding convolution.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        drop_path_rate: of leaving out the last block for an image; rises to it from 0.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        width: Annotated[float, Field(gt=0)] = 1.0,
        divisor: Annotated[int, Field(ge=1)] = 1,
        expand_first: bool = True,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()

        def scaled(channels: int) -> int:
            exact = channels * width
            return make_divisible(exact, divisor) if divisor > 1 else max(1, int(exact))

        rates = iter(rising(drop_path_rate, sum(n for _, _, n, _ in STAGES)))
        channels = scaled(STEM_WIDTH)
        stem = Stage(ConvNorm(in_channels, channels, 3, 2, act=nn.ReLU6), channels, 2)
        stages = []
        for t, c, n, s in STAGES:
            blocks = nn.Sequential()
            for i in range(n):
                block = InvertedResidual(
                    channels, scaled(c), s if i == 0 else 1, t, t > 1 or expand_first, next(rates)
                )
                blocks.add_sublayer(str(i), block)
                channels = scaled(c)
            stages.append(Stage(blocks, channels, s))
        num_features = scaled(HEAD_WIDTH) if width > 1 else HEAD_WIDTH
        head = nn.Sequential(
            ("conv", ConvNorm(channels, num_features, act=nn.ReLU6)), ("pool", PoolToVector())
        )
        self.assemble(stem, stages, head, num_features, class_num, dropout)
        he_initialise(self)
        self.adopt(data_format=data_format)

    def namings(self) -> list[Naming]:
        """PaddleClas, torchvision (blocks numbered through) and timm."""
        return [
            # PaddleClas's code says `conv2`, the file that it publishes `aconv2`.
            *(_paddleclas(prefix) for prefix in ("conv", "aconv")),
            Naming(
                "torchvision",
                [
                    (FIRST_EXPANSION, "absent"),
                    (r"^stem\.", "features.0."),
                    (r"^head\.conv\.", "features.18."),
                    (r"^classifier\.", "classifier.1."),
                    (r"^stages\.(\d+)\.(\d+)\.path\.", _torchvision_block),
                    (r"^(features\.1\.conv)\.depthwise\.", r"\1.0."),
                    (r"^(features\.1\.conv)\.project\.conv", r"\1.1"),
                    (r"^(features\.1\.conv)\.project\.norm", r"\1.2"),
                    (r"\.expand\.", ".0."),
                    (r"\.depthwise\.", ".1."),
                    (r"\.project\.conv", ".2"),
                    (r"\.project\.norm", ".3"),
                    (r"\.conv\.weight$", ".0.weight"),
                    (r"\.norm\.", ".1."),
                ],
                torch=True,
            ),
            Naming(
                "timm",
                [
                    (FIRST_EXPANSION, "absent"),
                    *TIMM_INVERTED_RESIDUALS,
                ],
                torch=True,
            ),
        ]

    def adapt_weights(
        self, weights: dict[str, np.ndarray], naming: Naming | None
    ) -> dict[str, np.ndarray]:
        """Fills the first expanding convolution, which PyTorch's networks lack: the identity."""
        absent = naming is not None and naming.rename(FIRST_EXPANSION) == "absent"
        if not absent or f"{FIRST_EXPANSION}.conv.weight" not in self.state_dict():
            return weights
        return weights | identity_conv_norm(FIRST_EXPANSION, self.state_dict())


def _paddleclas(prefix: str) -> Naming:
    def block(match: re.Match[str]) -> str:
        stage, number = int(match[1]) + 2, int(match[2])
        inner = "_first_block" if number == 0 else f"{prefix}{stage}_{number + 1}"
        return f"{prefix}{stage}.{inner}."

    return Naming(
        "PaddleClas",
        [
            (r"^stem\.", "conv1."),
            (r"^head\.conv\.", "conv9."),
            (r"^classifier\.", "out."),
            (r"^stages\.(\d+)\.(\d+)\.path\.", block),
            (r"\.(expand|depthwise|project)\.", _paddleclas_layer),
            (r"\.conv\.weight$", "._conv.weight"),
            (r"\.norm\.", "._batch_norm."),
        ],
    )


def _paddleclas_layer(match: re.Match[str]) -> str:
    names = {"expand": "_expand_conv", "depthwise": "_bottleneck_conv", "project": "_linear_conv"}
    return f".{names[match[1]]}."


def _torchvision_block(match: re.Match[str]) -> str:
    before = sum(n for _, _, n, _ in STAGES[: int(match[1])])
    return f"features.{before + int(match[2]) + 1}.conv."
