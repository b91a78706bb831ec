"""The mean over a channels-last map."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.autograd import PyLayer

from ppcls.ops.chain import DTYPES, TO_CHANNELS_FIRST, channels_last
from ppcls.ops.library import kernels, thread_count


def global_average_pool(x: paddle.Tensor) -> paddle.Tensor:
    """Maps [N, C, H, W] -> their means [N, C, 1, 1]."""
    return _GlobalAveragePool.apply(x)


class _GlobalAveragePool(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor) -> paddle.Tensor:
        functions = kernels(DTYPES[x.dtype])
        dense = channels_last(x, functions)
        batch, channels, height, width = ctx.shape = x.shape
        mean = paddle.empty([batch, channels, 1, 1], x.dtype)
        size = batch, channels, height * width
        functions.pool(dense.data_ptr(), mean.data_ptr(), *size, thread_count())
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        batch, channels, height, width = ctx.shape
        dense = gradient.contiguous()
        dx = paddle.empty([batch, height, width, channels], gradient.dtype)
        kernels(DTYPES[gradient.dtype]).pool_backward(
            dense.data_ptr(), dx.data_ptr(), batch, channels, height * width, thread_count()
        )
        return dx.transpose(TO_CHANNELS_FIRST)
