"""Samplers: in which order, and on which rank, the samples of an epoch are read."""

from ppcls.data.samplers.distributed import DistributedBatchSampler

__all__ = ["DistributedBatchSampler"]
