"""ShardSampler: packed pictures, shard after shard."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ppcls.data.samplers.base import cut, generator, shares
from ppcls.data.samplers.distributed import DistributedBatchSampler
from ppcls.errors import ArgumentError
from ppcls.registry import SAMPLERS


@SAMPLERS.register()
class ShardSampler(DistributedBatchSampler):
    """Reads shard after shard, in another order each epoch, through a shuffle buffer.

    The order is one that a buffer of ``buffer`` samples gives: each sample leaves it after a
    random number of further samples, at most ``buffer``. At any time the samples of a few
    neighbouring shards are read, which is what a slow disk, or a cache that is smaller than
    the data, needs; how well they are mixed depends on the order in which they were packed.
    Every sample is read exactly once an epoch, over all ranks.

    Args:
        batch_size: samples of one batch of one rank.
        buffer: samples among which an order is drawn; 1 keeps the order within a shard.
        shuffle: false reads all samples in the order in which they are stored.
        drop_last: leaves out the samples that do not fill a batch on every rank.
        split_by: how the ranks share the samples. ``batch``: they share each step's, so that
            a step has the same samples on any number of ranks. ``shard``: each reads shards of its
            own, so that machines without a common disk do not all fetch all shards.
        shards: int64 [N], the shard of each sample.

    Raises:
        ArgumentError: the data set is not packed, or has too few samples.
    """

    def __init__(
        self,
        batch_size: Annotated[int, Field(ge=1)],
        buffer: Annotated[int, Field(ge=1)] = 4096,
        shuffle: bool = True,
        drop_last: bool = False,
        split_by: Literal["batch", "shard"] = "batch",
        *,
        sample_count: int,
        shards: np.ndarray | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = False,
    ):
        super().__init__(
            batch_size,
            shuffle,
            drop_last,
            sample_count=sample_count,
            seed=seed,
            rank=rank,
            world_size=world_size,
            training=training,
        )
        if shards is None:
            raise ArgumentError(
                "name",
                "expected a sampler such as DistributedBatchSampler for a data set that is not"
                " packed, received ShardSampler, which PackedDataset has shards for",
            )
        self.buffer = buffer
        self.split_by = split_by
        # A part of a data set may have its samples in any order.
        self._shards = np.unique(shards, return_inverse=True)[1]
        self._stored = np.argsort(self._shards, kind="stable")
        self._counts = np.bincount(self._shards)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of this rank in this epoch, each int64 [n].

        n is ``batch_size``, but for the last batch; in training that one may hold one more.
        """
        order = self._order(epoch)
        if self.split_by == "batch":
            return cut(order, self._bounds, self.rank, self.world_size)
        sizes = [self._sizes(rank) for rank in range(self.rank + 1)]
        first = sum(int(lengths.sum()) for lengths in sizes[:-1])
        ends = first + np.cumsum(sizes[-1])
        pairs = zip((ends - sizes[-1]).tolist(), ends.tolist(), strict=True)
        return [order[start:end] for start, end in pairs if start < end]

    def _sizes(self, rank: int) -> np.ndarray:
        starts, ends = shares(self._bounds, rank, self.world_size)
        return ends - starts

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.sample_count)
        rng = generator(self.seed, epoch)
        turn = rng.permutation(len(self._counts))  # turn[s]: when shard s is read
        stream = self._stored[np.argsort(turn[self._shards[self._stored]], kind="stable")]
        if self.buffer == 1:
            return stream
        # Sample i leaves the buffer when sample i + delay has come in.
        delays = rng.random(len(stream)) * (self.buffer - 1)
        return stream[np.argsort(np.arange(len(stream)) + delays, kind="stable")]
