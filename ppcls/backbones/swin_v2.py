"""Swin Transformer V2: "Scaling Up Capacity and Resolution".

Liu, Hu, Lin, Yao, Xie, Wei, Ning, Cao, Zhang, Dong, Wei, Guo. CVPR 2022,
https://arxiv.org/abs/2111.09883. What is special: three changes to the Swin Transformer that keep
large networks stable and let weights move to larger windows. What a path gives is normalised
before it is added, not what enters it; attention compares directions only, at a learnt scale; and
the bias of an offset comes from a small MLP that sees its logarithm, instead of from a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from pydantic import Field

from ppcls.backbones.naming import Naming
from ppcls.backbones.swin import BASE, LARGE, SMALL, TINY, Positive, Rate
from ppcls.backbones.swin_common import (
    PatchMerging,
    Place,
    SwinBlock,
    WindowTransformer,
    window_namings,
)
from ppcls.backbones.windows import WindowAttention, WindowGrid, relative_index
from ppcls.errors import ArgumentError
from ppcls.registry import BACKBONES

POSITION_WIDTH = 512  # of the MLP's middle
MOST_BIAS = 16.0
MOST_SCALE = 100.0

# Appendix A1 of the paper: the sizes of the first version. Those for which another window is given
# were trained on ImageNet-22K at 192 pixels with windows of 12 (6 in the last stage) before.
W8: dict[str, Any] = {"window": 8}
W16: dict[str, Any] = {"window": 16}
W24: dict[str, Any] = {"window": 24, "image_size": 384}
FROM_192: dict[str, Any] = {"pretrained_windows": [12, 12, 12, 6]}
VARIANTS: dict[str, dict[str, Any]] = {
    "SwinTransformerV2_tiny_patch4_window8_256": TINY | W8 | {"drop_path_rate": 0.2},
    "SwinTransformerV2_tiny_patch4_window16_256": TINY | W16 | {"drop_path_rate": 0.2},
    "SwinTransformerV2_small_patch4_window8_256": SMALL | W8 | {"drop_path_rate": 0.3},
    "SwinTransformerV2_small_patch4_window16_256": SMALL | W16 | {"drop_path_rate": 0.3},
    "SwinTransformerV2_base_patch4_window8_256": BASE | W8 | {"drop_path_rate": 0.5},
    "SwinTransformerV2_base_patch4_window16_256": BASE | W16 | {"drop_path_rate": 0.5},
    "SwinTransformerV2_base_patch4_window24_384": BASE | W24 | FROM_192 | {"drop_path_rate": 0.2},
    "SwinTransformerV2_large_patch4_window16_256": LARGE | W16 | FROM_192 | {"drop_path_rate": 0.2},
    "SwinTransformerV2_large_patch4_window24_384": LARGE | W24 | FROM_192 | {"drop_path_rate": 0.2},
}


class ContinuousPosition(nn.Layer):
    """A bias for each offset within a window and each head, by an MLP (Section 3.3).

    Args:
        window: side of the window.
        pretrained_window: side of the window that the weights were trained with.
        heads: number of heads.
    """

    def __init__(self, window: int, pretrained_window: int, heads: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2, POSITION_WIDTH),
            nn.ReLU(),
            nn.Linear(POSITION_WIDTH, heads, bias_attr=False),
        )
        offsets = paddle.to_tensor(log_offsets(window, pretrained_window))
        index = paddle.to_tensor(relative_index(window).reshape(-1))
        self.register_buffer("offsets", offsets, persistable=False)
        self.register_buffer("index", index, persistable=False)
        self.tokens = window**2

    def forward(self) -> paddle.Tensor:
        """[heads, tokens, tokens]."""
        bias = MOST_BIAS * F.sigmoid(self.mlp(self.offsets))
        bias = bias.index_select(self.index).reshape([self.tokens, self.tokens, -1])
        return bias.transpose([2, 0, 1])


def log_offsets(window: int, pretrained_window: int) -> np.ndarray:
    """[offsets, 2]: the offsets within a window, down and right, on a logarithmic scale.

    The farthest offset of the pretrained window is log2(9) / log2(8), by Equation 4 and the
    authors' normalisation.
    """
    steps = np.arange(1 - window, window) * (8.0 / max(pretrained_window - 1, 1))
    logs = np.sign(steps) * np.log2(1.0 + np.abs(steps)) / np.log2(8.0)
    down, right = np.meshgrid(logs, logs, indexing="ij")
    return np.stack([down.reshape(-1), right.reshape(-1)], axis=1).astype("float32")


class BiasedProjection(nn.Layer):
    """Queries, keys and values; keys have no bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.linear = nn.Linear(channels, 3 * channels, bias_attr=False)
        self.q_bias = self.create_parameter([channels], is_bias=True)
        self.v_bias = self.create_parameter([channels], is_bias=True)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """[..., C] -> [..., 3C]."""
        no_bias = paddle.zeros(self.q_bias.shape, self.q_bias.dtype)
        bias = paddle.concat([self.q_bias, no_bias, self.v_bias])
        return self.linear(x) + bias


class CosineAttention(WindowAttention):
    """Attention by the cosine of queries and keys, with a learnt scale (Equation 2)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        position: nn.Layer,
        dropout: float,
        attention_dropout: float,
    ):
        super().__init__(channels, heads, position, dropout, attention_dropout)
        self.logit_scale = self.create_parameter(
            [heads, 1, 1], default_initializer=nn.initializer.Constant(math.log(10.0))
        )

    @staticmethod
    def projection(channels: int) -> nn.Layer:
        """To queries, keys and values: [..., channels] -> [..., 3 * channels]."""
        return BiasedProjection(channels)

    def attend(
        self, q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, bias: paddle.Tensor
    ) -> paddle.Tensor:
        """[N, windows, heads, tokens, C / heads], three times -> the same shape."""
        scale = self.logit_scale.clip(max=math.log(MOST_SCALE)).exp()
        return self.product(F.normalize(q, axis=-1), F.normalize(k, axis=-1), v, scale, bias)


class PostNormBlock(SwinBlock):
    """Attention within windows, then an MLP; what each gives is normalised, then added.

    The factors of these normalisations are zero at first: the block starts as the identity.
    """

    def __init__(
        self, channels: int, attention: nn.Layer, hidden: int, dropout: float, drop_path: float
    ):
        super().__init__(channels, attention, hidden, dropout, drop_path)
        for norm in (self.norm1, self.norm2):
            nn.initializer.Constant(0.0)(norm.weight)

    def forward(self, x: paddle.Tensor, grid: WindowGrid) -> paddle.Tensor:
        """Maps [N, H, W, channels] to the same shape."""
        x = x + self.drop_path(self.norm1(self.attend(x, grid)))
        return x + self.drop_path(self.norm2(self.mlp(x)))


class PostNormMerging(PatchMerging):
    """Joins 2x2 cells to one of twice the width, and normalises it."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """[N, H, W, C] -> [N, H/2, W/2, 2C], rounded up."""
        return self.norm(self.reduction(self.gather(x)))


@BACKBONES.register_variants(VARIANTS)
class SwinTransformerV2(WindowTransformer):
    """Swin Transformer V2 of any size.

    Args:
        class_num: number of classes.
        image_size: side of the images it is made for; others run, too. Where a stage's map is
            smaller than the window, so is the window.
        window: side of the windows, in tokens.
        pretrained_windows: side of the windows of each stage that the weights were trained with,
            if they came from smaller images; 0 is the network's own.
        width: of the first stage; doubles with every stage.
        depths: number of blocks of each stage.
        heads: number of attention heads of each stage.
        mlp_ratio: width of an MLP's middle, relative to its ends.
        dropout: of the embedded patches and of what each attention and MLP gives.
        attention_dropout: of the attention maps.
        drop_path_rate: of leaving out a path of the last block; rises to it from 0.
        in_channels: of the images.
    """

    def __init__(
        self,
        class_num: Positive = 1000,
        image_size: Positive = 256,
        window: Positive = 8,
        pretrained_windows: Sequence[Annotated[int, Field(ge=0)]] | None = None,
        width: Positive = 96,
        depths: Annotated[Sequence[Positive], Field(min_length=1)] = (2, 2, 6, 2),
        heads: Annotated[Sequence[Positive], Field(min_length=1)] = (3, 6, 12, 24),
        mlp_ratio: Annotated[float, Field(gt=0)] = 4.0,
        dropout: Rate = 0.0,
        attention_dropout: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        in_channels: Positive = 3,
    ):
        super().__init__()
        pretrained = pretrained_windows or [0] * len(depths)
        if len(pretrained) != len(depths):
            message = f"expected {len(depths)} numbers, one a stage: {pretrained}"
            raise ArgumentError("pretrained_windows", message)

        def block(place: Place) -> nn.Layer:
            trained = pretrained[place.stage] or place.window
            position = ContinuousPosition(place.window, trained, place.heads)
            attention = CosineAttention(
                place.channels, place.heads, position, dropout, attention_dropout
            )
            hidden = int(place.channels * mlp_ratio)
            return PostNormBlock(place.channels, attention, hidden, dropout, place.drop_path)

        self.assemble(
            block,
            PostNormMerging,
            image_size=image_size,
            window=window,
            width=width,
            depths=depths,
            heads=heads,
            class_num=class_num,
            dropout=dropout,
            drop_path_rate=drop_path_rate,
            in_channels=in_channels,
        )

    def namings(self) -> list[Naming]:
        """PaddleClas, torchvision and timm."""
        position = (r"\.position\.mlp\.", ".cpb_mlp.")
        linear = (r"\.qkv\.linear\.", ".qkv.")
        own = (r"\.qkv\.(q|v)_bias$", r".\1_bias")
        joint = (r"\.qkv\.q_bias$", ".qkv.bias")  # q's, k's and v's, see `adapt_weights`
        return window_namings([position, linear, own], [position, linear, joint, own])

    def adapt_weights(
        self, weights: dict[str, np.ndarray], naming: Naming | None
    ) -> dict[str, np.ndarray]:
        """Takes torchvision's biases of q, k and v apart; it never uses that of k."""
        if naming is None or naming.library != "torchvision":
            return weights
        adapted = dict(weights)
        for name, joint in weights.items():
            if name.endswith(".q_bias") and joint.size % 3 == 0:
                q, _, v = np.split(joint, 3)
                adapted[name], adapted[name.replace(".q_bias", ".v_bias")] = q, v
        return adapted
