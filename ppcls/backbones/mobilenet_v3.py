"""MobileNetV3: "Searching for MobileNetV3".

Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam. ICCV 2019,
https://arxiv.org/abs/1905.02244. What is special: inverted residuals from a search, with
squeeze-excitation in their wide middle and piecewise linear activations, and a last layer that
works behind the pooling, where it costs next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Any, Literal, NamedTuple

import paddle
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import (
    ConvNorm,
    DataFormat,
    DropoutMode,
    HardSigmoid,
    ResidualPath,
    SqueezeExcitation,
    he_initialise,
    make_divisible,
    norm_parameters,
    rising,
)
from ppcls.backbones.naming import TIMM_INVERTED_RESIDUALS, Naming, Rule
from ppcls.registry import BACKBONES


class Row(NamedTuple):
    """A block: kernel, width of the middle, width, squeeze-excitation, activation, stride."""

    kernel: int
    middle: int
    channels: int
    squeezed: bool
    act: type[nn.Layer]
    stride: int


# Tables 1 and 2 of the paper. k: kernel, exp: width of the middle, c: width, SE: whether there is
# a squeeze-excitation, NL: activation (RE: ReLU, HS: hard swish), s: stride
RE, HS = nn.ReLU, nn.Hardswish
TABLES = {
    "large": [
        # k, exp, c, SE, NL, s
        Row(3, 16, 16, False, RE, 1),
        Row(3, 64, 24, False, RE, 2),
        Row(3, 72, 24, False, RE, 1),
        Row(5, 72, 40, True, RE, 2),
        Row(5, 120, 40, True, RE, 1),
        Row(5, 120, 40, True, RE, 1),
        Row(3, 240, 80, False, HS, 2),
        Row(3, 200, 80, False, HS, 1),
        Row(3, 184, 80, False, HS, 1),
        Row(3, 184, 80, False, HS, 1),
        Row(3, 480, 112, True, HS, 1),
        Row(3, 672, 112, True, HS, 1),
        Row(5, 672, 160, True, HS, 2),
        Row(5, 960, 160, True, HS, 1),
        Row(5, 960, 160, True, HS, 1),
    ],
    "small": [
        # k, exp, c, SE, NL, s
        Row(3, 16, 16, True, RE, 2),
        Row(3, 72, 24, False, RE, 2),
        Row(3, 88, 24, False, RE, 1),
        Row(5, 96, 40, True, HS, 2),
        Row(5, 240, 40, True, HS, 1),
        Row(5, 240, 40, True, HS, 1),
        Row(5, 120, 48, True, HS, 1),
        Row(5, 144, 48, True, HS, 1),
        Row(5, 288, 96, True, HS, 2),
        Row(5, 576, 96, True, HS, 1),
        Row(5, 576, 96, True, HS, 1),
    ],
}
STEM_WIDTH = 16
LAST_WIDTH = {"large": 960, "small": 576}  # of the last map
HEAD_WIDTH = {"large": 1280, "small": 1024}  # of the vector that enters the classifier
PADDLECLAS_HEAD_WIDTH = 1280

WIDTHS = {"x0_35": 0.35, "x0_5": 0.5, "x0_75": 0.75, "x1_0": 1.0, "x1_25": 1.25}
# The weights of torchvision and timm are of networks with other widths than those of PaddleClas.
PAPER = {
    "design": "paper",
    "gate_slope": 1 / 6,
    "epsilon": 1e-3,
    "momentum": 0.99,
    "dropout_mode": "upscale_in_train",
}
VARIANTS: dict[str, dict[str, Any]] = {
    **{
        f"MobileNetV3_{table}_{suffix}": {"table": table, "width": width}
        for table in ("small", "large")
        for suffix, width in WIDTHS.items()
    },
    "MobileNetV3_small_x0_5_paper": {"table": "small", "width": 0.5, **PAPER},
    "MobileNetV3_small_x0_75_paper": {"table": "small", "width": 0.75, **PAPER},
    "MobileNetV3_small_x1_0_paper": {"table": "small", "width": 1.0, **PAPER},
    "MobileNetV3_large_x0_75_paper": {"table": "large", "width": 0.75, **PAPER},
    "MobileNetV3_large_x1_0_paper": {"table": "large", "width": 1.0, **PAPER},
}


class InvertedResidual(nn.Layer):
    """Expand - depthwise - squeeze-excitation - project (linear), Figure 4.

    Args:
        channels_in, hidden, channels_out: widths of the start, the middle and the end.
        row: kernel, activation and stride.
        squeezed: width inside the squeeze-excitation; 0 leaves it out.
        expand: whether there is an expanding convolution.
        drop_path: probability of leaving out the block for an image in training.
    """

    def __init__(
        self,
        channels_in: int,
        hidden: int,
        channels_out: int,
        row: Row,
        squeezed: int,
        expand: bool,
        drop_path: float,
    ):
        super().__init__()
        self.has_shortcut = row.stride == 1 and channels_in == channels_out
        parts: list[tuple[str, nn.Layer]] = [
            ("depthwise", ConvNorm(hidden, hidden, row.kernel, row.stride, hidden, row.act)),
            ("project", ConvNorm(hidden, channels_out)),
        ]
        if expand:
            parts.insert(0, ("expand", ConvNorm(channels_in, hidden, act=row.act)))
        if squeezed:
            parts.insert(-1, ("squeeze", SqueezeExcitation(hidden, squeezed, gate=HardSigmoid)))
        self.path = ResidualPath(*parts, drop_path=drop_path)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        return self.path(x, x) if self.has_shortcut else self.path(x)


@BACKBONES.register_variants(VARIANTS)
class MobileNetV3(StagedBackbone):
    """MobileNetV3, small or large, of any width.

    With ``design="PaddleClas"`` it is what PaddleClas publishes: the first block expands, too (16
    to 16 channels), the small network's last vector is as wide as the large one's, the last
    convolution has no bias, a squeeze-excitation is a quarter of the block's middle wide, cut
    off, and each middle is that of the table times ``width``.

    With ``design="paper"`` it is the network of the paper's authors, for which torchvision and
    timm have weights: squeeze-excitations are rounded to multiples of 8, and each middle keeps
    its ratio to the width before it.

    Args:
        class_num: number of classes.
        table: ``small`` or ``large``.
        width: multiplier of every width up to the last map's, rounded to multiples of 8.
        design: see above.
        gate_slope: of the hard sigmoid in squeeze-excitations; 1/6 in the paper.
        epsilon: of batch normalisations.
        momentum: of their running statistics; 0.99 in the paper.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        dropout_mode: ``downscale_in_infer`` makes that vector smaller in evaluation, which the
            published weights need, together with their ``dropout``; ``upscale_in_train`` is usual.
        drop_path_rate: of leaving out the last block for an image; rises to it from 0.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        table: Literal["small", "large"] = "large",
        width: Annotated[float, Field(gt=0)] = 1.0,
        design: Literal["PaddleClas", "paper"] = "PaddleClas",
        gate_slope: Annotated[float, Field(gt=0)] = 0.2,
        epsilon: Annotated[float, Field(gt=0)] = 1e-5,
        momentum: Annotated[float, Field(ge=0, le=1)] = 0.9,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        dropout_mode: DropoutMode = "downscale_in_infer",
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        self.design = design
        as_paper = design == "paper"
        # timm, which alone has weights that narrow of the paper's design, keeps this stem wide.
        stem_width = make_divisible(STEM_WIDTH * (1 if as_paper and width < 0.75 else width))
        stem = Stage(ConvNorm(in_channels, stem_width, 3, 2, act=HS), stem_width, 2)
        stages = list(_stages(TABLES[table], stem_width, width, as_paper, drop_path_rate))
        last, num_features = make_divisible(LAST_WIDTH[table] * width), PADDLECLAS_HEAD_WIDTH
        if as_paper:
            num_features = make_divisible(HEAD_WIDTH[table] * max(width, 1.0))
        head = _head(stages[-1].channels, last, num_features, bias=as_paper)
        self.assemble(stem, stages, head, num_features, class_num, dropout)
        he_initialise(self)
        self.adopt(
            gate_slope=gate_slope,
            epsilon=epsilon,
            momentum=momentum,
            dropout_mode=dropout_mode,
            data_format=data_format,
        )

    def no_weight_decay(self) -> set[str]:
        """Parameters of normalisations, which neither PaddleClas nor the authors decay."""
        return norm_parameters(self)

    def namings(self) -> list[Naming]:
        """PaddleClas for its own design, torchvision and timm for the paper's."""
        return (
            self._namings_of_torch() if self.design == "paper" else [self._naming_of_paddleclas()]
        )

    def _naming_of_paddleclas(self) -> Naming:
        return Naming(
            "PaddleClas",
            [
                (r"^stem\.", "conv."),
                (r"^head\.conv\.", "last_second_conv."),
                (r"^head\.last\.", "last_conv."),
                (r"^classifier\.", "fc."),
                (r"^stages\.(\d+)\.(\d+)\.path\.", lambda m: f"blocks.{self._number(m)}."),
                (r"\.squeeze\.reduce\.", ".mid_se.conv1."),
                (r"\.squeeze\.expand\.", ".mid_se.conv2."),
                (r"\.expand\.", ".expand_conv."),
                (r"\.depthwise\.", ".bottleneck_conv."),
                (r"\.project\.", ".linear_conv."),
                (r"\.norm\.", ".bn."),
            ],
        )

    def _namings_of_torch(self) -> list[Naming]:
        blocks = sum(len(stage) for stage in self.stages)
        torchvision: list[Rule] = [
            (r"^stem\.", "features.0."),
            (r"^head\.conv\.", f"features.{blocks + 1}."),
            (r"^head\.last\.", "classifier.0."),
            (r"^classifier\.(weight|bias)$", r"classifier.3.\1"),
            (r"^stages\.(\d+)\.(\d+)\.path\.(\w+)\.", self._torchvision_layer),
            (r"\.reduce\.", ".fc1."),
            (r"\.expand\.", ".fc2."),
            (r"\.conv\.", ".0."),
            (r"\.norm\.", ".1."),
        ]
        timm: list[Rule] = [
            (r"^head\.conv\.conv", f"blocks.{len(self.stages)}.0.conv"),
            (r"^head\.conv\.norm", f"blocks.{len(self.stages)}.0.bn1"),
            (r"^head\.last\.", "conv_head."),
            *TIMM_INVERTED_RESIDUALS,
        ]
        settings = {
            "gate_slope": 1 / 6,
            "epsilon": 1e-3,
            "dropout_mode": "upscale_in_train",
        }
        return [
            Naming("torchvision", torchvision, torch=True, settings=settings),
            Naming("timm", timm, torch=True, settings={**settings, "epsilon": 1e-5}),
        ]

    def _torchvision_layer(self, match: re.Match[str]) -> str:
        path = self.stages[int(match[1])][int(match[2])].path
        position = [name for name, _ in path.named_children()].index(match[3])
        return f"features.{self._number(match) + 1}.block.{position}."

    def _number(self, match: re.Match[str]) -> int:
        """Of the block (stage, block in the stage), counted through the network."""
        stage, block = int(match[1]), int(match[2])
        return sum(len(earlier) for earlier in self.stages[:stage]) + block


def _stages(
    table: list[Row], channels: int, width: float, as_paper: bool, drop_path_rate: float
) -> Iterator[Stage]:
    """Blocks of the same width make a stage."""
    rates = iter(rising(drop_path_rate, len(table)))
    table_channels = STEM_WIDTH
    for c, rows in groupby(table, lambda row: row.channels):
        blocks, stride = nn.Sequential(), 1
        for i, row in enumerate(rows):
            exact = row.middle * (channels / table_channels if as_paper else width)
            hidden = make_divisible(exact)
            squeezed = make_divisible(hidden / 4) if as_paper else hidden // 4
            expand = row.middle > table_channels or not as_paper
            out = make_divisible(c * width)
            block = InvertedResidual(
                channels, hidden, out, row, squeezed if row.squeezed else 0, expand, next(rates)
            )
            blocks.add_sublayer(str(i), block)
            channels, table_channels, stride = out, c, stride * row.stride
        yield Stage(blocks, channels, stride)


def _head(channels: int, last: int, num_features: int, bias: bool) -> nn.Sequential:
    """The last map, its mean, and a layer that works on the mean only, Figure 5."""
    return nn.Sequential(
        ("conv", ConvNorm(channels, last, act=HS)),
        ("pool", nn.AdaptiveAvgPool2D(1)),
        ("last", nn.Conv2D(last, num_features, 1, bias_attr=None if bias else False)),
        ("act", HS()),
        ("flatten", nn.Flatten()),
    )
