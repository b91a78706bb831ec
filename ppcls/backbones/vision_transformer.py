"""Vision transformers: ViT and DeiT.

- ViT: "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale". Dosovitskiy,
  Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, Uszkoreit,
  Houlsby. ICLR 2021, https://arxiv.org/abs/2010.11929. What is special: an image is a sequence of
  patches, and nothing but attention mixes them; a class token gathers what the classifier sees.
- DeiT: "Training data-efficient image transformers & distillation through attention". Touvron,
  Cord, Douze, Massa, Sablayrolles, Jégou. ICML 2021, https://arxiv.org/abs/2012.12877. What is
  special: ViT trained on ImageNet alone, by a strong recipe; a second token, with a classifier of
  its own, learns from a teacher.

What the field calls ViT-S/16 and ViT-Ti/16 are ``DeiT_small_patch16_224`` and
``DeiT_tiny_patch16_224`` here. The published ``ViT_small_patch16_224`` is an older design: 8
layers of width 768, with attention scaled by the whole width, and no bias of q, k and v.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Backbone, FeatureInfo
from ppcls.backbones.layers import (
    AttentionProduct,
    DropPath,
    Mlp,
    rising,
    truncated_normal_initialise,
)
from ppcls.backbones.naming import Naming
from ppcls.backbones.recompute import Recomputable
from ppcls.errors import ArgumentError
from ppcls.registry import BACKBONES

# Table 1 of either paper: the layers, their width D, and the heads of an attention.
TINY: dict[str, Any] = {"depth": 12, "width": 192, "heads": 3}
SMALL: dict[str, Any] = {"depth": 12, "width": 384, "heads": 6}
BASE: dict[str, Any] = {"depth": 12, "width": 768, "heads": 12}
LARGE: dict[str, Any] = {"depth": 24, "width": 1024, "heads": 16}
EARLY_SMALL: dict[str, Any] = {"depth": 8, "width": 768, "heads": 8, "mlp_ratio": 3.0}
EARLY_SMALL |= {"qkv_bias": False, "qk_scale": 768**-0.5, "epsilon": 1e-5}

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]

VARIANTS: dict[str, dict[str, Any]] = {
    "ViT_small_patch16_224": EARLY_SMALL,
    "ViT_base_patch16_224": BASE,
    "ViT_base_patch16_384": BASE | {"image_size": 384},
    "ViT_base_patch32_384": BASE | {"image_size": 384, "patch_size": 32},
    "ViT_large_patch16_224": LARGE,
    "ViT_large_patch16_384": LARGE | {"image_size": 384},
    "ViT_large_patch32_384": LARGE | {"image_size": 384, "patch_size": 32},
    "DeiT_tiny_patch16_224": TINY,
    "DeiT_small_patch16_224": SMALL,
    "DeiT_base_patch16_224": BASE,
    "DeiT_base_patch16_384": BASE | {"image_size": 384},
    "DeiT_tiny_distilled_patch16_224": TINY | {"distilled": True},
    "DeiT_small_distilled_patch16_224": SMALL | {"distilled": True},
    "DeiT_base_distilled_patch16_224": BASE | {"distilled": True},
    "DeiT_base_distilled_patch16_384": BASE | {"distilled": True, "image_size": 384},
}


class SelfAttention(nn.Layer):
    """Every token looks at every other, by several heads side by side (ViT, Appendix A).

    Args:
        width: of a token.
        heads: that share it.
        qkv_bias: whether the projections to queries, keys and values have a bias.
        qk_scale: multiplies the products of queries and keys.
        dropout: of an entry that comes out.
        attention_dropout: of an entry of the attention map.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        qkv_bias: bool,
        qk_scale: float,
        dropout: float,
        attention_dropout: float,
    ):
        super().__init__()
        self.heads, self.scale = heads, qk_scale
        self.qkv = nn.Linear(width, 3 * width, bias_attr=None if qkv_bias else False)
        self.product = AttentionProduct(attention_dropout)
        self.proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, tokens, width] to the same shape."""
        tokens, width = x.shape[1:]
        split = self.qkv(x).reshape([-1, tokens, 3, self.heads, width // self.heads])
        q, k, v = split.transpose([2, 0, 3, 1, 4]).unbind(0)
        mixed = self.product(q, k, v, self.scale)
        joined = mixed.transpose([0, 2, 1, 3]).reshape([-1, tokens, width])
        return self.dropout(self.proj(joined))


class Block(Recomputable):
    """Attention, then an MLP, each behind a normalisation and beside a shortcut (ViT, Figure 1).

    Args:
        attention: maps tokens to tokens.
        width, hidden: of the MLP's ends and middle.
        dropout: of an entry inside or behind the MLP.
        drop_path: probability of leaving out each of the two paths for an image in training.
        epsilon: of the normalisations.
    """

    def __init__(
        self,
        attention: SelfAttention,
        width: int,
        hidden: int,
        dropout: float,
        drop_path: float,
        epsilon: float,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, epsilon)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, epsilon)
        self.mlp = Mlp(width, hidden, dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, tokens, width] to the same shape."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@BACKBONES.register_variants(VARIANTS)
class VisionTransformer(Backbone):
    """ViT and DeiT of any size, for images of any size.

    The right and lower edge of an image that is not made of whole patches is padded with zeros.
    Where an image has other than the expected number of patches, the position embedding is
    resized (ViT, Section 3.2).

    Args:
        class_num: number of classes.
        image_size: side of the images that the position embedding is made for.
        patch_size: side of a patch.
        depth: number of blocks.
        width: of a token.
        heads: of each attention; they divide ``width``.
        mlp_ratio: the middle of an MLP is ``mlp_ratio * width`` wide.
        qkv_bias: whether the projections to queries, keys and values have a bias.
        qk_scale: of the products of queries and keys; by default 1 / sqrt(width of a head).
        distilled: whether there is a second token with its own classifier, see ``both_logits``.
        epsilon: of the normalisations.
        dropout: of an entry of the embedded patches, and behind every linear layer of a block.
        attention_dropout: of an entry of an attention map.
        drop_path_rate: of leaving out the last block's paths for an image; rises to it from 0.
        in_channels: of the images.
    """

    recomputable = (Block,)

    def __init__(
        self,
        class_num: Positive = 1000,
        image_size: Positive = 224,
        patch_size: Positive = 16,
        depth: Positive = 12,
        width: Positive = 768,
        heads: Positive = 12,
        mlp_ratio: Annotated[float, Field(gt=0)] = 4.0,
        qkv_bias: bool = True,
        qk_scale: Annotated[float, Field(gt=0)] | None = None,
        distilled: bool = False,
        epsilon: Annotated[float, Field(gt=0)] = 1e-6,
        dropout: Rate = 0.0,
        attention_dropout: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        in_channels: Positive = 3,
    ):
        super().__init__()
        if width % heads:
            raise ArgumentError("heads", f"{heads} heads cannot share a width of {width} evenly")
        self.num_features, self.distilled = width, distilled
        self.patch_size, self.grid = patch_size, math.ceil(image_size / patch_size)
        self.feature_info = [FeatureInfo(patch_size, width)]

        self.patch_embedding = nn.Conv2D(in_channels, width, patch_size, patch_size)
        self.class_token = self.create_parameter([1, 1, width])
        if distilled:
            self.distillation_token = self.create_parameter([1, 1, width])
        self.tokens = 2 if distilled else 1
        self.position_embedding = self.create_parameter([1, self.tokens + self.grid**2, width])
        self.dropout = nn.Dropout(dropout)
        scale = (width // heads) ** -0.5 if qk_scale is None else qk_scale
        self.blocks = nn.LayerList(
            Block(
                SelfAttention(width, heads, qkv_bias, scale, dropout, attention_dropout),
                width,
                int(width * mlp_ratio),
                dropout,
                rate,
                epsilon,
            )
            for rate in rising(drop_path_rate, depth)
        )
        self.norm = nn.LayerNorm(width, epsilon)
        self.reset_classifier(class_num)
        truncated_normal_initialise(self)
        for name in sorted(self.no_weight_decay()):
            nn.initializer.TruncatedNormal(0.0, 0.02)(getattr(self, name))

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Images [N, C, H, W] -> logits [N, class_num]; the mean of both classifiers', if two."""
        if self.distilled:
            by_labels, by_teacher = self.both_logits(images)
            return (by_labels + by_teacher) / 2
        return self.classifier(self._encode(images)[:, 0])

    def both_logits(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """What the class token and the distillation token say, of a ``distilled`` network.

        In training, the first learns from the labels and the second from a teacher.

        Args:
            images: [N, C, H, W].

        Returns:
            Two times logits [N, class_num].
        """
        encoded = self._encode(images)
        return self.classifier(encoded[:, 0]), self.distillation_classifier(encoded[:, 1])

    def training_outputs(self, images: paddle.Tensor) -> Any:
        """The logits; of a ``distilled`` network both classifiers' apart, for DeiT's loss."""
        if not self.distilled:
            return self(images)
        by_labels, by_teacher = self.both_logits(images)
        return {"logits": by_labels, "distillation": by_teacher}

    def features(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        """One map [N, width, H / patch_size, W / patch_size], sides rounded up."""
        rows, columns = self._grid_of(images)
        patches = self._encode(images)[:, self.tokens :]
        shape = [-1, self.num_features, rows, columns]
        return [patches.transpose([0, 2, 1]).reshape(shape)]

    def reset_classifier(self, class_num: int) -> None:
        """Replaces the classifier, or both, by fresh ones for ``class_num`` classes."""
        self.class_num = class_num
        self.classifier = nn.Linear(self.num_features, class_num)
        truncated_normal_initialise(self.classifier)
        if self.distilled:
            self.distillation_classifier = nn.Linear(self.num_features, class_num)
            truncated_normal_initialise(self.distillation_classifier)

    def classifier_names(self) -> set[str]:
        """State-dict names of the classifier, or of both."""
        layers = ["classifier"] + ["distillation_classifier"] * self.distilled
        return {f"{layer}.{name}" for layer in layers for name in ("weight", "bias")}

    def no_weight_decay(self) -> set[str]:
        """The position embedding and the tokens, as in DeiT's recipe."""
        names = {"position_embedding", "class_token"}
        return names | {"distillation_token"} if self.distilled else names

    def namings(self) -> list[Naming]:
        """PaddleClas and timm, which differ in layout alone, and torchvision."""
        rules = [
            (r"^patch_embedding\.", "patch_embed.proj."),
            (r"^position_embedding$", "pos_embed"),
            (r"^class_token$", "cls_token"),
            (r"^distillation_token$", "dist_token"),
            (r"\.attention\.", ".attn."),
            (r"^classifier\.", "head."),
            (r"^distillation_classifier\.", "head_dist."),
        ]
        torchvision_rules = [
            (r"^patch_embedding\.", "conv_proj."),
            (r"^position_embedding$", "encoder.pos_embedding"),
            (r"^blocks\.(\d+)\.norm([12])", r"encoder.layers.encoder_layer_\1.ln_\2"),
            (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
            (r"\.attention\.qkv\.", ".self_attention.in_proj_"),
            (r"\.attention\.proj\.", ".self_attention.out_proj."),
            (r"\.mlp\.fc1\.", ".mlp.0."),
            (r"\.mlp\.fc2\.", ".mlp.3."),
            (r"^norm\.", "encoder.ln."),
            (r"^classifier\.", "heads.head."),
        ]
        return [
            Naming("PaddleClas", rules),
            Naming("timm", rules, torch=True),
            Naming("torchvision", torchvision_rules, torch=True),
        ]

    def adapt_weights(
        self, weights: dict[str, np.ndarray], naming: Naming | None
    ) -> dict[str, np.ndarray]:
        """Resizes a position embedding that was made for images of another size."""
        name = "position_embedding"
        found = weights.get(name)
        if found is None or found.ndim != 3 or found.shape[2] != self.num_features:
            return weights
        grid = math.isqrt(max(found.shape[1] - self.tokens, 0))
        if grid in (0, self.grid) or grid**2 != found.shape[1] - self.tokens:
            return weights
        positions = paddle.to_tensor(found).astype("float32")
        resized = resize_positions(positions, self.tokens, grid, (self.grid, self.grid))
        return weights | {name: resized.numpy()}

    def _grid_of(self, images: paddle.Tensor) -> tuple[int, int]:
        """Rows and columns of patches of [N, C, H, W]."""
        height, width = images.shape[2:]
        return math.ceil(height / self.patch_size), math.ceil(width / self.patch_size)

    def _encode(self, images: paddle.Tensor) -> paddle.Tensor:
        """Images [N, C, H, W] -> normalised tokens and patches [N, tokens + patches, width]."""
        rows, columns = self._grid_of(images)
        below = rows * self.patch_size - images.shape[2]
        right = columns * self.patch_size - images.shape[3]
        if below or right:
            images = F.pad(images, [0, right, 0, below])
        patches = self.patch_embedding(images).flatten(2).transpose([0, 2, 1])
        tokens = [self.class_token] + ([self.distillation_token] if self.distilled else [])
        tokens = [token.expand([images.shape[0], 1, self.num_features]) for token in tokens]
        positions = self.position_embedding
        if (rows, columns) != (self.grid, self.grid):
            positions = resize_positions(positions, self.tokens, self.grid, (rows, columns))
        x = self.dropout(paddle.concat([*tokens, patches], axis=1) + positions)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def resize_positions(
    positions: paddle.Tensor, tokens: int, grid: int, size: tuple[int, int]
) -> paddle.Tensor:
    """Bicubic interpolation of the patches' position embeddings; the tokens' stay.

    Args:
        positions: [1, tokens + grid * grid, width].
        tokens: that come before the patches.
        grid: rows and columns of patches that there are.
        size: rows and columns of patches that are wanted.

    Returns:
        [1, tokens + rows * columns, width].
    """
    square = positions[:, tokens:].transpose([0, 2, 1]).reshape([1, -1, grid, grid])
    resized = F.interpolate(square, size, mode="bicubic", align_corners=False)
    return paddle.concat([positions[:, :tokens], resized.flatten(2).transpose([0, 2, 1])], axis=1)
