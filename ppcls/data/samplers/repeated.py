"""RASampler: repeated augmentation."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ppcls.data.samplers.base import TrainingSampler, cut, generator, step_bounds
from ppcls.errors import ArgumentError
from ppcls.registry import SAMPLERS


@SAMPLERS.register()
class RASampler(TrainingSampler):
    """Several augmentations of the same picture side by side (MultiGrain, arXiv:1902.05509; DeiT,
    arXiv:2012.12877).

    Each picture stands ``num_repeats`` times behind itself in the order of the epoch, and the
    ranks take turns, so that its copies are spread over them; on one rank they share a batch.
    The epoch stays as long as without repeats: of N pictures, the first N / ``num_repeats`` of a
    new order are read each time.

    An epoch is ``floor(N // selected_round * selected_round / world_size)`` draws a rank, as
    published; with fewer than ``selected_round`` pictures, or with 0, it is N / ``world_size``
    rounded upwards (as in timm; the published sampler reads nothing then).

    Args:
        batch_size: draws of one batch of one rank.
        shuffle: another order in each epoch. False is refused where pictures repeat: the end of
            the list would never be read.
        drop_last: leaves out the last draws of a rank, if they do not fill a batch.
        num_repeats: copies of a picture.
        selected_round: the length of an epoch is rounded down to a multiple of this.

    Raises:
        ArgumentError: evaluation, no shuffling, or too few pictures for a batch.
    """

    def __init__(
        self,
        batch_size: Annotated[int, Field(ge=1)],
        shuffle: bool = True,
        drop_last: bool = False,
        num_repeats: Annotated[int, Field(ge=1)] = 3,
        selected_round: Annotated[int, Field(ge=0)] = 256,
        *,
        sample_count: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = True,
    ):
        super().__init__(sample_count, seed, rank, world_size, training)
        self.check_arguments(shuffle, num_repeats)
        self.shuffle = shuffle
        self.num_repeats = num_repeats
        if selected_round and sample_count >= selected_round:
            self._draws = sample_count // selected_round * selected_round // world_size
        else:
            self._draws = -(-sample_count // world_size)
        least = batch_size if drop_last else 1
        if self._draws < least:
            raise ArgumentError(
                "batch_size",
                f"expected at least {least} draws on each of {world_size} processes, received"
                f" {self._draws} of {sample_count} pictures",
            )
        self._bounds = step_bounds(self._draws, [batch_size], drop_last)

    @staticmethod
    def check_arguments(shuffle: bool, num_repeats: int) -> None:
        """Raises ArgumentError if the end of the list would never be read."""
        if not shuffle and num_repeats > 1:
            raise ArgumentError(
                "shuffle",
                f"expected true with num_repeats {num_repeats}, received false: only the first"
                f" 1/{num_repeats} of the pictures would ever be read",
            )

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The draws of this rank in this epoch, int64 [n] a batch; the last may be smaller."""
        count = self.sample_count
        order = np.arange(count)
        if self.shuffle:
            order = generator(self.seed, epoch).permutation(count)
        places = self.rank + self.world_size * np.arange(self._draws)
        # Where ranks x draws go beyond the end of the order, it begins again.
        laps, places = np.divmod(places, count * self.num_repeats)
        pictures, copies = np.divmod(places, self.num_repeats)
        draws = order[pictures] + count * (copies + self.num_repeats * laps)
        return cut(draws, self._bounds, 0, 1)
