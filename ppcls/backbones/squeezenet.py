"""SqueezeNet: "AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size".

Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer. 2016, https://arxiv.org/abs/1602.07360. What is
special: a fire module squeezes the map to few channels before a 3x3 convolution sees it. There is
no normalisation, and no linear layer: the classifier is a pointwise convolution, whose rectified
map is averaged.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import paddle
import paddle.nn.functional as F
from paddle import nn
from pydantic import Field

from ppcls.backbones.base import Stage, StagedBackbone
from ppcls.backbones.layers import (
    DataFormat,
    DropoutMode,
    PoolToVector,
    change_settings,
    channel_axis,
    set_padding,
)
from ppcls.backbones.naming import Naming
from ppcls.registry import BACKBONES

# Table 1 of the paper: fire2 to fire9. The width is halved between the 1x1 and the 3x3 windows.
FIRES = [
    # squeeze, expand
    [16, 128],
    [16, 128],
    [32, 256],
    [32, 256],
    [48, 384],
    [48, 384],
    [64, 512],
    [64, 512],
]
# Width and window of the stem, and how many fire modules follow each of the three poolings. 1.1,
# by the authors, pools earlier: 2.4 times less computation at the same accuracy.
VERSIONS = {
    "1.0": (96, 7, (3, 4, 1)),
    "1.1": (64, 3, (2, 2, 4)),
}
VARIANTS = {
    "SqueezeNet1_0": {"version": "1.0", "stem_padding": 0},
    "SqueezeNet1_1": {"version": "1.1", "stem_padding": 1},
}


class ConvReLU(nn.Sequential):
    """Convolution with bias (``conv``) and ReLU (``act``)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1):
        super().__init__(
            ("conv", nn.Conv2D(channels_in, channels_out, kernel, stride, padding=kernel // 2)),
            ("act", nn.ReLU()),
        )


class Fire(nn.Layer):
    """Squeeze - expand with two windows - join, Section 3.2 and Figure 1.

    Args:
        channels_in: of the map.
        squeezed: width between the layers.
        channels_out: half of them come from each window.
    """

    def __init__(self, channels_in: int, squeezed: int, channels_out: int):
        super().__init__()
        self.data_format: DataFormat = "NCHW"
        self.squeeze = ConvReLU(channels_in, squeezed)
        self.expand1x1 = ConvReLU(squeezed, channels_out // 2)
        self.expand3x3 = ConvReLU(squeezed, channels_out // 2, 3)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H, W]."""
        x = self.squeeze(x)
        axis = channel_axis(self.data_format)
        return paddle.concat([self.expand1x1(x), self.expand3x3(x)], axis=axis)


class Pool(nn.MaxPool2D):
    """3x3 maximum, stride 2, without padding; of the whole map where that is smaller."""

    def __init__(self) -> None:
        super().__init__(3, 2)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, C, H, W] (or [N, H, W, C]) to about half the height and width."""
        size = x.shape[2:] if self.data_format == "NCHW" else x.shape[1:3]
        # An export for pictures of any size does not know the sides; they have to fit then.
        window = [min(self.ksize, side) if isinstance(side, int) else self.ksize for side in size]
        return F.max_pool2d(
            x, window, self.stride, ceil_mode=self.ceil_mode, data_format=self.data_format
        )


@BACKBONES.register_variants(VARIANTS)
class SqueezeNet(StagedBackbone):
    """SqueezeNet 1.0 or 1.1.

    Args:
        class_num: number of classes.
        version: "1.0" is the paper's, "1.1" the authors' faster one.
        stem_padding: zeros around the image.
        ceil_pool: whether the poolings keep an incomplete window at the end of the map.
        dropout: probability of dropping an entry of the map that enters the classifier.
        dropout_mode: see ``layers.change_settings``. As the published weights were trained, an
            evaluation multiplies the map by ``1 - dropout``.
        in_channels: of the images.
        data_format: layout of the maps between the layers.
    """

    def __init__(
        self,
        class_num: Annotated[int, Field(ge=1)] = 1000,
        version: Literal["1.0", "1.1"] = "1.1",
        stem_padding: Annotated[int, Field(ge=0)] = 1,
        ceil_pool: bool = False,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        dropout_mode: DropoutMode = "downscale_in_infer",
        in_channels: Annotated[int, Field(ge=1)] = 3,
        data_format: DataFormat = "NCHW",
    ):
        super().__init__()
        channels, kernel, counts = VERSIONS[version]
        stem = Stage(ConvReLU(in_channels, channels, kernel, 2), channels, 2)
        fires = iter(enumerate(FIRES, start=2))
        stages = []
        for count in counts:
            stage = nn.Sequential(("pool", Pool()))
            for _ in range(count):
                number, (squeezed, width) = next(fires)
                stage.add_sublayer(f"fire{number}", Fire(channels, squeezed, width))
                channels = width
            stages.append(Stage(stage, channels, 2))
        self.assemble(stem, stages, PoolToVector(), channels, class_num, dropout)
        for layer in self.sublayers():
            if isinstance(layer, nn.Conv2D):
                nn.initializer.KaimingUniform()(layer.weight)
        self.reset_classifier(class_num)
        self.adopt(
            stem_padding=stem_padding,
            ceil_pool=ceil_pool,
            dropout_mode=dropout_mode,
            data_format=data_format,
        )

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Images [N, C, H, W] -> logits [N, class_num], none of them negative."""
        x = self._lay_out(images)
        for stage in (self.stem, *self.stages):
            x = stage(x)
        return self.head(self.classifier(self.dropout(x)))

    def reset_classifier(self, class_num: int) -> None:
        """Replaces the classifier by a freshly initialised one for ``class_num`` classes."""
        self.class_num = class_num
        self.classifier = ConvReLU(self.num_features, class_num)
        change_settings(self.classifier, data_format=self.settings.get("data_format"))
        nn.initializer.Normal(0.0, 0.01)(self.classifier.conv.weight)
        nn.initializer.Constant(0.0)(self.classifier.conv.bias)

    def classifier_names(self) -> set[str]:
        """State-dict names of the classifier."""
        return {"classifier.conv.weight", "classifier.conv.bias"}

    def set_own(self, name: str, value: Any) -> bool:
        """``stem_padding`` and ``ceil_pool``."""
        if name == "stem_padding":
            set_padding(self.stem.conv, (value, value))
        elif name == "ceil_pool":
            for stage in self.stages:
                stage.pool.ceil_mode = value
        else:
            return False
        return True

    def namings(self) -> list[Naming]:
        """PaddleClas and torchvision, which numbers the poolings, too."""
        return [
            Naming(
                "PaddleClas",
                [
                    (r"^stem\.conv\.", "_conv."),
                    (r"^stages\.\d+\.fire(\d+)\.", lambda match: f"_conv{int(match[1]) - 1}."),
                    (r"\.squeeze\.conv\.", "._conv._conv."),
                    (r"\.expand1x1\.conv\.", "._conv_path1._conv."),
                    (r"\.expand3x3\.conv\.", "._conv_path2._conv."),
                    (r"^classifier\.conv\.", "_conv9."),
                ],
            ),
            Naming(
                "torchvision",
                [
                    (r"^stem\.conv\.", "features.0."),
                    (r"^stages\.(\d+)\.fire(\d+)\.", _torchvision_fire),
                    (r"^classifier\.conv\.", "classifier.1."),
                    (r"\.conv\.", "."),
                ],
                torch=True,
                settings={
                    "stem_padding": 0,
                    "ceil_pool": True,
                    "dropout_mode": "upscale_in_train",
                },
            ),
        ]


def _torchvision_fire(match: re.Match[str]) -> str:
    return f"features.{int(match[1]) + int(match[2]) + 1}."
