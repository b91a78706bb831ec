"""PP-LCNet: "A Lightweight CPU Convolutional Neural Network".

Cui, Gao, Wei, Du, Guo, Dong, Yang, Zhao, Liu, Ma and others. 2021,
https://arxiv.org/abs/2109.15099. What is special: MobileNetV1's plain depthwise separable blocks,
without any shortcut, made better by what costs an Intel CPU little: hard-swish, large kernels and
squeeze-excitation near the end only, and a wide layer behind the pooling.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import (
    ConvNorm,
    DataFormat,
    DropoutMode,
    HardSigmoid,
    SqueezeExcitation,
    he_initialise,
    make_divisible,
    norm_parameters,
)
from ppcls.backbones.naming import Naming
from ppcls.registry import BACKBONES

# Table 1 of the paper. k: kernel of the depthwise convolutions, c: width, n: blocks, s: stride of
# the first, se: squeeze-excitation
STAGES = [
    # k,  c, n, s, se
    [3, 32, 1, 1, False],
    [3, 64, 2, 2, False],
    [3, 128, 2, 2, False],
    [3, 256, 1, 2, False],
    [5, 256, 5, 1, False],
    [5, 512, 2, 2, True],
]
STEM_WIDTH = 16
HEAD_WIDTH = 1280
SQUEEZE = 4  # reduction of the squeeze-excitations

# timm's own networks: the layer behind the pooling has a bias, the dropout scales in training.
TIMM = {"head_bias": True, "dropout_mode": "upscale_in_train"}
VARIANTS: dict[str, dict[str, Any]] = {
    "PPLCNet_x0_25": {"width": 0.25},
    "PPLCNet_x0_35": {"width": 0.35},
    "PPLCNet_x0_5": {"width": 0.5},
    "PPLCNet_x0_75": {"width": 0.75},
    "PPLCNet_x1_0": {"width": 1.0},
    "PPLCNet_x1_5": {"width": 1.5},
    "PPLCNet_x2_0": {"width": 2.0},
    "PPLCNet_x2_5": {"width": 2.5},
    "LCNet_035": {"width": 0.35, **TIMM},
    "LCNet_050": {"width": 0.5, **TIMM},
    "LCNet_075": {"width": 0.75, **TIMM},
    "LCNet_100": {"width": 1.0, **TIMM},
    "LCNet_150": {"width": 1.5, **TIMM},
}


class DepthwiseSeparable(nn.Sequential):
    """Depthwise convolution - squeeze-excitation, if any - pointwise convolution, Figure 2.

    Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride].

    Args:
        channels_in, channels_out: widths of the two ends.
        kernel, stride: of the depthwise convolution.
        squeeze: whether there is a squeeze-excitation.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, squeeze: bool
    ):
        depthwise = ConvNorm(
            channels_in, channels_in, kernel, stride, groups=channels_in, act=nn.Hardswish
        )
        super().__init__(("depthwise", depthwise))
        if squeeze:
            hidden = channels_in // SQUEEZE
            layer = SqueezeExcitation(channels_in, hidden, gate=HardSigmoid)
            self.add_sublayer("squeeze", layer)
        self.add_sublayer("pointwise", ConvNorm(channels_in, channels_out, act=nn.Hardswish))


@BACKBONES.register_variants(VARIANTS)
class PPLCNet(StagedBackbone):
    """PP-LCNet of any width.

    Args:
        class_num: number of classes.
        width: multiplier of every width but that of the head.
        head_bias: whether the convolution behind the pooling has a bias, as in timm's networks.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        dropout_mode: ``downscale_in_infer`` makes that vector smaller in evaluation, which the
            published weights count on; ``upscale_in_train`` makes it larger in training.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        width: Annotated[float, Field(gt=0)] = 1.0,
        head_bias: bool = False,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        dropout_mode: DropoutMode = "downscale_in_infer",
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        channels = make_divisible(STEM_WIDTH * width)
        stem = Stage(ConvNorm(in_channels, channels, 3, 2, act=nn.Hardswish), channels, 2)
        stages = []
        for k, c, n, s, se in STAGES:
            blocks = nn.Sequential()
            for i in range(n):
                wide = make_divisible(c * width)
                block = DepthwiseSeparable(channels, wide, k, s if i == 0 else 1, bool(se))
                blocks.add_sublayer(str(i), block)
                channels = wide
            stages.append(Stage(blocks, channels, s))
        head = nn.Sequential(
            ("pool", nn.AdaptiveAvgPool2D(1)),
            ("conv", nn.Conv2D(channels, HEAD_WIDTH, 1, bias_attr=None if head_bias else False)),
            ("act", nn.Hardswish()),
            ("flatten", nn.Flatten()),
        )
        self.assemble(stem, stages, head, HEAD_WIDTH, class_num, dropout)
        he_initialise(self, per_group=True)
        self.adopt(dropout_mode=dropout_mode, data_format=data_format)

    def no_weight_decay(self) -> set[str]:
        """Norm parameters, which the published networks never decay."""
        return norm_parameters(self)

    def namings(self) -> list[Naming]:
        """PaddleClas; timm if there is room for the head's bias."""
        published = Naming(
            "PaddleClas",
            [
                (r"^stem\.", "conv1."),
                (r"^head\.conv\.", "last_conv."),
                (r"^classifier\.", "fc."),
                (r"^stages\.(\d+)\.(\d+)\.", _published_block),
                (r"\.depthwise\.", ".dw_conv."),
                (r"\.pointwise\.", ".pw_conv."),
                (r"\.squeeze\.reduce\.", ".se.conv1."),
                (r"\.squeeze\.expand\.", ".se.conv2."),
                (r"\.norm\.", ".bn."),
            ],
        )
        timm = Naming(
            "timm",
            [
                (r"^stem\.conv\.", "conv_stem."),
                (r"^stem\.norm\.", "bn1."),
                (r"^head\.conv\.", "conv_head."),
                (r"^stages\.(\d+)\.(\d+)\.", _timm_block),
                (r"\.depthwise\.conv\.", ".conv_dw."),
                (r"\.depthwise\.norm\.", ".bn1."),
                (r"\.pointwise\.conv\.", ".conv_pw."),
                (r"\.pointwise\.norm\.", ".bn2."),
                (r"\.squeeze\.", ".se.conv_"),
            ],
            torch=True,
            settings={"dropout_mode": "upscale_in_train"},
        )
        return [published, timm] if self.head.conv.bias is not None else [published]


def _published_block(match: re.Match[str]) -> str:
    """PaddleClas joins the fourth and the fifth row of the table."""
    stage, block = int(match[1]), int(match[2])
    joined, before = {4: (5, 1), 5: (6, 0)}.get(stage, (stage + 2, 0))
    return f"blocks{joined}.{before + block}."


def _timm_block(match: re.Match[str]) -> str:
    """Timm counts the first block of the fifth row to the fourth."""
    stage, block = int(match[1]), int(match[2])
    if stage == 4:
        stage, block = (3, 1) if block == 0 else (4, block - 1)
    return f"blocks.{stage}.{block}."
