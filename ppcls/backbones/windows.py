"""Attention within windows, which both versions of the Swin Transformer share."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from ppcls.backbones.layers import AttentionProduct

APART = -100.0  # is added to the attention between tokens that only the shift made neighbours


class WindowGrid:
    """How maps of one size are cut into windows, and put together again (Section 3.2, Figure 4).

    A map whose sides the window does not divide is padded with zeros at the right and the bottom.
    A shifted grid moves the map to the top left, around the edges.

    Args:
        height, width: of the maps.
        window: side of a window.
        shifted: whether the grid is moved by half a window.
        shift_single: move it along a side that a single window covers, too.

    Attributes:
        apart: None, or [windows, tokens, tokens]: which tokens of a window are no neighbours in
            the image. Computed from the sides alone, so that any size can be exported.
    """

    def __init__(
        self, height: int, width: int, window: int, shifted: bool, shift_single: bool = False
    ):
        self.size, self.window = (height, width), window
        self.padded = [math.ceil(side / window) * window for side in self.size]
        self.shifts = [
            window // 2 if shifted and (shift_single or side > window) else 0
            for side in self.padded
        ]
        self.apart = self._apart() if any(self.shifts) else None

    def split(self, x: paddle.Tensor) -> paddle.Tensor:
        """[N, height, width, C] -> [N, windows, tokens of a window, C]."""
        below, right = self.padded[0] - self.size[0], self.padded[1] - self.size[1]
        if below or right:
            x = F.pad(x, [0, right, 0, below], data_format="NHWC")
        if any(self.shifts):
            x = paddle.roll(x, [-shift for shift in self.shifts], axis=[1, 2])
        return self._cut(x)

    def join(self, windows: paddle.Tensor) -> paddle.Tensor:
        """[N, windows, tokens of a window, C] -> [N, height, width, C]."""
        rows, columns = (side // self.window for side in self.padded)
        channels = windows.shape[-1]
        x = windows.reshape([-1, rows, columns, self.window, self.window, channels])
        x = x.transpose([0, 1, 3, 2, 4, 5]).reshape([-1, *self.padded, channels])
        if any(self.shifts):
            x = paddle.roll(x, self.shifts, axis=[1, 2])
        height, width = self.size
        return x if self.padded == [height, width] else x[:, :height, :width]

    def _cut(self, x: paddle.Tensor) -> paddle.Tensor:
        rows, columns = (side // self.window for side in self.padded)
        channels = x.shape[-1]
        x = x.reshape([-1, rows, self.window, columns, self.window, channels])
        x = x.transpose([0, 1, 3, 2, 4, 5])
        return x.reshape([-1, rows * columns, self.window**2, channels])

    def _apart(self) -> paddle.Tensor:
        rows = self._regions(self.padded[0], self.shifts[0])
        columns = self._regions(self.padded[1], self.shifts[1])
        regions = rows.reshape([1, -1, 1, 1]) * 3 + columns.reshape([1, 1, -1, 1])
        tokens = self._cut(regions).squeeze([0, 3])
        return tokens.unsqueeze(1) != tokens.unsqueeze(2)

    def _regions(self, side: int, shift: int) -> paddle.Tensor:
        """Numbers the cells along a side by the parts, at most three, that the shift cut apart."""
        cells = paddle.arange(side)
        if shift == 0:
            return cells * 0
        ends = (cells >= side - self.window, cells >= side - shift)
        return ends[0].astype("int64") + ends[1].astype("int64")


def relative_index(window: int) -> np.ndarray:
    """[tokens, tokens]: the row, in a table of all offsets, of the offset between two tokens."""
    rows, columns = np.divmod(np.arange(window**2), window)
    down = rows[:, None] - rows + window - 1
    right = columns[:, None] - columns + window - 1
    return down * (2 * window - 1) + right


class WindowAttention(nn.Layer):
    """Self-attention among the tokens of each window.

    Args:
        channels: width of the tokens.
        heads: number of heads; divides the channels.
        position: gives the bias [heads, tokens, tokens].
        dropout: of what comes out, in training.
        attention_dropout: of the attention map.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        position: nn.Layer,
        dropout: float,
        attention_dropout: float,
    ):
        super().__init__()
        self.heads = heads
        self.qkv = self.projection(channels)
        self.position = position
        self.product = AttentionProduct(attention_dropout)
        self.proj = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: paddle.Tensor, apart: paddle.Tensor | None = None) -> paddle.Tensor:
        """[N, windows, tokens, C] -> the same shape; ``apart`` as in ``WindowGrid``."""
        windows, tokens, channels = x.shape[1:]
        qkv = self.qkv(x).reshape([-1, windows, tokens, 3, self.heads, channels // self.heads])
        q, k, v = qkv.transpose([3, 0, 1, 4, 2, 5]).unbind(0)
        bias = self.position()
        if apart is not None:
            bias = bias + apart.unsqueeze(1).astype(bias.dtype) * APART
        x = self.attend(q, k, v, bias)
        x = x.transpose([0, 1, 3, 2, 4]).reshape([-1, windows, tokens, channels])
        return self.dropout(self.proj(x))

    @staticmethod
    def projection(channels: int) -> nn.Layer:
        """To queries, keys and values: [..., channels] -> [..., 3 * channels]."""
        return nn.Linear(channels, 3 * channels)

    def attend(
        self, q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, bias: paddle.Tensor
    ) -> paddle.Tensor:
        """[N, windows, heads, tokens, C / heads], three times -> the same shape."""
        return self.product(q, k, v, q.shape[-1] ** -0.5, bias)
