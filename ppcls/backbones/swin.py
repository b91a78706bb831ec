"""Swin Transformer: "Hierarchical Vision Transformer using Shifted Windows".

Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo. ICCV 2021, https://arxiv.org/abs/2103.14030. What is
special: attention is confined to windows, which makes its cost linear in the image's area; every
other block shifts the windows by half their side, so that neighbours meet; and patches are merged
2x2 between the stages, which gives maps of four strides, as a convolutional network has.
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
from ppcls.backbones.swin_common import (
    PatchMerging,
    Place,
    SwinBlock,
    WindowTransformer,
    window_namings,
)
from ppcls.backbones.windows import WindowAttention, relative_index
from ppcls.registry import BACKBONES

# Section 3.3 of the paper. C: width of the first stage; it doubles with each. Each stage: blocks
# and heads; a head has 32 channels. The rates of drop path are those of the published recipes.
TINY = {"width": 96, "depths": [2, 2, 6, 2], "heads": [3, 6, 12, 24]}
SMALL = {"width": 96, "depths": [2, 2, 18, 2], "heads": [3, 6, 12, 24]}
BASE = {"width": 128, "depths": [2, 2, 18, 2], "heads": [4, 8, 16, 32]}
LARGE = {"width": 192, "depths": [2, 2, 18, 2], "heads": [6, 12, 24, 48]}
FINE = {"image_size": 384, "window": 12}
VARIANTS = {
    "SwinTransformer_tiny_patch4_window7_224": {**TINY, "drop_path_rate": 0.2},
    "SwinTransformer_small_patch4_window7_224": {**SMALL, "drop_path_rate": 0.3},
    "SwinTransformer_base_patch4_window7_224": {**BASE, "drop_path_rate": 0.5},
    "SwinTransformer_base_patch4_window12_384": {**BASE, **FINE, "drop_path_rate": 0.5},
    "SwinTransformer_large_patch4_window7_224": {**LARGE, "drop_path_rate": 0.1},
    "SwinTransformer_large_patch4_window12_384": {**LARGE, **FINE, "drop_path_rate": 0.1},
}

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class PositionTable(nn.Layer):
    """A learnt bias for each offset within a window and each head (Equation 4)."""

    def __init__(self, window: int, heads: int):
        super().__init__()
        self.table = self.create_parameter(
            [(2 * window - 1) ** 2, heads],
            default_initializer=nn.initializer.TruncatedNormal(std=0.02),
        )
        index = paddle.to_tensor(relative_index(window).reshape(-1))
        self.register_buffer("index", index, persistable=False)
        self.tokens = window**2

    def forward(self) -> paddle.Tensor:
        """[heads, tokens, tokens]."""
        bias = self.table.index_select(self.index).reshape([self.tokens, self.tokens, -1])
        return bias.transpose([2, 0, 1])


@BACKBONES.register_variants(VARIANTS)
class SwinTransformer(WindowTransformer):
    """Swin Transformer of any size.

    Args:
        class_num: number of classes.
        image_size: side of the images it is made for; others run, too. Where a stage's map is
            smaller than the window, so is the window, and the table of positions with it.
        window: side of the windows, in tokens.
        width: of the first stage; doubles with every stage.
        depths: number of blocks of each stage.
        heads: number of attention heads of each stage.
        mlp_ratio: width of an MLP's middle, relative to its ends.
        dropout: of the embedded patches and of what each attention and MLP gives.
        attention_dropout: of the attention maps.
        drop_path_rate: of leaving out a path of the last block; rises to it from 0.
        in_channels: of the images.
        shift_single: shift the windows of a stage even where one covers the whole map, and so cut
            the map in four. The paper does not, the published PaddleClas networks do.
    """

    def __init__(
        self,
        class_num: Positive = 1000,
        image_size: Positive = 224,
        window: Positive = 7,
        width: Positive = 96,
        depths: Annotated[Sequence[Positive], Field(min_length=1)] = (2, 2, 6, 2),
        heads: Annotated[Sequence[Positive], Field(min_length=1)] = (3, 6, 12, 24),
        mlp_ratio: Annotated[float, Field(gt=0)] = 4.0,
        dropout: Rate = 0.0,
        attention_dropout: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        in_channels: Positive = 3,
        shift_single: bool = True,
    ):
        super().__init__()

        def block(place: Place) -> nn.Layer:
            position = PositionTable(place.window, place.heads)
            attention = WindowAttention(
                place.channels, place.heads, position, dropout, attention_dropout
            )
            hidden = int(place.channels * mlp_ratio)
            return SwinBlock(place.channels, attention, hidden, dropout, place.drop_path)

        self.assemble(
            block,
            PatchMerging,
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
        self.adopt(shift_single=shift_single)

    def set_own(self, name: str, value: Any) -> bool:
        """``shift_single`` is a setting of all stages."""
        if name != "shift_single":
            return False
        for stage in self.stages:
            stage.shift_single = value
        return True

    def namings(self) -> list[Naming]:
        """PaddleClas, torchvision and timm."""
        table = (r"\.position\.table$", ".relative_position_bias_table")
        return window_namings([table], [table], {"shift_single": False})

    def adapt_weights(
        self, weights: dict[str, np.ndarray], naming: Naming | None
    ) -> dict[str, np.ndarray]:
        """Resizes the tables of another window, as the authors do to fine-tune at another size."""
        sizes = {name: p.shape[0] for name, p in self.named_parameters() if name.endswith(".table")}
        return weights | {
            name: resize_table(weights[name], rows)
            for name, rows in sizes.items()
            if name in weights and len(weights[name]) != rows
        }


def resize_table(table: np.ndarray, rows: int) -> np.ndarray:
    """[offsets, heads] -> [rows, heads], bicubic over the square of offsets."""
    side, new_side = math.isqrt(len(table)), math.isqrt(rows)
    if side**2 != len(table):
        return table
    square = paddle.to_tensor(table.T.reshape([1, -1, side, side]).astype("float32"))
    resized = F.interpolate(square, size=[new_side, new_side], mode="bicubic")
    return resized.numpy().reshape([-1, rows]).T
