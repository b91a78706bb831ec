"""MobileViT: "Light-weight, General-purpose, and Mobile-friendly Vision Transformer".

Mehta, Rastegari. ICLR 2022, https://arxiv.org/abs/2110.02178. What is special: a transformer
replaces the matrix product of a convolution. Inside a convolutional network, the cells that have
the same place in their 2x2 patch attend to each other, whatever the map's size, and without an
embedding of their positions, which the convolutions around know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any

import paddle
import paddle.nn.functional as F
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import (
    ConvNorm,
    DataFormat,
    Mlp,
    PoolToVector,
    he_initialise,
    rising,
    truncated_normal_initialise,
)
from ppcls.backbones.mobilenet_v2 import InvertedResidual
from ppcls.backbones.naming import Naming
from ppcls.backbones.vision_transformer import Block, SelfAttention
from ppcls.errors import ArgumentError
from ppcls.registry import BACKBONES

# Table 4 of the paper: inverted residuals, all of the given width, then a MobileViT block or none.
STAGES = [
    # blocks, stride, MobileViT block
    [1, 1, False],
    [3, 2, False],
    [1, 2, True],
    [1, 2, True],
    [1, 2, True],
]
STEM_WIDTH = 16
HEAD_RATIO = 4  # the head is as many times wider than the last stage
PATCH = 2  # cells, the side of a patch

# C: width of each stage; d: width of each transformer.
VARIANTS: dict[str, dict[str, Any]] = {
    "MobileViT_XXS": {
        "widths": [16, 24, 48, 64, 80],
        "transformer_widths": [64, 80, 96],
        "expansion": 2,
    },
    "MobileViT_XS": {"widths": [32, 48, 64, 80, 96], "transformer_widths": [96, 120, 144]},
    "MobileViT_S": {"widths": [32, 64, 96, 128, 160], "transformer_widths": [144, 192, 240]},
}

Positive = Annotated[int, Field(ge=1)]
Three = Annotated[Sequence[Positive], Field(min_length=3, max_length=3)]
FiveWidths = Annotated[Sequence[Positive], Field(min_length=5, max_length=5)]
Rate = Annotated[float, Field(ge=0, lt=1)]


def transformer_layer(
    width: int, heads: int, hidden: int, dropout: float, attention_dropout: float, drop_path: float
) -> Block:
    """A block of a vision transformer, with SiLU in its MLP."""
    attention = SelfAttention(
        width,
        heads,
        qkv_bias=True,
        qk_scale=(width // heads) ** -0.5,
        dropout=dropout,
        attention_dropout=attention_dropout,
    )
    block = Block(attention, width, hidden, dropout, drop_path, epsilon=1e-5)
    block.mlp = Mlp(width, hidden, nn.Silu, dropout)
    return block


class MobileViTBlock(nn.Layer):
    """Local convolutions, a transformer over the patches, fusion with what came in (Figure 1b).

    Args:
        channels: of the map.
        width: of the transformer.
        layers: of the transformer.
    """

    def __init__(self, channels: int, width: int, layers: Sequence[nn.Layer]):
        super().__init__()
        self.local = ConvNorm(channels, channels, 3, act=nn.Silu)
        self.widen = nn.Conv2D(channels, width, 1, bias_attr=False)
        self.layers = nn.LayerList(layers)
        self.norm = nn.LayerNorm(width)
        self.project = ConvNorm(width, channels, act=nn.Silu)
        self.fuse = ConvNorm(2 * channels, channels, 3, act=nn.Silu)
        self.data_format = "NCHW"

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels, H, W] (or [N, H, W, channels]) to the same shape."""
        channels_last = self.data_format == "NHWC"
        local = self.widen(self.local(x))
        mixed = self.mix(local if channels_last else local.transpose([0, 2, 3, 1]))
        mixed = self.project(mixed if channels_last else mixed.transpose([0, 3, 1, 2]))
        return self.fuse(paddle.concat([x, mixed], axis=3 if channels_last else 1))

    def mix(self, x: paddle.Tensor) -> paddle.Tensor:
        """The transformer over a map [N, H, W, width], resized if patches do not cover it."""
        height, width = x.shape[1:3]
        rows, columns = math.ceil(height / PATCH), math.ceil(width / PATCH)
        whole = [rows * PATCH, columns * PATCH] == [height, width]
        if not whole:
            x = resize(x, rows * PATCH, columns * PATCH)
        tokens = self.unfold(x, rows, columns)
        for layer in self.layers:
            tokens = layer(tokens)
        x = self.fold(self.norm(tokens), rows, columns)
        return x if whole else resize(x, height, width)

    @staticmethod
    def unfold(x: paddle.Tensor, rows: int, columns: int) -> paddle.Tensor:
        """[N, H, W, C] -> [N * cells of a patch, patches, C]."""
        x = x.reshape([-1, rows, PATCH, columns, PATCH, x.shape[-1]])
        return x.transpose([0, 2, 4, 1, 3, 5]).reshape([-1, rows * columns, x.shape[-1]])

    @staticmethod
    def fold(tokens: paddle.Tensor, rows: int, columns: int) -> paddle.Tensor:
        """[N * cells of a patch, patches, C] -> [N, H, W, C]."""
        x = tokens.reshape([-1, PATCH, PATCH, rows, columns, tokens.shape[-1]])
        x = x.transpose([0, 3, 1, 4, 2, 5])
        return x.reshape([-1, rows * PATCH, columns * PATCH, x.shape[-1]])


def resize(x: paddle.Tensor, height: int, width: int) -> paddle.Tensor:
    """Bilinear interpolation of a map [N, H, W, C]."""
    return F.interpolate(x, size=[height, width], mode="bilinear", data_format="NHWC")


@BACKBONES.register_variants(VARIANTS)
class MobileViT(StagedBackbone):
    """MobileViT of any size.

    Args:
        class_num: number of classes.
        widths: of the five stages.
        transformer_widths: of the transformers in the last three stages.
        depths: number of layers of these transformers.
        heads: of each attention; divide the transformers' widths.
        expansion: of the inverted residuals.
        mlp_ratio: width of an MLP's middle, relative to its ends.
        dropout: of the vector that enters the classifier, and in the transformers.
        attention_dropout: of the attention maps.
        drop_path_rate: of leaving out a path of the last block; rises to it from 0.
        norm_epsilon: of the normalisation behind each transformer; 1e-5 in timm.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    recomputable = (Block,)

    def __init__(
        self,
        class_num: Positive = 1000,
        widths: FiveWidths = (32, 64, 96, 128, 160),
        transformer_widths: Three = (144, 192, 240),
        depths: Three = (2, 4, 3),
        heads: Positive = 4,
        expansion: Annotated[int, Field(ge=2)] = 4,
        mlp_ratio: Annotated[float, Field(gt=0)] = 2.0,
        dropout: Rate = 0.1,
        attention_dropout: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        norm_epsilon: Annotated[float, Field(gt=0)] = 1e-6,
        in_channels: Positive = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        for width in transformer_widths:
            if width % heads:
                raise ArgumentError("heads", f"{heads} heads do not divide a width of {width}")
        rates = iter(rising(drop_path_rate, sum(n for n, _, _ in STAGES) + sum(depths)))
        transformers = iter(zip(transformer_widths, depths, strict=True))

        def block(channels: int) -> MobileViTBlock:
            d, depth = next(transformers)
            hidden = int(d * mlp_ratio)
            layers = [
                transformer_layer(d, heads, hidden, dropout, attention_dropout, next(rates))
                for _ in range(depth)
            ]
            return MobileViTBlock(channels, d, layers)

        stem = Stage(ConvNorm(in_channels, STEM_WIDTH, 3, 2, act=nn.Silu), STEM_WIDTH, 2)
        channels, stages = STEM_WIDTH, []
        for width, (n, s, has_block) in zip(widths, STAGES, strict=True):
            layers: list[nn.Layer] = [
                InvertedResidual(c, width, step, expansion, True, next(rates), act=nn.Silu)
                for c, step in [(channels, s), *[(width, 1)] * (n - 1)]
            ]
            if has_block:
                layers.append(block(width))
            stages.append(Stage(nn.Sequential(*layers), width, s))
            channels = width
        num_features = channels * HEAD_RATIO
        head = nn.Sequential(
            ("conv", ConvNorm(channels, num_features, act=nn.Silu)), ("pool", PoolToVector())
        )
        self.assemble(stem, stages, head, num_features, class_num, dropout)
        truncated_normal_initialise(self)
        he_initialise(self)
        self.adopt(norm_epsilon=norm_epsilon, data_format=data_format)

    def initialise_classifier(self) -> None:
        """Truncated normal weights, as of all linear layers."""
        truncated_normal_initialise(self.classifier)

    def set_own(self, name: str, value: Any) -> bool:
        """``norm_epsilon`` is a setting of the MobileViT blocks."""
        if name != "norm_epsilon":
            return False
        for layer in self.sublayers():
            if isinstance(layer, MobileViTBlock):
                layer.norm._epsilon = value
        return True

    def namings(self) -> list[Naming]:
        """PaddleClas, which numbers the blocks of each kind through, and timm."""
        return [
            Naming(
                "PaddleClas",
                [
                    (r"^stem\.", "conv3x3."),
                    (r"^head\.conv\.", "conv1x1."),
                    (r"^classifier\.", "linear."),
                    (r"\.path\.expand\.", ".path.0."),
                    (r"\.path\.depthwise\.", ".path.1."),
                    (r"\.path\.project\.conv\.", ".path.2."),
                    (r"\.path\.project\.norm\.", ".path.3."),
                    (r"\.project\.", ".conv3."),
                    (r"^stages\.(\d+)\.(\d+)\.path\.", _published_block),
                    (r"^stages\.(\d+)\.1\.", lambda m: f"mvit_block_{int(m[1]) - 1}."),
                    (r"\.local\.", ".conv1."),
                    (r"\.widen\.", ".conv2."),
                    (r"\.fuse\.", ".conv4."),
                    (r"^(mvit_block_\d)\.norm\.", r"\1.transformer.norm."),
                    (r"\.layers\.", ".transformer.layers."),
                    (r"(\.layers\.\d+)\.norm1\.", r"\1.attn_norm."),
                    (r"(\.layers\.\d+)\.norm2\.", r"\1.mlp_norm."),
                    (r"\.attention\.", ".attn."),
                ],
            ),
            Naming(
                "timm",
                [
                    (r"^stem\.norm\.", "stem.bn."),
                    (r"^head\.conv\.conv\.", "final_conv.conv."),
                    (r"^head\.conv\.norm\.", "final_conv.bn."),
                    (r"^classifier\.", "head.fc."),
                    (r"\.path\.expand\.", ".conv1_1x1."),
                    (r"\.path\.depthwise\.", ".conv2_kxk."),
                    (r"\.path\.project\.", ".conv3_1x1."),
                    (r"\.local\.", ".conv_kxk."),
                    (r"\.widen\.", ".conv_1x1."),
                    (r"\.project\.", ".conv_proj."),
                    (r"\.fuse\.", ".conv_fusion."),
                    (r"(\.conv\w+)\.norm\.", r"\1.bn."),
                    (r"\.layers\.", ".transformer."),
                    (r"\.attention\.", ".attn."),
                ],
                torch=True,
                settings={"norm_epsilon": 1e-5},
            ),
        ]


def _published_block(match: re.Match[str]) -> str:
    before = sum(blocks for blocks, _, _ in STAGES[: int(match[1])])
    return f"mv2_block_{before + int(match[2]) + 1}.conv."
