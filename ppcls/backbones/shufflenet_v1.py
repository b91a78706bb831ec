"""ShuffleNet: "An Extremely Efficient Convolutional Neural Network for Mobile Devices".

Zhang, Zhou, Lin, Sun. CVPR 2018, https://arxiv.org/abs/1707.01083. What is special: pointwise
convolutions are grouped, too, and the channels of all groups are shuffled between two of them. At
the same cost, more groups make a wider network.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

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
    channel_axis,
    he_initialise,
    make_divisible,
    rising,
)
from ppcls.backbones.naming import Naming
from ppcls.registry import BACKBONES

# Table 1 of the paper. Groups -> width of stage 2; each further stage is twice as wide.
STAGE2_WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
# Units of stages 2, 3 and 4. The first of each has stride 2.
REPEATS = [4, 8, 4]
# Multiplier of the stages' widths -> width of the stem. 24 at 1.5 is the authors' code's.
STEM_WIDTHS = {0.25: 6, 0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}

VARIANTS = {
    f"ShuffleNetV1_g{groups}_x{width}".replace(".", "_"): {
        "groups": groups,
        "width": width,
        "stem_width": stem_width,
    }
    for groups in STAGE2_WIDTHS
    for width, stem_width in STEM_WIDTHS.items()
}
ALIASES = {name.replace("_g3", ""): name for name in VARIANTS if "_g3" in name}


class ShuffleUnit(nn.Layer):
    """Pointwise - shuffle - depthwise - pointwise (linear), Section 3.2 and Figure 2.

    The shortcut is added; with stride 2 it is averaged, and its channels come in front of the
    others. Shuffling takes place behind the depthwise convolution, as in the authors' code: the
    depthwise convolution sees each channel alone, so the function is the same, and the map is
    smaller there with stride 2.

    Args:
        channels_in, channels_out: widths of the two ends.
        stride: of the depthwise convolution.
        groups: of the second pointwise convolution.
        first_groups: of the first one.
        drop_path: probability of leaving out the path for an image in training; with stride 1.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        groups: int,
        first_groups: int,
        drop_path: float,
    ):
        super().__init__()
        # A quarter; where groups do not divide it, the multiple of them that is nearest.
        hidden = make_divisible(channels_out / 4, groups)
        self.data_format: DataFormat = "NCHW"
        self.groups, self.hidden = groups, hidden
        self.is_sum = stride == 1
        new = channels_out if self.is_sum else channels_out - channels_in
        self.path = ResidualPath(
            ("reduce", ConvNorm(channels_in, hidden, groups=first_groups, act=nn.ReLU)),
            ("depthwise", ConvNorm(hidden, hidden, 3, stride, groups=hidden)),
            *([("shuffle", nn.ChannelShuffle(groups))] if groups > 1 else []),
            ("expand", ConvNorm(hidden, new, groups=groups)),
            drop_path=drop_path,
        )
        self.act = nn.ReLU()
        if not self.is_sum:
            self.shortcut = nn.AvgPool2D(3, stride, padding=1, exclusive=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        if self.is_sum:
            return self.act(self.path(x, x))
        axis = channel_axis(self.data_format)
        return paddle.concat([self.shortcut(x), self.act(self.path(x))], axis=axis)

    def set_shuffle(self, shuffle: str) -> None:
        """Takes over the setting of the network."""
        if self.groups > 1:
            rows = self.groups if shuffle == "paper" else self.hidden // self.groups
            self.path.shuffle._groups = rows


@BACKBONES.register_variants(VARIANTS, ALIASES)
class ShuffleNetV1(StagedBackbone):
    """ShuffleNet of any width and number of groups.

    Args:
        class_num: number of classes.
        groups: of the pointwise convolutions, which sets the stages' widths: 1, 2, 3, 4 or 8.
        width: multiplier of the stages' widths.
        stem_width: width of the stem, rounded to a multiple of ``groups``.
        shuffle: with channels written row by row into a table and read column by column, it has
            a row a group in the ``paper``, and a column a group in the ``authors``' code.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        drop_path_rate: of leaving out the last unit for an image; rises to it from 0. Units with
            stride 2 are never left out.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        groups: Literal[1, 2, 3, 4, 8] = 3,
        width: Annotated[float, Field(gt=0)] = 1.0,
        stem_width: Annotated[int, Field(ge=1)] = 24,
        shuffle: Literal["paper", "authors"] = "paper",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        rates = iter(rising(drop_path_rate, sum(REPEATS)))
        channels = make_divisible(stem_width, groups)
        stem = Stage(ConvNorm(in_channels, channels, 3, 2, act=nn.ReLU), channels, 2)
        # The pooling counts as a stage, so that `stages.1` is stage 2, and the map before it
        # is one of `features`.
        stages = [Stage(nn.MaxPool2D(3, 2, padding=1), channels, 2)]
        for i, repeats in enumerate(REPEATS):
            units = nn.Sequential()
            stage_width = make_divisible(STAGE2_WIDTHS[groups] * width, groups) * 2**i
            for j in range(repeats):
                # The map that enters stage 2 has too few channels for groups.
                first_groups = 1 if i == j == 0 else groups
                stride = 2 if j == 0 else 1
                unit = ShuffleUnit(channels, stage_width, stride, groups, first_groups, next(rates))
                units.add_sublayer(str(j), unit)
                channels = stage_width
            stages.append(Stage(units, channels, 2))
        self.assemble(stem, stages, PoolToVector(), channels, class_num, dropout)
        he_initialise(self)
        self.adopt(shuffle=shuffle, data_format=data_format)

    def set_own(self, name: str, value: Any) -> bool:
        """``shuffle`` is a setting of all units."""
        if name != "shuffle":
            return False
        for layer in self.sublayers():
            if isinstance(layer, ShuffleUnit):
                layer.set_shuffle(value)
        return True

    def namings(self) -> list[Naming]:
        """The authors' (units numbered through, the classifier without bias)."""
        return [
            Naming(
                "megvii-model",
                [
                    (r"^stem\.conv\.", "first_conv.0."),
                    (r"^stem\.norm\.", "first_conv.1."),
                    (r"^classifier\.", "classifier.0."),
                    (r"^stages\.(\d+)\.(\d+)\.path\.", _authors_unit),
                    (r"\.reduce\.conv\.", ".branch_main_1.0."),
                    (r"\.reduce\.norm\.", ".branch_main_1.1."),
                    (r"\.depthwise\.conv\.", ".branch_main_1.3."),
                    (r"\.depthwise\.norm\.", ".branch_main_1.4."),
                    (r"\.expand\.conv\.", ".branch_main_2.0."),
                    (r"\.expand\.norm\.", ".branch_main_2.1."),
                ],
                torch=True,
                settings={"shuffle": "authors"},
            )
        ]

    def adapt_weights(
        self, weights: dict[str, np.ndarray], naming: Naming | None
    ) -> dict[str, np.ndarray]:
        """Fills the classifier's bias, which the authors' networks lack, with zeros."""
        if naming is None or "classifier.weight" not in weights:
            return weights
        return {**weights, "classifier.bias": np.zeros(weights["classifier.weight"].shape[1])}


def _authors_unit(match: re.Match[str]) -> str:
    before = sum(REPEATS[: int(match[1]) - 1])
    return f"features.{before + int(match[2])}."
