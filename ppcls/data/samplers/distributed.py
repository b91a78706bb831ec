"""DistributedBatchSampler: every sample once an epoch."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ppcls.data.samplers.base import check_batches, check_run, cut, shares, step_bounds
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
        if batch_size < 1:
            raise ArgumentError("batch_size", f"expected an integer >= 1, received {batch_size}")
        check_run(sample_count, seed, rank, world_size)
        training = training or shuffle
        if training or drop_last:
            check_batches(batch_size, drop_last, sample_count, world_size)
        self.training = training
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.sample_count = sample_count
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        # A last step that has nothing for some rank would leave it without a gradient.
        least = world_size if training else 1
        self._bounds = step_bounds(sample_count, [batch_size * world_size], drop_last, least)

    def __len__(self) -> int:
        """Batches of this rank in an epoch; the same in every epoch."""
        starts, ends = shares(self._bounds, self.rank, self.world_size)
        return int(np.count_nonzero(starts < ends))

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of this rank in this epoch, each int64 [n].

        n is ``batch_size``, but for the last batch; in training that one may hold one more.
        """
        return cut(self._order(epoch), self._bounds, self.rank, self.world_size)

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.sample_count)
        generator = np.random.default_rng(np.random.SeedSequence((self.seed, epoch)))
        return generator.permutation(self.sample_count)
