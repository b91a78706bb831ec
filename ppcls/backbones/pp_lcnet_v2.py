"""PP-LCNetV2, PP-LCNet's successor of 2022.

Without a paper; PaddleClas's documentation of it, https://github.com/PaddlePaddle/PaddleClas, is
the reference. What is special: PP-LCNet's blocks with more of what costs an Intel CPU little. In
the last two stages depthwise convolutions of several sizes are trained beside each other and fused
into one for inference; pointwise convolutions of the third stage go through half the width; the
last stage has shortcuts; and plain ReLU suffices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import (
    ConvNorm,
    DataFormat,
    DropoutMode,
    ResidualPath,
    SqueezeExcitation,
    he_initialise,
    make_divisible,
    norm_parameters,
)
from ppcls.backbones.naming import Naming
from ppcls.registry import BACKBONES

# c: width, k: the largest kernel, sizes: whether there are smaller ones beside it, half: pointwise
# convolutions through half the width, se: squeeze-excitation, short: shortcuts. The first block of
# every stage has stride 2.
STAGES = [
    # c,  k, sizes, half,  se,    short
    (128, 3, False, False, False, False),
    (256, 3, False, False, False, False),
    (512, 5, True, True, True, False),
    (1024, 5, True, False, False, True),
]
STEM_WIDTHS = 32, 64
HEAD_WIDTH = 1280
SQUEEZE = 4  # reduction of the squeeze-excitations

Blocks = Annotated[int, Field(ge=1)]
VARIANTS = {
    "PPLCNetV2_small": {"width": 0.75, "depths": (2, 2, 4, 2)},
    "PPLCNetV2_base": {"width": 1.0, "depths": (2, 2, 6, 2)},
    "PPLCNetV2_large": {"width": 1.25, "depths": (2, 2, 8, 2)},
}


class MultiSizeDepthwise(nn.Layer):
    """Depthwise convolutions of all odd sizes up to ``kernel``, each with its norm, summed.

    Strided ones leave out the size of one pixel.

    Args:
        channels: of the map.
        kernel, stride: the largest size, and the stride of all.
    """

    def __init__(self, channels: int, kernel: int, stride: int):
        super().__init__()
        self.branches = nn.LayerList()
        for size in range(kernel, 0, -2):
            if size > 1 or stride == 1:
                layers = ConvNorm(channels, channels, size, stride, groups=channels)
                self.branches.append(ResidualPath(*layers.named_children()))
        # Published weights have the convolution that takes the place of the branches, too.
        padding = kernel // 2
        self.fused = nn.Conv2D(channels, channels, kernel, stride, padding, groups=channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, C, H, W] -> [N, C, H/stride, W/stride]."""
        total: paddle.Tensor | None = None
        for branch in self.branches:
            total = branch(x, total)
        return total

    def fuse(self) -> nn.Conv2D:
        """The one convolution that does what all branches do in evaluation."""
        kernel, bias = 0, 0
        with paddle.no_grad():
            for branch in self.branches:
                norm, weight = branch.norm, branch.conv.weight
                scale = norm.weight / (norm._variance + norm._epsilon).sqrt()
                margin = (self.fused._kernel_size[0] - weight.shape[-1]) // 2
                kernel = kernel + F.pad(weight * scale.reshape([-1, 1, 1, 1]), [margin] * 4)
                bias = bias + norm.bias - norm._mean * scale
            self.fused.weight.set_value(kernel)
            self.fused.bias.set_value(bias)
        return self.fused


class DepthwiseSeparable(nn.Layer):
    """Depthwise - squeeze-excitation, if any - one or two pointwise convolutions.

    Args:
        channels_in, channels_out: widths of the two ends.
        kernel, stride: of the depthwise convolution.
        sizes: whether it has smaller ones beside it.
        half: whether there are two pointwise ones, the first half as wide as the second.
        squeeze: whether there is a squeeze-excitation.
        shortcut: whether a block that keeps the shape has a shortcut.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int = 1,
        sizes: bool = False,
        half: bool = False,
        squeeze: bool = False,
        shortcut: bool = False,
    ):
        super().__init__()
        self.has_shortcut = shortcut and stride == 1 and channels_in == channels_out
        self.path = ResidualPath()
        add = self.path.add_sublayer
        if sizes:
            add("depthwise", MultiSizeDepthwise(channels_in, kernel, stride))
            add("act", nn.ReLU())
        else:
            depthwise = ConvNorm(
                channels_in, channels_in, kernel, stride, groups=channels_in, act=nn.ReLU
            )
            add("depthwise", depthwise)
        if squeeze:
            add("squeeze", SqueezeExcitation(channels_in, channels_in // SQUEEZE))
        if half:
            add("reduce", ConvNorm(channels_in, channels_out // 2, act=nn.ReLU))
            add("expand", ConvNorm(channels_out // 2, channels_out, act=nn.ReLU))
        else:
            add("pointwise", ConvNorm(channels_in, channels_out, act=nn.ReLU))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        return self.path(x, x) if self.has_shortcut else self.path(x)


@BACKBONES.register_variants(VARIANTS)
class PPLCNetV2(StagedBackbone):
    """PP-LCNetV2 of any width and depth.

    Args:
        class_num: number of classes.
        width: multiplier of every width but that of the head.
        depths: blocks of the four stages.
        dropout: probability of dropping an entry of the vector that enters the classifier.
        dropout_mode: ``downscale_in_infer`` makes that vector smaller in evaluation, which the
            published weights count on; ``upscale_in_train`` makes it larger in training.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        width: Annotated[float, Field(gt=0)] = 1.0,
        depths: Annotated[Sequence[Blocks], Field(min_length=4, max_length=4)] = (2, 2, 6, 2),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
        dropout_mode: DropoutMode = "downscale_in_infer",
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        first, channels = (make_divisible(c * width) for c in STEM_WIDTHS)
        entry = ConvNorm(in_channels, first, 3, 2, act=nn.ReLU)
        stem = Stage(nn.Sequential(entry, DepthwiseSeparable(first, channels, 3)), channels, 2)
        stages = []
        for (c, k, sizes, half, se, short), n in zip(STAGES, depths, strict=True):
            blocks = nn.Sequential()
            wide = make_divisible(c * width)
            for i in range(n):
                block = DepthwiseSeparable(
                    channels,
                    wide,
                    kernel=k,
                    stride=2 if i == 0 else 1,
                    sizes=sizes,
                    half=half,
                    squeeze=se,
                    shortcut=short,
                )
                blocks.add_sublayer(str(i), block)
                channels = wide
            stages.append(Stage(blocks, channels, 2))
        head = nn.Sequential(
            ("pool", nn.AdaptiveAvgPool2D(1)),
            ("conv", nn.Conv2D(channels, HEAD_WIDTH, 1, bias_attr=False)),
            ("act", nn.ReLU()),
            ("flatten", nn.Flatten()),
        )
        self.assemble(stem, stages, head, HEAD_WIDTH, class_num, dropout)
        he_initialise(self, per_group=True)
        self.adopt(dropout_mode=dropout_mode, data_format=data_format)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Images [N, C, H, W] -> logits [N, class_num]."""
        logits = super().forward(images)
        # The fused convolutions are trainable parameters, as they are of the published networks,
        # so that data-parallel training waits for their gradients: zeros, from here.
        idle = [p.sum() for layer in self._unfused() for p in layer.fused.parameters()]
        return logits + 0.0 * sum(idle) if self.training and idle else logits

    def fuse(self) -> None:
        """Puts one convolution in the place of every sum of several sizes, for inference.

        The network answers as it did in evaluation, faster. Load weights before: its state dict is
        smaller then, and does not fit an unfused network, nor the other way around.
        """
        for block in self.sublayers():
            if isinstance(block, ResidualPath):
                for name, layer in list(block.named_children()):
                    if isinstance(layer, MultiSizeDepthwise):
                        block._sub_layers[name] = layer.fuse()

    def _unfused(self) -> list[MultiSizeDepthwise]:
        return [layer for layer in self.sublayers() if isinstance(layer, MultiSizeDepthwise)]

    def no_weight_decay(self) -> set[str]:
        """Norm parameters, which the published networks never decay."""
        return norm_parameters(self)

    def namings(self) -> list[Naming]:
        """PaddleClas and timm; none once fused, as published weights are of all sizes."""
        if not self._unfused():
            return []
        common = [
            (r"^classifier\.", "fc."),
            (r"\.path\.", "."),
            (r"\.depthwise\.branches\.", ".dw_conv_list."),
            (r"\.depthwise\.(fused\.)?", ".dw_conv."),
            (r"\.pointwise\.", ".pw_conv."),
            (r"\.norm\.", ".bn."),
        ]
        published = [
            (r"^head\.conv\.", "last_conv."),
            (r"\.squeeze\.reduce\.", ".se.conv1."),
            (r"\.squeeze\.expand\.", ".se.conv2."),
            (r"\.reduce\.", ".pw_conv_1."),
            (r"\.expand\.", ".pw_conv_2."),
        ]
        timm = [
            (r"^head\.conv\.", "conv_head."),
            (r"^fc\.", "classifier."),
            (r"\.squeeze\.reduce\.", ".se.fc1."),
            (r"\.squeeze\.expand\.", ".se.fc2."),
            (r"\.reduce\.", ".pw_conv.0."),
            (r"\.expand\.", ".pw_conv.1."),
        ]
        settings = {"dropout_mode": "upscale_in_train"}
        return [
            Naming("PaddleClas", [*common, *published]),
            Naming("timm", [*common, *timm], torch=True, settings=settings),
        ]

    def adapt_weights(
        self, weights: dict[str, np.ndarray], naming: Naming | None
    ) -> dict[str, np.ndarray]:
        """Leaves the fused convolutions, which timm lacks until it fuses, as they are."""
        if naming is None or not naming.torch:
            return weights
        own = {k: v.numpy() for k, v in self.state_dict().items() if ".fused." in k}
        return own | weights
