"""ConvNeXt: "A ConvNet for the 2020s".

Liu, Mao, Wu, Feichtenhofer, Darrell, Xie. CVPR 2022, https://arxiv.org/abs/2201.03545. What is
special: a convolutional network modernised, step by step, with what vision transformers do: patches
instead of a stem, few activations and normalisations, depthwise 7x7 convolutions in place of
attention, and pointwise layers that are widest in the middle, as an MLP's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import paddle
import paddle.nn.functional as F
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import (
    PoolToVector,
    ResidualPath,
    rising,
    truncated_normal_initialise,
)
from ppcls.backbones.naming import Naming, Rule
from ppcls.backbones.recompute import Recomputable
from ppcls.errors import ArgumentError
from ppcls.registry import BACKBONES

# Section 3 of the paper: B, the blocks of each stage, and C, its channels. The authors' networks
# start at tiny; the four below it are timm's.
ATTO = {"depths": [2, 2, 6, 2], "widths": [40, 80, 160, 320]}
FEMTO = {"depths": [2, 2, 6, 2], "widths": [48, 96, 192, 384]}
PICO = {"depths": [2, 2, 6, 2], "widths": [64, 128, 256, 512]}
NANO = {"depths": [2, 2, 8, 2], "widths": [80, 160, 320, 640]}
TINY = {"depths": [3, 3, 9, 3], "widths": [96, 192, 384, 768]}
SMALL = {"depths": [3, 3, 27, 3], "widths": [96, 192, 384, 768]}
BASE = {"depths": [3, 3, 27, 3], "widths": [128, 256, 512, 1024]}
LARGE = {"depths": [3, 3, 27, 3], "widths": [192, 384, 768, 1536]}
XLARGE = {"depths": [3, 3, 27, 3], "widths": [256, 512, 1024, 2048]}

VARIANTS = {
    "ConvNeXt_atto": ATTO,
    "ConvNeXt_femto": FEMTO,
    "ConvNeXt_pico": PICO,
    "ConvNeXt_nano": NANO,
    "ConvNeXt_tiny": TINY,
    "ConvNeXt_small": SMALL,
    "ConvNeXt_base_224": BASE,
    "ConvNeXt_base_384": BASE,
    "ConvNeXt_large_224": LARGE,
    "ConvNeXt_large_384": LARGE,
    "ConvNeXt_xlarge_224": XLARGE,
    "ConvNeXt_xlarge_384": XLARGE,
}
EPSILON = 1e-6  # of all normalisations

# The paper knows two forms of its block: pointwise convolutions, or linear layers on maps
# [N, H, W, C]. Ours is the first: with the CPU kernels, which keep maps channels-last in memory, it
# takes half the time of the second (one thread, 4 images at 224: atto 0.10 s against 0.25 s, tiny
# 0.6 s against 1.3 s). Without them, the second would be 1.2 to 1.5 times as fast.
CHANNELS_LAST, CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class ChannelNorm(nn.LayerNorm):
    """Normalises each pixel over its channels: [N, C, H, W] to the same shape."""

    def __init__(self, channels: int):
        super().__init__(channels, EPSILON)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, C, H, W] to the same shape."""
        return super().forward(x.transpose(CHANNELS_LAST)).transpose(CHANNELS_FIRST)


class Gelu(nn.GELU):
    """GELU of a map, which stays in the order that it has in memory."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, C, H, W] to the same shape."""
        if _is_channels_last(x):
            return super().forward(x.transpose(CHANNELS_LAST)).transpose(CHANNELS_FIRST)
        return super().forward(x)


class LayerScale(nn.Layer):
    """Multiplies each channel by a learnt factor that starts small (paper, Appendix A).

    Args:
        channels: of the map.
        initial: what all factors start from.
    """

    def __init__(self, channels: int, initial: float):
        super().__init__()
        self.weight = self.create_parameter(
            [channels], default_initializer=nn.initializer.Constant(initial)
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, C, H, W] to the same shape."""
        if _is_channels_last(x):
            return (x.transpose(CHANNELS_LAST) * self.weight).transpose(CHANNELS_FIRST)
        return x * self.weight.reshape([-1, 1, 1])


def _is_channels_last(x: paddle.Tensor) -> bool:
    """Whether the memory of [N, C, H, W] holds [N, H, W, C], as the CPU kernels leave it."""
    return paddle.in_dynamic_mode() and not x.is_contiguous()


class Block(Recomputable):
    """Depthwise - widen - narrow, beside a shortcut (Figure 4).

    Args:
        channels: of both ends; the middle has four times as many.
        layer_scale_init_value: what the factors of ``LayerScale`` start from; 0 for none.
        drop_path: probability of leaving out the block for an image in training.
    """

    def __init__(self, channels: int, layer_scale_init_value: float, drop_path: float):
        super().__init__()
        scaled = layer_scale_init_value > 0
        self.path = ResidualPath(
            ("depthwise", nn.Conv2D(channels, channels, 7, padding=3, groups=channels)),
            ("norm", ChannelNorm(channels)),
            ("expand", nn.Conv2D(channels, 4 * channels, 1)),
            ("act", Gelu()),
            ("project", nn.Conv2D(4 * channels, channels, 1)),
            *([("scale", LayerScale(channels, layer_scale_init_value))] if scaled else []),
            drop_path=drop_path,
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels, H, W] to the same shape."""
        return self.path(x, x)


def _halve(channels_in: int, channels_out: int) -> nn.Sequential:
    """The downsampling between two stages (Section 2.6)."""
    conv = nn.Conv2D(channels_in, channels_out, 2, 2)
    return nn.Sequential(("norm", ChannelNorm(channels_in)), ("conv", conv))


class Fill(nn.Layer):
    """Fills images that are smaller than ``side`` up with zeros, on the right and below.

    Four times halved, nothing would be left of them.
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """[N, C, H, W] -> [N, C, max(H, side), max(W, side)]."""
        below, right = (max(self.side - size, 0) for size in x.shape[2:])
        return F.pad(x, [0, right, 0, below]) if below or right else x


@BACKBONES.register_variants(VARIANTS)
class ConvNeXt(StagedBackbone):
    """ConvNeXt of any size.

    Rows and columns of a map that a downsampling does not divide are left out, as published, so a
    map of stride s has H // s rows.

    Args:
        class_num: number of classes.
        depths: number of blocks of each stage.
        widths: channels of each stage.
        layer_scale_init_value: what the factors of each block's output start from; 0 for none.
        head_init_scale: multiplies the initial weights of the classifier; the authors fine-tune
            with 0.001.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        drop_path_rate: of leaving out the last block for an image; rises to it from 0.
        in_channels: of the images.
    """

    recomputable = (Block,)

    def __init__(
        self,
        class_num: Positive = 1000,
        depths: Annotated[Sequence[Positive], Field(min_length=1)] = (3, 3, 9, 3),
        widths: Annotated[Sequence[Positive], Field(min_length=1)] = (96, 192, 384, 768),
        layer_scale_init_value: Annotated[float, Field(ge=0)] = 1e-6,
        head_init_scale: Annotated[float, Field(ge=0)] = 1.0,
        dropout: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        in_channels: Positive = 3,
    ):
        super().__init__()
        if len(depths) != len(widths):
            raise ArgumentError("depths", f"{len(depths)} depths, but {len(widths)} widths")
        self.head_init_scale = head_init_scale
        channels = widths[0]
        stem = nn.Sequential(
            ("fill", Fill(2 ** (len(depths) + 1))),
            ("conv", nn.Conv2D(in_channels, channels, 4, 4)),
            ("norm", ChannelNorm(channels)),
        )
        rates = iter(rising(drop_path_rate, sum(depths)))
        stages: list[Stage] = []
        for depth, width in zip(depths, widths, strict=True):
            blocks = nn.Sequential()
            if stages:
                blocks.add_sublayer("downsample", _halve(channels, width))
            for i in range(depth):
                blocks.add_sublayer(str(i), Block(width, layer_scale_init_value, next(rates)))
            stages.append(Stage(blocks, width, 2 if stages else 1))
            channels = width
        head = nn.Sequential(
            ("pool", PoolToVector()), ("norm", nn.LayerNorm(channels, epsilon=EPSILON))
        )
        self.assemble(Stage(stem, widths[0], 4), stages, head, channels, class_num, dropout)
        truncated_normal_initialise(self)
        self.initialise_classifier()

    def initialise_classifier(self) -> None:
        """Truncated normal weights as everywhere, scaled."""
        truncated_normal_initialise(self.classifier)
        weight = self.classifier.weight
        weight.set_value(weight * self.head_init_scale)

    def namings(self) -> list[Naming]:
        """PaddleClas; the authors, who have the same names; torchvision; timm."""
        published = [
            (r"^stem\.conv\.", "downsample_layers.0.0."),
            (r"^stem\.norm\.", "downsample_layers.0.1."),
            (r"^stages\.(\d+)\.downsample\.norm\.", r"downsample_layers.\1.0."),
            (r"^stages\.(\d+)\.downsample\.conv\.", r"downsample_layers.\1.1."),
            (r"\.path\.depthwise\.", ".dwconv."),
            (r"\.path\.norm\.", ".norm."),
            (r"\.path\.expand\.", ".pwconv1."),
            (r"\.path\.project\.", ".pwconv2."),
            (r"\.path\.scale\.weight$", ".gamma"),
            (r"^head\.norm\.", "norm."),
            (r"^classifier\.", "head."),
        ]
        torchvision: list[Rule] = [
            (r"^stem\.conv\.", "features.0.0."),
            (r"^stem\.norm\.", "features.0.1."),
            (r"^stages\.(\d+)\.", _torchvision_stage),
            (r"\.downsample\.norm\.", ".0."),
            (r"\.downsample\.conv\.", ".1."),
            (r"\.path\.depthwise\.", ".block.0."),
            (r"\.path\.norm\.", ".block.2."),
            (r"\.path\.expand\.", ".block.3."),
            (r"\.path\.project\.", ".block.5."),
            (r"\.path\.scale\.weight$", ".layer_scale"),
            (r"^head\.norm\.", "classifier.0."),
            (r"^classifier\.(weight|bias)", r"classifier.2.\1"),
        ]
        timm = [
            (r"^stem\.conv\.", "stem.0."),
            (r"^stem\.norm\.", "stem.1."),
            (r"\.downsample\.norm\.", ".downsample.0."),
            (r"\.downsample\.conv\.", ".downsample.1."),
            (r"^(stages\.\d+)\.(\d+)\.path\.", r"\1.blocks.\2."),
            (r"\.depthwise\.", ".conv_dw."),
            (r"\.expand\.", ".mlp.fc1."),
            (r"\.project\.", ".mlp.fc2."),
            (r"\.scale\.weight$", ".gamma"),
            (r"^classifier\.", "head.fc."),
        ]
        return [
            Naming("PaddleClas", published),
            Naming("the authors", published, torch=True),
            Naming("torchvision", torchvision, torch=True),
            Naming("timm", timm, torch=True),
        ]


def _torchvision_stage(match: re.Match[str]) -> str:
    """Stages and the downsamplings before them take turns."""
    stage = 2 * int(match[1])
    inside = match.string[match.end() :]
    return f"features.{stage if inside.startswith('downsample.') else stage + 1}."
