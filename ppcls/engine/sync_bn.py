"""``Arch.use_sync_bn``: batch normalisation over the batches of all processes, as over one batch.

On GPUs this is Paddle's ``nn.SyncBatchNorm``. Paddle has none for a CPU, so there the sums of the
processes are added here, on the way forward and on the way back ("MegDet: A Large Mini-Batch
Object Detector", Peng et al., CVPR 2018, https://arxiv.org/abs/1711.07240, Section 3.2). Layers,
parameters and names in the state dict stay as they are.
"""

from __future__ import annotations

import logging
from typing import Any

import paddle
from paddle import nn
from paddle.autograd import PyLayer

from ppcls.engine.distributed import World


def use_sync_bn(trained: nn.Layer, world: World, logger: logging.Logger) -> None:
    """Synchronises the batch normalisations of a layer; call it before the CPU kernels look at it.

    Args:
        trained: a network, or a layer that holds networks. In training mode, all processes have
            to run it equally often: they wait for each other.
        world: the processes; with one there is nothing to do.
    """
    norms = [x for x in trained.sublayers() if isinstance(x, nn.BatchNorm2D)]
    if not norms:
        logger.warning("Arch.use_sync_bn: this network has no batch normalisation")
    elif world.size == 1:
        logger.info("Arch.use_sync_bn: there is one process, and its batch is the whole one")
    elif paddle.get_device() != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(trained)
    else:
        for norm in norms:
            norm.forward = _SyncedWay(norm)


class _SyncedWay:
    """Another way forward through a batch normalisation; its own one in evaluation."""

    def __init__(self, norm: Any):
        self.norm = norm

    def __call__(self, x: paddle.Tensor) -> paddle.Tensor:
        """Maps [N, C, H, W] (or [N, H, W, C]) to the same shape."""
        norm = self.norm
        if not norm.training or norm._use_global_stats:
            return type(norm).forward(norm, x)
        batch = _Batch(x.detach(), 1 if norm._data_format == "NCHW" else 3)
        share = norm._momentum
        with paddle.no_grad():
            for running, now in ((norm._mean, batch.mean), (norm._variance, batch.variance)):
                running.set_value(share * running + (1 - share) * now)
        normal = _Normalisation.apply(x, batch, norm._epsilon)
        return normal * batch.along(norm.weight) + batch.along(norm.bias)


class _Batch:
    """The statistics of the batch that the batches of all processes make together.

    Attributes:
        mean, variance: of each channel, float32 [C]; the variance is that of the batch, divided by
            the number of values, as Paddle keeps it.
    """

    def __init__(self, x: paddle.Tensor, axis: int):
        self.axes = [a for a in range(x.ndim) if a != axis]
        self.shape = [-1 if a == axis else 1 for a in range(x.ndim)]
        count = paddle.to_tensor([x.size // x.shape[axis]], "float64")
        mean = x.mean(self.axes)
        square = ((x - self.along(mean)) ** 2).mean(self.axes).astype("float64")
        mean = mean.astype("float64")
        # Added in double precision: of the mean squares, the square of the mean is taken off.
        self.count, *sums = add_up([count, mean * count, (square + mean**2) * count])
        mean, square = (total / self.count for total in sums)
        self.mean = mean.astype("float32")
        self.variance = (square - mean**2).astype("float32")

    def along(self, channels: paddle.Tensor) -> paddle.Tensor:
        """[C] in the shape that goes with a map."""
        return channels.reshape(self.shape)

    def mean_of(self, *maps: paddle.Tensor) -> list[paddle.Tensor]:
        """The mean of each channel of maps over all processes, to go with a map."""
        sums = add_up([x.sum(self.axes).astype("float64") for x in maps])
        return [self.along((total / self.count).astype("float32")) for total in sums]


class _Normalisation(PyLayer):
    """``(x - mean) / sqrt(variance + epsilon)``; the statistics depend on x of all processes."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, batch: _Batch, epsilon: float) -> paddle.Tensor:
        ctx.batch, ctx.scale = batch, batch.along((batch.variance + epsilon).rsqrt())
        normal = (x - batch.along(batch.mean)) * ctx.scale
        ctx.save_for_backward(normal)
        return normal

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> paddle.Tensor:
        [normal] = ctx.saved_tensor()
        mean, slope = ctx.batch.mean_of(upstream, upstream * normal)
        return (upstream - mean - normal * slope) * ctx.scale


def add_up(vectors: list[paddle.Tensor]) -> list[paddle.Tensor]:
    """The sums of vectors over all processes, in one message; all have to call."""
    joined = paddle.concat(vectors)
    paddle.distributed.all_reduce(joined)
    return paddle.split(joined, [v.size for v in vectors])
