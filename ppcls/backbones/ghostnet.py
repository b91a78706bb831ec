"""GhostNet: "More Features from Cheap Operations".

Han, Wang, Tian, Guo, Xu, Xu. CVPR 2020, https://arxiv.org/abs/1911.11907. What is special: half of
the channels of a map come from a pointwise convolution, the other half from a depthwise
convolution of the first half.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import paddle
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import (
    ConvNorm,
    DataFormat,
    HardSigmoid,
    ResidualPath,
    SqueezeExcitation,
    channel_axis,
    he_initialise,
    make_divisible,
    norm_parameters,
    rising,
)
from ppcls.backbones.naming import Naming
from ppcls.registry import BACKBONES

# Table 7 of the paper. k: window, t: width of the middle, c: width, SE: squeeze-excitation,
# s: stride
STAGES = [
    # k, t, c, SE, s
    [[3, 16, 16, 0, 1]],
    [[3, 48, 24, 0, 2], [3, 72, 24, 0, 1]],
    [[5, 72, 40, 1, 2], [5, 120, 40, 1, 1]],
    [
        [3, 240, 80, 0, 2],
        [3, 200, 80, 0, 1],
        [3, 184, 80, 0, 1],
        [3, 184, 80, 0, 1],
        [3, 480, 112, 1, 1],
        [3, 672, 112, 1, 1],
    ],
    [
        [5, 672, 160, 1, 2],
        [5, 960, 160, 0, 1],
        [5, 960, 160, 1, 1],
        [5, 960, 160, 0, 1],
        [5, 960, 160, 1, 1],
    ],
]
STEM_WIDTH = 16
LAST_WIDTH = 960
HEAD_WIDTH = 1280
SQUEEZE = 4

# PaddleClas's squeeze-excitations differ from those of the authors, whose weights timm has.
VARIANTS: dict[str, dict[str, Any]] = {
    "GhostNet_x0_5": {"width": 0.5},
    "GhostNet_x1_0": {"width": 1.0},
    "GhostNet_x1_0_timm": {"width": 1.0, "squeeze_divisor": 4, "gate": "hard_sigmoid"},
    "GhostNet_x1_3": {"width": 1.3},
}


GATES: dict[str, Callable[[], nn.Layer]] = {
    "clip": partial(HardSigmoid, slope=1.0, offset=0.0),
    "hard_sigmoid": HardSigmoid,
}


class GhostModule(nn.Layer):
    """Pointwise convolution, and a 3x3 depthwise one of its output, joined: Section 3.1, Figure 1.

    Args:
        channels_in, channels_out: widths; ``channels_out`` is even.
        act: class of the activation behind both convolutions; None for a linear module.
    """

    def __init__(self, channels_in: int, channels_out: int, act: type[nn.Layer] | None = None):
        super().__init__()
        half = channels_out // 2
        self.data_format: DataFormat = "NCHW"
        self.primary = ConvNorm(channels_in, half, act=act)
        self.cheap = ConvNorm(half, half, 3, groups=half, act=act)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H, W]."""
        x = self.primary(x)
        return paddle.concat([x, self.cheap(x)], axis=channel_axis(self.data_format))


class GhostBottleneck(nn.Layer):
    """Ghost module - depthwise if stride is 2 - squeeze-excitation - linear ghost module, Figure 3.

    Args:
        channels_in, hidden, channels_out: widths of the ends and of the middle.
        kernel, stride: of the depthwise convolution; there is none with stride 1.
        squeezed: width of the squeeze-excitation; 0 for none.
        gate: makes its gate.
        drop_path: probability of leaving out the path for an image in training.
    """

    def __init__(
        self,
        channels_in: int,
        hidden: int,
        channels_out: int,
        kernel: int,
        stride: int,
        squeezed: int,
        gate: Callable[[], nn.Layer],
        drop_path: float,
    ):
        super().__init__()
        layers: list[tuple[str, nn.Layer]] = [("ghost1", GhostModule(channels_in, hidden, nn.ReLU))]
        if stride == 2:
            layers.append(("depthwise", ConvNorm(hidden, hidden, kernel, stride, groups=hidden)))
        if squeezed:
            layers.append(("squeeze", SqueezeExcitation(hidden, squeezed, gate=gate)))
        layers.append(("ghost2", GhostModule(hidden, channels_out)))
        self.path = ResidualPath(*layers, drop_path=drop_path)
        self.changes_shape = stride == 2 or channels_in != channels_out
        if self.changes_shape:
            self.shortcut = nn.Sequential(
                (
                    "depthwise",
                    ConvNorm(channels_in, channels_in, kernel, stride, groups=channels_in),
                ),
                ("project", ConvNorm(channels_in, channels_out)),
            )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        return self.path(x, self.shortcut(x) if self.changes_shape else x)


@BACKBONES.register_variants(VARIANTS)
class GhostNet(StagedBackbone):
    """GhostNet of any width.

    Args:
        class_num: number of classes.
        width: multiplier of all widths but the head's.
        squeeze_divisor: widths of squeeze-excitations, a quarter of the map's, are rounded to
            multiples of it; 1 cuts them off.
        gate: of the squeeze-excitations: ``clip(x, 0, 1)`` or ``clip(x / 6 + 1 / 2, 0, 1)``.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        drop_path_rate: of leaving out the last block for an image; rises to it from 0.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        width: Annotated[float, Field(gt=0)] = 1.0,
        squeeze_divisor: Annotated[int, Field(ge=1)] = 1,
        gate: Literal["clip", "hard_sigmoid"] = "clip",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()

        def squeezed(hidden: int) -> int:
            exact = hidden / SQUEEZE
            return make_divisible(exact, squeeze_divisor) if squeeze_divisor > 1 else int(exact)

        rates = iter(rising(drop_path_rate, sum(map(len, STAGES))))
        channels = make_divisible(STEM_WIDTH * width, 4)
        stem = Stage(ConvNorm(in_channels, channels, 3, 2, act=nn.ReLU), channels, 2)
        stages = []
        for rows in STAGES:
            blocks = nn.Sequential()
            for i, (k, t, c, se, s) in enumerate(rows):
                hidden, channels_out = make_divisible(t * width, 4), make_divisible(c * width, 4)
                reduced = squeezed(hidden) if se else 0
                block = GhostBottleneck(
                    channels, hidden, channels_out, k, s, reduced, GATES[gate], next(rates)
                )
                blocks.add_sublayer(str(i), block)
                channels = channels_out
            stages.append(Stage(blocks, channels, rows[0][-1]))
        last = make_divisible(LAST_WIDTH * width, 4)
        head = nn.Sequential(
            ("conv", ConvNorm(channels, last, act=nn.ReLU)),
            ("pool", nn.AdaptiveAvgPool2D(1)),
            ("expand", ConvNorm(last, HEAD_WIDTH, act=nn.ReLU)),
            ("flatten", nn.Flatten()),
        )
        self.assemble(stem, stages, head, HEAD_WIDTH, class_num, dropout)
        he_initialise(self)
        self.adopt(data_format=data_format)

    def no_weight_decay(self) -> set[str]:
        """Factors and offsets of normalisations, as in the published recipe."""
        return norm_parameters(self)

    def namings(self) -> list[Naming]:
        """PaddleClas (blocks numbered through) and timm."""
        return [
            Naming(
                "PaddleClas",
                [
                    (r"^stem\.", "conv1."),
                    (r"^head\.conv\.", "conv_last."),
                    (r"^head\.expand\.", "fc_0."),
                    (r"^classifier\.", "fc_1."),
                    (r"^stages\.(\d+)\.(\d+)\.", _published_block),
                    (r"\.path\.ghost(\d)\.primary\.", r".ghost_module_\1.primary_conv."),
                    (r"\.path\.ghost(\d)\.cheap\.", r".ghost_module_\1.cheap_operation."),
                    (r"\.path\.depthwise\.", ".depthwise_conv."),
                    (r"\.path\.squeeze\.reduce\.", ".se_block.squeeze."),
                    (r"\.path\.squeeze\.expand\.", ".se_block.excitation."),
                    (r"\.shortcut\.depthwise\.", ".shortcut_depthwise."),
                    (r"\.shortcut\.project\.", ".shortcut_conv."),
                    (r"\.conv\.weight$", "._conv.weight"),
                    (r"\.norm\.", "._batch_norm."),
                ],
            ),
            Naming(
                "timm",
                [
                    (r"^stem\.conv\.", "conv_stem."),
                    (r"^stem\.norm\.", "bn1."),
                    (r"^head\.conv\.conv\.", "blocks.9.0.conv."),
                    (r"^head\.conv\.norm\.", "blocks.9.0.bn1."),
                    (r"^head\.expand\.(conv\.weight|norm\.bias)$", _timm_head),
                    (r"^stages\.(\d+)\.(\d+)\.", _timm_block),
                    (r"\.path\.", "."),
                    (r"\.primary\.", ".primary_conv."),
                    (r"\.cheap\.", ".cheap_operation."),
                    (r"(\.ghost\d\.\w+)\.conv\.", r"\1.0."),
                    (r"(\.ghost\d\.\w+)\.norm\.", r"\1.1."),
                    (r"\.squeeze\.(reduce|expand)\.", r".se.conv_\1."),
                    (r"\.shortcut\.depthwise\.conv\.", ".shortcut.0."),
                    (r"\.shortcut\.depthwise\.norm\.", ".shortcut.1."),
                    (r"\.shortcut\.project\.conv\.", ".shortcut.2."),
                    (r"\.shortcut\.project\.norm\.", ".shortcut.3."),
                    (r"\.depthwise\.conv\.", ".conv_dw."),
                    (r"\.depthwise\.norm\.", ".bn_dw."),
                ],
                torch=True,
            ),
        ]

    def adapt_weights(
        self, weights: dict[str, np.ndarray], naming: Naming | None
    ) -> dict[str, np.ndarray]:
        """Makes the bias that timm has instead of the head's normalisation one of these."""
        if naming is None or not naming.torch or "head.expand.norm.bias" not in weights:
            return weights
        ones = np.ones(HEAD_WIDTH, np.float32)
        norm = {"weight": ones, "_mean": 0 * ones, "_variance": ones - 1e-5}
        return weights | {f"head.expand.norm.{k}": v for k, v in norm.items()}


def _published_block(match: re.Match[str]) -> str:
    before = sum(len(rows) for rows in STAGES[: int(match[1])])
    return f"_ghostbottleneck_{before + int(match[2])}."


def _timm_block(match: re.Match[str]) -> str:
    """timm, as the authors, puts the first block of a stage, which has stride 2, apart."""
    stage, block = int(match[1]), int(match[2])
    if stage == 0:
        return "blocks.0.0."
    return f"blocks.{2 * stage - 1}.0." if block == 0 else f"blocks.{2 * stage}.{block - 1}."


def _timm_head(match: re.Match[str]) -> str:
    return "conv_head." + match[1].rpartition(".")[2]
