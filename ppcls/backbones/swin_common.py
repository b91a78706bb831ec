"""What both versions of the Swin Transformer share: blocks, stages, the whole network."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppcls.backbones.base import Backbone, FeatureInfo
from ppcls.backbones.layers import DropPath, Mlp, rising, truncated_normal_initialise
from ppcls.backbones.naming import Naming, Rule
from ppcls.backbones.recompute import Recomputable
from ppcls.backbones.windows import WindowGrid
from ppcls.errors import ArgumentError

PATCH = 4  # pixels, the side of a patch

# What the networks of other libraries compute for themselves, but store at times.
COMPUTED = r"(^|\.)(num_batches_tracked|attn_mask|relative_(position_(index|bias)|coords_table))$"


class SwinBlock(Recomputable):
    """Attention within windows, then an MLP; each is normalised before, and added (Equation 3).

    Args:
        channels: width of the map.
        attention: of the windows.
        hidden: width of the MLP's middle.
        dropout: in the MLP.
        drop_path: probability of leaving out a path of an image in training.
    """

    def __init__(
        self, channels: int, attention: nn.Layer, hidden: int, dropout: float, drop_path: float
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = attention
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, hidden, dropout=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: paddle.Tensor, grid: WindowGrid) -> paddle.Tensor:
        """Maps [N, H, W, channels] to the same shape."""
        x = x + self.drop_path(self.attend(self.norm1(x), grid))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def attend(self, x: paddle.Tensor, grid: WindowGrid) -> paddle.Tensor:
        """Attention in the windows of a map."""
        return grid.join(self.attention(grid.split(x), grid.apart))


class PatchEmbedding(nn.Layer):
    """A linear layer on each patch, as a convolution, and normalisation."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.proj = nn.Conv2D(in_channels, channels, PATCH, PATCH)
        self.norm = nn.LayerNorm(channels)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """[N, C, H, W] -> [N, H/4, W/4, channels], rounded up."""
        below, right = (-side % PATCH for side in images.shape[2:])
        if below or right:
            images = F.pad(images, [0, right, 0, below])
        return self.norm(self.proj(images).transpose([0, 2, 3, 1]))


class PatchMerging(nn.Layer):
    """Joins 2x2 cells to one of twice the width (Section 3.1)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias_attr=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """[N, H, W, C] -> [N, H/2, W/2, 2C], rounded up."""
        return self.reduction(self.norm(self.gather(x)))

    @staticmethod
    def gather(x: paddle.Tensor) -> paddle.Tensor:
        """[N, H, W, C] -> [N, H/2, W/2, 4C]: left column first, as in all published weights."""
        height, width, channels = x.shape[1:]
        if height % 2 or width % 2:
            x = F.pad(x, [0, width % 2, 0, height % 2], data_format="NHWC")
        rows, columns = math.ceil(height / 2), math.ceil(width / 2)
        x = x.reshape([-1, rows, 2, columns, 2, channels]).transpose([0, 1, 3, 4, 2, 5])
        return x.reshape([-1, rows, columns, 4 * channels])


class SwinStage(nn.Layer):
    """Patch merging, except in the first stage, and blocks; every other one is shifted.

    Attributes:
        shift_single: as in ``WindowGrid``.
    """

    def __init__(self, merge: nn.Layer, blocks: Sequence[nn.Layer], window: int):
        super().__init__()
        self.merge = merge
        self.blocks = nn.LayerList(blocks)
        self.window, self.shift_single = window, False

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """[N, H, W, C] -> [N, H/2, W/2, 2C]; the same shape in the first stage."""
        x = self.merge(x)
        height, width = x.shape[1:3]
        grids = [
            WindowGrid(height, width, self.window, shifted, self.shift_single)
            for shifted in (False, True)
        ]
        for i, block in enumerate(self.blocks):
            x = block(x, grids[i % 2])
        return x


# Networks ----------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a block stands, which decides its sizes."""

    stage: int
    channels: int
    heads: int
    window: int
    drop_path: float


class WindowTransformer(Backbone):
    """Patch embedding, stages, normalisation and classifier.

    Attributes:
        embedding: images -> maps [N, H, W, C].
        dropout: of these maps.
        stages: a LayerList of ``SwinStage``.
        norm: of the last map.
        classifier: the linear layer.
    """

    recomputable = (SwinBlock,)

    def assemble(
        self,
        block: Callable[[Place], nn.Layer],
        merging: type[PatchMerging],
        image_size: int,
        window: int,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        class_num: int,
        dropout: float,
        drop_path_rate: float,
        in_channels: int,
    ) -> None:
        """Sets all attributes; ``block`` makes the block of a place, ``merging`` joins patches.

        A stage whose map, at ``image_size``, is smaller than the window has windows of the size
        of the map, as in the published networks.
        """
        if len(heads) != len(depths):
            raise ArgumentError("heads", f"expected {len(depths)} numbers, one a stage: {heads}")
        self.class_num = class_num
        self.embedding = PatchEmbedding(in_channels, width)
        self.dropout = nn.Dropout(dropout)
        self.stages = nn.LayerList()
        rates = iter(rising(drop_path_rate, sum(depths)))
        side, channels = math.ceil(image_size / PATCH), width
        for i, (depth, number) in enumerate(zip(depths, heads, strict=True)):
            if channels % number:
                raise ArgumentError("heads", f"{number} heads do not divide {channels} channels")
            place = Place(i, channels, number, min(window, side), 0.0)
            blocks = [block(place._replace(drop_path=next(rates))) for _ in range(depth)]
            merge = merging(channels // 2) if i > 0 else nn.Identity()
            self.stages.append(SwinStage(merge, blocks, place.window))
            side, channels = math.ceil(side / 2), channels * 2
        self.num_features = channels // 2
        self.norm = nn.LayerNorm(self.num_features)
        self.classifier = nn.Linear(self.num_features, class_num)
        self.feature_info = [FeatureInfo(PATCH << i, width << i) for i in range(len(depths))]
        truncated_normal_initialise(self)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Images [N, C, H, W] -> logits [N, class_num]."""
        return self.classifier(self._maps(images)[-1].mean([1, 2]))

    def features(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        """The map [N, C, H, W] of every stage, the last one normalised; strides 4, 8, 16 ..."""
        return [x.transpose([0, 3, 1, 2]) for x in self._maps(images)]

    def _maps(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        """The map [N, H, W, C] of every stage."""
        x = self.dropout(self.embedding(images))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        maps[-1] = self.norm(x)
        return maps

    def reset_classifier(self, class_num: int) -> None:
        """Replaces the classifier by a freshly initialised one for ``class_num`` classes."""
        self.class_num = class_num
        self.classifier = nn.Linear(self.num_features, class_num)
        truncated_normal_initialise(self.classifier)

    def classifier_names(self) -> set[str]:
        """State-dict names of the classifier."""
        return {"classifier.weight", "classifier.bias"}

    def no_weight_decay(self) -> set[str]:
        """Norms, biases and what tells positions, as in the authors' recipes."""
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim == 1 or ".position." in name or name.endswith(".logit_scale")
        }


def window_namings(
    published: list[Rule], torchvision: list[Rule], torch_settings: Mapping[str, Any] | None = None
) -> list[Naming]:
    """PaddleClas, torchvision and timm.

    Args:
        published: rules for what tells positions, which PaddleClas and timm call as the authors.
        torchvision: the same for torchvision.
        torch_settings: what weights of torchvision and timm need.
    """
    attention: Rule = (r"\.attention\.", ".attn.")
    return [
        Naming(
            "PaddleClas",
            [
                *published,
                attention,
                (r"^embedding\.", "patch_embed."),
                (r"^stages\.(\d+)\.merge\.", _downsample),
                (r"^stages\.", "layers."),
                (r"^classifier\.", "head."),
            ],
            ignored=COMPUTED,
        ),
        Naming(
            "torchvision",
            [
                *torchvision,
                attention,
                (r"^embedding\.proj\.", "features.0.0."),
                (r"^embedding\.norm\.", "features.0.2."),
                (r"^stages\.(\d+)\.merge\.", lambda m: f"features.{2 * int(m[1])}."),
                (r"^stages\.(\d+)\.blocks\.", lambda m: f"features.{2 * int(m[1]) + 1}."),
                (r"\.fc1\.", ".0."),
                (r"\.fc2\.", ".3."),
                (r"^classifier\.", "head."),
            ],
            torch=True,
            settings=torch_settings or {},
            ignored=COMPUTED,
        ),
        Naming(
            "timm",
            [
                *published,
                attention,
                (r"^embedding\.", "patch_embed."),
                (r"\.merge\.", ".downsample."),
                (r"^stages\.", "layers."),
                (r"^classifier\.", "head.fc."),
            ],
            torch=True,
            settings=torch_settings or {},
            ignored=COMPUTED,
        ),
    ]


def _downsample(match: re.Match[str]) -> str:
    """Patches are merged at the end of the stage before, there."""
    return f"layers.{int(match[1]) - 1}.downsample."
