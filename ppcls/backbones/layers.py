"""Layers that several families share. Each exists once, here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

Padding = int | Literal["SAME"]
DataFormat = Literal["NCHW", "NHWC"]
DropoutMode = Literal["upscale_in_train", "downscale_in_infer"]


def make_divisible(width: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``width``, at least ``divisor`` and 0.9 ``width``.

    The rounding rule of the MobileNet papers' reference code, kept because the published
    weights of every width depend on it.
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * width else rounded + divisor


# Convolutional networks --------------------------------------------------------------------------


class ConvNorm(nn.Sequential):
    """Convolution without bias (``conv``), batch normalisation (``norm``), activation (``act``).

    Args:
        channels_in, channels_out: widths.
        kernel, stride: of the square window.
        groups: of channels; ``channels_in`` makes the convolution depthwise.
        act: class of the activation; None for a linear layer.
        padding: zeros on each side; ``kernel // 2`` by default. ``"SAME"`` is TensorFlow's: as
            many as needed, the odd one behind.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Layer] | None = None,
        padding: Padding | None = None,
    ):
        if padding is None:
            padding = kernel // 2
        super().__init__(
            (
                "conv",
                nn.Conv2D(
                    channels_in,
                    channels_out,
                    kernel,
                    stride,
                    padding=padding,
                    groups=groups,
                    bias_attr=False,
                ),
            ),
            ("norm", nn.BatchNorm2D(channels_out)),
            *([] if act is None else [("act", act())]),
        )


def identity_conv_norm(name: str, state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Weights with which the pointwise ``ConvNorm`` called ``name`` does nothing.

    A published network may have one where another library's has nothing.
    """
    kernel = np.zeros(state[f"{name}.conv.weight"].shape, dtype=np.float32)
    kernel[:, :, 0, 0] = np.eye(len(kernel))
    ones, zeros = np.ones(len(kernel), np.float32), np.zeros(len(kernel), np.float32)
    norm = {"weight": ones, "bias": zeros, "_mean": zeros, "_variance": ones - 1e-5}
    return {f"{name}.conv.weight": kernel, **{f"{name}.norm.{k}": v for k, v in norm.items()}}


def channel_axis(data_format: str) -> int:
    """The axis of a map's channels: 1 of [N, C, H, W], 3 of [N, H, W, C]."""
    return 1 if data_format == "NCHW" else 3


class HardSigmoid(nn.Layer):
    """``clip(slope * x + offset, 0, 1)``. MobileNetV3's paper has slope 1/6, PaddleClas 0.2."""

    def __init__(self, slope: float = 1 / 6, offset: float = 0.5):
        super().__init__()
        self.slope, self.offset = slope, offset

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps a tensor of any shape, entry by entry."""
        return F.hardsigmoid(x, slope=self.slope, offset=self.offset)


class SqueezeExcitation(nn.Layer):
    """Scales each channel by a gate that sees the mean of all (Hu et al., CVPR 2018, Section 3).

    Args:
        channels: of the map.
        hidden: width between the two pointwise convolutions ``reduce`` and ``expand``.
        act: class of the activation behind ``reduce``.
        gate: makes the layer behind ``expand``.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        act: type[nn.Layer] = nn.ReLU,
        gate: Callable[[], nn.Layer] = nn.Sigmoid,
    ):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.reduce = nn.Conv2D(channels, hidden, 1)
        self.act = act()
        self.expand = nn.Conv2D(hidden, channels, 1)
        self.gate = gate()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, C, H, W] (or [N, H, W, C]) to the same shape."""
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))


class ResidualPath(nn.Sequential):
    """Layers one after the other; then, if one is given, a shortcut is added.

    The sum is part of the path so that a CPU can do both in one go.

    Args:
        layers: as for ``nn.Sequential``.
        drop_path: probability of leaving out the path of an image in training; needs a shortcut.
    """

    def __init__(self, *layers: Any, drop_path: float = 0.0):
        super().__init__(*layers)
        self.drop_path = drop_path
        self.data_format: DataFormat = "NCHW"

    def forward(
        self, x: paddle.Tensor, shortcut: paddle.Tensor | None = None, carried: int | None = None
    ) -> paddle.Tensor:
        """Maps x through the layers and adds the first ``carried`` channels of the shortcut."""
        for layer in self:
            x = layer(x)
        return x if shortcut is None else self.join(x, shortcut, carried)

    def join(
        self, x: paddle.Tensor, shortcut: paddle.Tensor, carried: int | None = None
    ) -> paddle.Tensor:
        """What comes out of the path, or nothing of it if it is dropped, and the shortcut."""
        if self.drops():
            x = drop_path(x, self.drop_path)
        return self.add(x, shortcut, carried, channel_axis(self.data_format))

    def drops(self) -> bool:
        """Whether paths are left out at the moment."""
        return self.training and self.drop_path > 0

    @staticmethod
    def add(
        x: paddle.Tensor, shortcut: paddle.Tensor, carried: int | None, axis: int = 1
    ) -> paddle.Tensor:
        """x + shortcut on the first ``carried`` channels (all if None), x on the others."""
        channels = x.shape[axis]
        if carried is None or carried == channels:
            return x + shortcut
        share, rest = paddle.split(x, [carried, channels - carried], axis)
        carries, _ = paddle.split(shortcut, [carried, channels - carried], axis)
        return paddle.concat([share + carries, rest], axis)


class PoolToVector(nn.Sequential):
    """The mean of each channel: [N, C, H, W] (or [N, H, W, C]) -> [N, C]."""

    def __init__(self) -> None:
        super().__init__(("pool", nn.AdaptiveAvgPool2D(1)), ("flatten", nn.Flatten()))


def he_initialise(net: nn.Layer, per_group: bool = False) -> None:
    """Normal weights of all convolutions, by fan-out (of all channels, also for depthwise).

    As the authors of the MobileNets and of ResNet do (He et al., ICCV 2015). Biases become zero.

    Args:
        net: its convolutions, however deep.
        per_group: count the channels of a group only, as the authors of EfficientNet do.
    """
    for layer in net.sublayers(include_self=True):
        if isinstance(layer, nn.Conv2D):
            channels = layer.weight.shape[0] // (layer._groups if per_group else 1)
            fan_out = channels * math.prod(layer.weight.shape[2:])
            nn.initializer.Normal(0.0, math.sqrt(2.0 / fan_out))(layer.weight)
            if layer.bias is not None:
                nn.initializer.Constant(0.0)(layer.bias)


def truncated_normal_initialise(net: nn.Layer, std: float = 0.02) -> None:
    """Truncated normal weights of all linear layers and convolutions; biases become zero.

    As the authors of DeiT and of ConvNeXt do.
    """
    for layer in net.sublayers(include_self=True):
        if isinstance(layer, (nn.Linear, nn.Conv2D)):
            nn.initializer.TruncatedNormal(0.0, std)(layer.weight)
            if layer.bias is not None:
                nn.initializer.Constant(0.0)(layer.bias)


def norm_parameters(net: nn.Layer) -> set[str]:
    """State-dict names of the factors and offsets of all batch normalisations."""
    return {
        f"{name}.{parameter}"
        for name, layer in net.named_sublayers()
        if isinstance(layer, nn.BatchNorm2D)
        for parameter, _ in layer.named_parameters(include_sublayers=False)
        if not parameter.startswith("_")  # running statistics
    }


# Stochastic depth --------------------------------------------------------------------------------


def drop_path(x: paddle.Tensor, rate: float) -> paddle.Tensor:
    """Zeroes whole images of a batch with probability ``rate``, and scales the others up.

    Stochastic depth, Huang et al., ECCV 2016, https://arxiv.org/abs/1603.09382.
    """
    keep = 1.0 - rate
    mask = paddle.rand([x.shape[0]] + [1] * (x.ndim - 1)) < keep
    return x * (mask.astype(x.dtype) / keep)


class DropPath(nn.Layer):
    """``drop_path`` in training, nothing in evaluation."""

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps a tensor [N, ...] to the same shape."""
        return drop_path(x, self.rate) if self.training and self.rate > 0 else x


def rising(maximum: float, blocks: int) -> list[float]:
    """Rates of drop path: linear from 0 at the first block to ``maximum`` at the last."""
    return [maximum * i / max(blocks - 1, 1) for i in range(blocks)]


# Transformers ------------------------------------------------------------------------------------


class Mlp(nn.Layer):
    """Two linear layers (``fc1``, ``fc2``) with an activation between them."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        act: type[nn.Layer] = nn.GELU,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = act()
        self.fc2 = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [..., channels] to the same shape."""
        return self.dropout(self.fc2(self.dropout(self.act(self.fc1(x)))))


class AttentionProduct(nn.Layer):
    """``softmax(scale * q k^T + bias) v``: the part of attention that has no parameters.

    It is a layer so that it can be seen, by ``ppcls.count_macs`` for one.

    Args:
        dropout: probability of dropping an entry of the attention map in training.
    """

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        q: paddle.Tensor,
        k: paddle.Tensor,
        v: paddle.Tensor,
        scale: float | paddle.Tensor,
        bias: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Attends.

        Args:
            q: [..., queries, channels].
            k: [..., keys, channels].
            v: [..., keys, channels].
            scale: multiplies q; a number, or a tensor that can be multiplied with q.
            bias: is added before the softmax; broadcastable to [..., queries, keys].

        Returns:
            [..., queries, channels].
        """
        weights = paddle.matmul(q * scale, k, transpose_y=True)
        if bias is not None:
            weights = weights + bias
        return paddle.matmul(self.dropout(F.softmax(weights, axis=-1)), v)


# Whole networks ----------------------------------------------------------------------------------


def change_settings(
    net: nn.Layer,
    epsilon: float | None = None,
    momentum: float | None = None,
    gate_slope: float | None = None,
    padding: Literal["symmetric", "SAME"] | None = None,
    dropout_mode: DropoutMode | None = None,
    data_format: DataFormat | None = None,
) -> None:
    """Changes what all layers of a network have in common.

    Set once over the whole network, because handing each through every block would drown them.

    Args:
        epsilon: of all batch normalisations.
        momentum: of their running statistics: the share that is kept at each step.
        gate_slope: of all ``HardSigmoid`` gates.
        padding: of all convolutions: ``symmetric`` is ``kernel // 2`` on each side, ``SAME``
            is TensorFlow's.
        dropout_mode: of all dropouts. ``downscale_in_infer``, which some published Paddle weights
            were trained with, leaves what survives as it is and scales in evaluation instead.
        data_format: of all layers; maps are [N, H, W, C] between them with ``NHWC``.
    """
    for layer in net.sublayers(include_self=True):
        if isinstance(layer, nn.BatchNorm2D):
            layer._epsilon = layer._epsilon if epsilon is None else epsilon
            layer._momentum = layer._momentum if momentum is None else momentum
        if gate_slope is not None and isinstance(layer, HardSigmoid):
            layer.slope = gate_slope
        if padding is not None and isinstance(layer, nn.Conv2D):
            set_padding(layer, padding)
        if dropout_mode is not None and isinstance(layer, nn.Dropout):
            layer.mode = dropout_mode
        if data_format is not None:
            _set_data_format(layer, data_format)


def set_padding(conv: nn.Conv2D, padding: str | tuple[int, int]) -> None:
    """Changes the zeros around a map: ``symmetric``, ``SAME``, or (before, behind) in both axes."""
    same = padding == "SAME"
    pad = [size // 2 for size in conv._kernel_size] if isinstance(padding, str) else [*padding] * 2
    conv._padding = "SAME" if same else pad
    conv._padding_algorithm = "SAME" if same else "EXPLICIT"
    conv._updated_padding = [0, 0] if same else pad


def _set_data_format(layer: nn.Layer, data_format: str) -> None:
    for name in ("_data_format", "data_format"):
        if name in layer.__dict__:
            setattr(layer, name, data_format)
    if isinstance(layer, nn.Conv2D):
        layer._channel_dim = 1 if data_format == "NCHW" else -1
