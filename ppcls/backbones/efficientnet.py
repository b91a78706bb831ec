"""EfficientNet: "Rethinking Model Scaling for Convolutional Neural Networks".

Tan, Le. ICML 2019, https://arxiv.org/abs/1905.11946. What is special: one small network, found by
search, grows in width, depth and input size at once, by one rule.

EfficientNet-Lite is the authors' form of it for phones (Liu, 2020,
https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html):
no squeeze-excitation, ReLU6, and neither stem nor head grow.
"""

from __future__ import annotations

import math
import re
from itertools import accumulate
from typing import Annotated, Any, Literal

import paddle
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import (
    ConvNorm,
    DataFormat,
    PoolToVector,
    ResidualPath,
    SqueezeExcitation,
    he_initialise,
    make_divisible,
    norm_parameters,
    rising,
    set_padding,
)
from ppcls.backbones.naming import TIMM_INVERTED_RESIDUALS, Naming, Rule
from ppcls.registry import BACKBONES

# Table 1 of the paper. t: expansion, c: width, n: blocks, s: stride of the first, k: kernel
STAGES = [
    # t,  c, n, s, k
    [1, 16, 1, 1, 3],
    [6, 24, 2, 2, 3],
    [6, 40, 2, 2, 5],
    [6, 80, 3, 2, 3],
    [6, 112, 3, 1, 5],
    [6, 192, 4, 2, 5],
    [6, 320, 1, 1, 3],
]
STEM_WIDTH = 32
HEAD_WIDTH = 1280
SQUEEZE = 0.25  # width inside a squeeze-excitation, as a share of a block's input

# The coefficients of the authors' code; Section 3.3 of the paper says how B1 to B7 follow from B0.
# Only PaddleClas has B0_small: B0 without what is slow on a phone.
LITE: dict[str, Any] = {"lite": True, "padding": "SAME"}
VARIANTS: dict[str, dict[str, Any]] = {
    "EfficientNetB0_small": {"squeeze": False, "padding": "symmetric"},
    "EfficientNetB0": {"width": 1.0, "depth": 1.0, "image_size": 224, "dropout": 0.2},
    "EfficientNetB1": {"width": 1.0, "depth": 1.1, "image_size": 240, "dropout": 0.2},
    "EfficientNetB2": {"width": 1.1, "depth": 1.2, "image_size": 260, "dropout": 0.3},
    "EfficientNetB3": {"width": 1.2, "depth": 1.4, "image_size": 300, "dropout": 0.3},
    "EfficientNetB4": {"width": 1.4, "depth": 1.8, "image_size": 380, "dropout": 0.4},
    "EfficientNetB5": {"width": 1.6, "depth": 2.2, "image_size": 456, "dropout": 0.4},
    "EfficientNetB6": {"width": 1.8, "depth": 2.6, "image_size": 528, "dropout": 0.5},
    "EfficientNetB7": {"width": 2.0, "depth": 3.1, "image_size": 600, "dropout": 0.5},
    "EfficientNet_lite0": {"width": 1.0, "depth": 1.0, "image_size": 224, "dropout": 0.2, **LITE},
    "EfficientNet_lite1": {"width": 1.0, "depth": 1.1, "image_size": 240, "dropout": 0.2, **LITE},
    "EfficientNet_lite2": {"width": 1.1, "depth": 1.2, "image_size": 260, "dropout": 0.3, **LITE},
    "EfficientNet_lite3": {"width": 1.2, "depth": 1.4, "image_size": 280, "dropout": 0.3, **LITE},
    "EfficientNet_lite4": {"width": 1.4, "depth": 1.8, "image_size": 300, "dropout": 0.3, **LITE},
}

EfficientPadding = Literal["nominal", "SAME", "symmetric"]


class MBConv(nn.Layer):
    """Expand - depthwise - squeeze and excite - project (linear): MobileNetV2's block with a gate.

    Args:
        channels_in, channels_out: widths of the two ends.
        kernel, stride: of the depthwise convolution.
        expansion: the middle is ``expansion * channels_in`` wide; 1 leaves out the expansion.
        act: class of the activations.
        squeeze: whether there is a squeeze-excitation.
        drop_path: probability of leaving out the block for an image in training.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        expansion: int,
        act: type[nn.Layer] = nn.Silu,
        squeeze: bool = True,
        drop_path: float = 0.0,
    ):
        super().__init__()
        hidden, gate = channels_in * expansion, max(1, int(channels_in * SQUEEZE))
        self.has_shortcut = stride == 1 and channels_in == channels_out
        self.path = ResidualPath(
            *([("expand", ConvNorm(channels_in, hidden, act=act))] if expansion > 1 else []),
            ("depthwise", ConvNorm(hidden, hidden, kernel, stride, groups=hidden, act=act)),
            *([("squeeze", SqueezeExcitation(hidden, gate, act))] if squeeze else []),
            ("project", ConvNorm(hidden, channels_out)),
            drop_path=drop_path,
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        return self.path(x, x) if self.has_shortcut else self.path(x)


class EfficientNetBase(StagedBackbone):
    """What both versions of EfficientNet have in common beside the block.

    Attributes:
        image_size: side of the images that the network was made for.
    """

    image_size: int

    def initialise_classifier(self) -> None:
        """Uniform weights by the number of classes, as in the authors' code."""
        bound = 1.0 / math.sqrt(self.class_num)
        nn.initializer.Uniform(-bound, bound)(self.classifier.weight)
        nn.initializer.Constant(0.0)(self.classifier.bias)

    def no_weight_decay(self) -> set[str]:
        """Scales and shifts of the normalisations, which the authors' recipe does not decay."""
        return norm_parameters(self)

    def set_own(self, name: str, value: Any) -> bool:
        """The padding ``nominal``, see the argument of the constructor."""
        if (name, value) != ("padding", "nominal"):
            return False
        self._pad_nominally()
        return True

    def _pad_nominally(self) -> None:
        """TensorFlow's padding of each convolution if the images had the size ``image_size``.

        A window that strides over an even number of rows by two begins one row later; the row
        that is padded beyond need makes an odd number of rows come out as ``ceil(rows / 2)``.
        """
        rows = self.image_size
        for conv in (x for x in self.sublayers() if isinstance(x, nn.Conv2D)):
            half, later = conv._kernel_size[0] // 2, int(rows % 2 == 0)
            if conv._stride[0] == 2:
                set_padding(conv, (half - later, half + later))
                rows = math.ceil(rows / 2)
            else:
                set_padding(conv, "symmetric")

    def _block_number(self, match: re.Match[str]) -> int:
        """Of the block that begins with ``stages.STAGE.BLOCK``, counted through all stages."""
        before = list(accumulate((len(stage) for stage in self.stages), initial=0))
        return before[int(match[1])] + int(match[2])

    def torchvision_rules(self) -> list[Rule]:
        """Stem, stages and head are numbered, and so are the layers of a block."""

        def layer(match: re.Match[str]) -> str:
            layers = self.stages[int(match[1])][int(match[2])].path.named_children()
            number = [name for name, _ in layers].index(match[3])
            return f"features.{int(match[1]) + 1}.{match[2]}.block.{number}."

        return [
            (r"^stem\.", "features.0."),
            (r"^head\.conv\.", f"features.{len(self.stages) + 1}."),
            (r"^classifier\.", "classifier.1."),
            (r"^stages\.(\d+)\.(\d+)\.path\.(\w+)\.", layer),
            (r"\.reduce\.", ".fc1."),
            (r"\.expand\.", ".fc2."),
            (r"\.conv\.weight$", ".0.weight"),
            (r"\.norm\.", ".1."),
        ]


@BACKBONES.register_variants(VARIANTS)
class EfficientNet(EfficientNetBase):
    """EfficientNet or EfficientNet-Lite of any width and depth.

    Args:
        class_num: number of classes.
        width: multiplier of every width.
        depth: multiplier of the number of blocks of every stage.
        image_size: side of the images that the network was made for; it takes others, too.
        lite: EfficientNet-Lite: ReLU6 for SiLU, no squeeze-excitation, and the stem, the head and
            the number of blocks of the first and the last stage do not grow.
        squeeze: whether blocks have a squeeze-excitation, unless ``lite``.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        drop_path_rate: of leaving out a block for an image ("drop connect"); rises to it from 0.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
        epsilon: of the batch normalisations.
        momentum: of their running statistics.
        padding: of the convolutions. ``SAME`` is TensorFlow's: whether the odd zero comes before
            or behind depends on the size of the map. ``nominal`` decides that as if the images
            had the size ``image_size``, whatever size they have, as the published PaddleClas
            networks do. ``symmetric`` is PyTorch's.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        width: Annotated[float, Field(gt=0)] = 1.0,
        depth: Annotated[float, Field(gt=0)] = 1.0,
        image_size: Annotated[int, Field(ge=1)] = 224,
        lite: bool = False,
        squeeze: bool = True,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
        epsilon: Annotated[float, Field(gt=0)] = 1e-3,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99,
        padding: EfficientPadding = "nominal",
    ):
        super().__init__()
        self.width, self.lite, self.image_size = width, lite, image_size
        act = nn.ReLU6 if lite else nn.Silu
        depths = [math.ceil(n * depth) for _, _, n, _, _ in STAGES]
        if lite:
            depths[0], depths[-1] = STAGES[0][2], STAGES[-1][2]
        # One more, since the authors' rule would reach the rate only behind the last block.
        rates = iter(rising(drop_path_rate, sum(depths) + 1))
        channels = STEM_WIDTH if lite else make_divisible(STEM_WIDTH * width)
        stem = Stage(ConvNorm(in_channels, channels, 3, 2, act=act), channels, 2)
        stages = []
        for (t, c, _, s, k), n in zip(STAGES, depths, strict=True):
            out, blocks = make_divisible(c * width), nn.Sequential()
            for i in range(n):
                stride = s if i == 0 else 1
                block = MBConv(channels, out, k, stride, t, act, squeeze and not lite, next(rates))
                blocks.add_sublayer(str(i), block)
                channels = out
            stages.append(Stage(blocks, channels, s))
        num_features = HEAD_WIDTH if lite else make_divisible(HEAD_WIDTH * width)
        head = nn.Sequential(
            ("conv", ConvNorm(channels, num_features, act=act)), ("pool", PoolToVector())
        )
        self.assemble(stem, stages, head, num_features, class_num, dropout)
        he_initialise(self, per_group=True)
        self.adopt(padding=padding, epsilon=epsilon, momentum=momentum, data_format=data_format)

    def namings(self) -> list[Naming]:
        """PaddleClas, torchvision, timm, and EfficientNet-PyTorch (of which there is a Lite).

        timm has two sets of weights under the same names: its own (``efficientnet_b0``), which pad
        symmetrically and have another epsilon, and TensorFlow's (``tf_efficientnet_b0``). Names
        cannot tell them apart. B0 to B7 are taken for its own; behind weights of ``tf_*``, call
        ``net.adopt(padding="SAME", epsilon=1e-3)``. Lite is taken for ``tf_efficientnet_lite*``;
        behind weights of ``efficientnet_lite0``, ``net.adopt(padding="symmetric", epsilon=1e-5)``.
        """
        pytorch = Naming(
            "EfficientNet-Lite-PyTorch" if self.lite else "EfficientNet-PyTorch",
            self._efficientnet_pytorch_rules(),
            torch=True,
        )
        if self.lite:
            return [pytorch, Naming("timm", TIMM_INVERTED_RESIDUALS, torch=True)]
        symmetric = {"padding": "symmetric", "epsilon": 1e-5}
        # torchvision copied TensorFlow's epsilon for B5 to B7 only.
        torchvision = symmetric if self.width < 1.6 else {"padding": "symmetric", "epsilon": 1e-3}
        return [
            Naming("PaddleClas", self._paddleclas_rules()),
            Naming("torchvision", self.torchvision_rules(), torch=True, settings=torchvision),
            Naming("timm", TIMM_INVERTED_RESIDUALS, torch=True, settings=symmetric),
            pytorch,
        ]

    def _paddleclas_rules(self) -> list[Rule]:
        """The first block of a stage is called otherwise; names end in a dot before the next."""

        def block(match: re.Match[str]) -> str:
            kind = "_blocks" if match[2] == "0" else "block"
            return f"_ef.{kind}.{self._block_number(match)}.."

        return [
            (r"^classifier\.", "_fc."),
            (r"^stages\.(\d+)\.(\d+)\.path\.", block),
            (r"\.squeeze\.reduce\.", "._se._conv1._conv."),
            (r"\.squeeze\.expand\.", "._se._conv2._conv."),
            (r"\.expand\.", "._ecn._conv."),
            (r"\.depthwise\.", "._dcn._conv."),
            (r"\.project\.", "._pcn._conv."),
            (r"^stem\.", "_ef._conv_stem._conv."),
            (r"^head\.conv\.", "_conv."),
            (r"\.conv\.weight$", "._conv._conv.weight"),
            (r"\.norm\.", "._bn."),
        ]

    def _efficientnet_pytorch_rules(self) -> list[Rule]:
        """Blocks are counted through; normalisations are numbered as if there were all three."""
        return [
            (r"^stem\.conv", "_conv_stem"),
            (r"^stem\.norm", "_bn0"),
            (r"^head\.conv\.conv", "_conv_head"),
            (r"^head\.conv\.norm", "_bn1"),
            (r"^classifier\.", "_fc."),
            (r"^stages\.(\d+)\.(\d+)\.path\.", lambda m: f"_blocks.{self._block_number(m)}."),
            (r"\.squeeze\.", "._se_"),
            (r"\.expand\.norm", "._bn0"),
            (r"\.depthwise\.norm", "._bn1"),
            (r"\.project\.norm", "._bn2"),
            (r"\.(expand|depthwise|project)\.conv", r"._\1_conv"),
        ]
