"""MnasNet-B1: "MnasNet: Platform-Aware Neural Architecture Search for Mobile".

Tan, Chen, Pang, Vasudevan, Sandler, Howard, Le. CVPR 2019, https://arxiv.org/abs/1807.11626. What
is special: the search weighed accuracy against the latency measured on a phone, and chose kernel
and expansion for each stage. B1 is the network found without squeeze-excitation.
"""

from __future__ import annotations

import re
from typing import Annotated

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
    make_divisible,
    norm_parameters,
    rising,
)
from ppcls.backbones.naming import TIMM_INVERTED_RESIDUALS, Naming
from ppcls.registry import BACKBONES

# Network B1 of the authors. t: expansion, c: width, n: blocks, s: stride of the first, k: kernel
STAGES = [
    # t,  c, n, s, k
    [1, 16, 1, 1, 3],
    [3, 24, 3, 2, 3],
    [3, 40, 3, 2, 5],
    [6, 80, 3, 2, 5],
    [6, 96, 2, 1, 3],
    [6, 192, 4, 2, 5],
    [6, 320, 1, 1, 3],
]
STEM_WIDTH = 32
HEAD_WIDTH = 1280

VARIANTS = {
    "MnasNet_x0_5": {"width": 0.5},
    "MnasNet_x0_75": {"width": 0.75},
    "MnasNet_x1_0": {"width": 1.0},
    "MnasNet_x1_3": {"width": 1.3},
}


class InvertedResidual(nn.Layer):
    """Expand - depthwise - project (linear), as in MobileNetV2.

    Args:
        channels_in, channels_out: widths of the two ends.
        kernel, stride: of the depthwise convolution.
        expansion: the middle is ``expansion * channels_in`` wide; 1 makes a separable
            convolution, without an expanding convolution and a shortcut.
        drop_path: probability of leaving out the block for an image in training.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        expansion: int,
        drop_path: float,
    ):
        super().__init__()
        hidden = channels_in * expansion
        expand = [("expand", ConvNorm(channels_in, hidden, act=nn.ReLU))]
        self.has_shortcut = expansion > 1 and stride == 1 and channels_in == channels_out
        self.path = ResidualPath(
            *(expand if expansion > 1 else []),
            ("depthwise", ConvNorm(hidden, hidden, kernel, stride, hidden, nn.ReLU)),
            ("project", ConvNorm(hidden, channels_out)),
            drop_path=drop_path,
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        return self.path(x, x) if self.has_shortcut else self.path(x)


@BACKBONES.register_variants(VARIANTS)
class MnasNet(StagedBackbone):
    """MnasNet-B1 of any width.

    Args:
        class_num: number of classes.
        width: multiplier of every width but the head's, rounded to multiples of 8.
        momentum: of the running statistics of batch normalisations.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        drop_path_rate: of leaving out the last block for an image; rises to it from 0.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    # The paper trains with a momentum of 0.99 (Section 5). torchvision took 0.9997: so slow a
    # mean has forgotten the initial statistics only after about 10,000 steps, and a short run
    # would be evaluated with them.
    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        width: Annotated[float, Field(gt=0)] = 1.0,
        momentum: Annotated[float, Field(ge=0, le=1)] = 0.99,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        rates = iter(rising(drop_path_rate, sum(n for _, _, n, _, _ in STAGES)))
        channels = make_divisible(STEM_WIDTH * width)
        stem = Stage(ConvNorm(in_channels, channels, 3, 2, act=nn.ReLU), channels, 2)
        stages = []
        for t, c, n, s, k in STAGES:
            blocks, out = nn.Sequential(), make_divisible(c * width)
            for i in range(n):
                block = InvertedResidual(channels, out, k, s if i == 0 else 1, t, next(rates))
                blocks.add_sublayer(str(i), block)
                channels = out
            stages.append(Stage(blocks, channels, s))
        head = nn.Sequential(
            ("conv", ConvNorm(channels, HEAD_WIDTH, act=nn.ReLU)), ("pool", PoolToVector())
        )
        self.assemble(stem, stages, head, HEAD_WIDTH, class_num, dropout)
        he_initialise(self, per_group=True)  # as the authors do
        self.adopt(momentum=momentum, data_format=data_format)

    def no_weight_decay(self) -> set[str]:
        """Parameters of normalisations, which the authors do not decay."""
        return norm_parameters(self)

    def namings(self) -> list[Naming]:
        """torchvision (layers numbered through, also inside a block) and timm."""
        return [
            Naming(
                "torchvision",
                [
                    (r"^stem\.conv", "layers.0"),
                    (r"^stem\.norm", "layers.1"),
                    (r"^stages\.0\.0\.path\.depthwise\.conv", "layers.3"),
                    (r"^stages\.0\.0\.path\.depthwise\.norm", "layers.4"),
                    (r"^stages\.0\.0\.path\.project\.conv", "layers.6"),
                    (r"^stages\.0\.0\.path\.project\.norm", "layers.7"),
                    (r"^stages\.(\d+)\.(\d+)\.path\.", _torchvision_block),
                    (r"\.expand\.conv", ".0"),
                    (r"\.expand\.norm", ".1"),
                    (r"\.depthwise\.conv", ".3"),
                    (r"\.depthwise\.norm", ".4"),
                    (r"\.project\.conv", ".6"),
                    (r"\.project\.norm", ".7"),
                    (r"^head\.conv\.conv", "layers.14"),
                    (r"^head\.conv\.norm", "layers.15"),
                    (r"^classifier\.", "classifier.1."),
                ],
                torch=True,
            ),
            Naming("timm", TIMM_INVERTED_RESIDUALS, torch=True),
        ]


def _torchvision_block(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) + 7}.{match[2]}.layers."
