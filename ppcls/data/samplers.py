"""Samplers: in which order, and on which rank, the samples of an epoch are read."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ppcls.errors import ArgumentError
from ppcls.registry import SAMPLERS


@SAMPLERS.register("DistributedBatchSampler", "BatchSampler")
class DistributedBatchSampler:
    """Splits the samples of an epoch into batches, and the batches exactly among the ranks.

    ``BatchSampler`` is the same under a second name, and not a sampler that ignores the ranks:
    that one would train and count every sample once per rank.

    Without ``drop_last`` every sample is read exactly once an epoch, over all ranks. The samples
    that do not fill a batch on every rank are spread evenly. In training all ranks
    have equally many batches, or their gradients could not be averaged; in evaluation a rank may
    have one fewer.

    Args:
        batch_size: samples of one batch of one rank.
        shuffle: another order in each epoch, which also depends on the seed of the run.
        drop_last: leaves out the samples that do not fill a batch on every rank.
        sample_count: samples of the data set.
        rank: number of this process, from 0.
        world_size: number of processes.
        training: whether the batches are trained on; ``shuffle`` says so too.

    Raises:
        ArgumentError: there are too few samples for a batch on every rank.
    """

    def __init__(
        self,
        batch_size: Annotated[int, Field(ge=1)],
        shuffle: bool = False,
        drop_last: bool = False,
        *,
        sample_count: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = False,
    ):
        training = training or shuffle
        _check(batch_size, training, drop_last, sample_count, seed, rank, world_size)
        self.training = training
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.sample_count = sample_count
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches of this rank in an epoch; the same in every epoch."""
        return len(self._batches(np.arange(self.sample_count)))

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of this rank in this epoch, each int64 [n].

        n is ``batch_size``, but for the last batch; in training that one may hold one more.
        """
        return self._batches(self._order(epoch))

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.sample_count)
        generator = np.random.default_rng(np.random.SeedSequence((self.seed, epoch)))
        return generator.permutation(self.sample_count)

    def _batches(self, order: np.ndarray) -> list[np.ndarray]:
        size = self.batch_size * self.world_size
        full, rest = divmod(len(order), size)
        if self.training and not self.drop_last and 0 < rest < self.world_size:
            # Too few for a batch on every rank: the last full batch takes them in.
            full, rest = full - 1, rest + size
        start = self.rank * self.batch_size
        batches = [
            order[first + start : first + start + self.batch_size]
            for first in range(0, full * size, size)
        ]
        if rest and not self.drop_last:
            share = np.array_split(order[full * size :], self.world_size)[self.rank]
            batches += [share] if len(share) else []
        return batches


def _check(
    batch_size: int,
    training: bool,
    drop_last: bool,
    sample_count: int,
    seed: int,
    rank: int,
    world_size: int,
) -> None:
    if batch_size < 1:
        raise ArgumentError("batch_size", f"expected an integer >= 1, received {batch_size}")
    if not 0 <= rank < world_size:
        raise ArgumentError("rank", f"expected 0 <= rank < {world_size}, received {rank}")
    if seed < 0:
        raise ArgumentError("seed", f"expected an integer >= 0, received {seed}")
    if sample_count < 1:
        raise ArgumentError("sample_count", f"expected at least 1, received {sample_count}")
    if drop_last and batch_size * world_size > sample_count:
        raise ArgumentError(
            "batch_size",
            f"expected batch_size x {world_size} processes <= {sample_count} samples with"
            f" drop_last, received {batch_size}: not one batch would be left",
        )
    if training and sample_count < world_size:
        raise ArgumentError(
            "batch_size",
            f"expected at least one sample for each of {world_size} processes,"
            f" received {sample_count}",
        )
