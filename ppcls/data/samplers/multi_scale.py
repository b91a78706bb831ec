"""MultiScaleSampler: batches of several picture sizes."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from ppcls.data.samplers.base import check_batches, check_run, generator, shares, step_bounds
from ppcls.errors import ArgumentError
from ppcls.registry import SAMPLERS

Side = Annotated[int, Field(ge=1)]


@SAMPLERS.register()
class MultiScaleSampler:
    """Each batch has one of several sizes; the smaller the pictures, the more of them.

    The multi-scale sampler of MobileViT (arXiv:2110.02178, Section 3.2): a batch holds as many
    pixels as ``first_bs`` pictures of the first size. At the same step all ranks have the same size
    and equally many pictures. Every picture is read exactly once an epoch, over all ranks.

    The sizes take turns, so that each has equally many batches in an epoch, to within one; the
    order of the batches is random and new in each epoch, their number is always the same. In an
    epoch of fewer batches than sizes the first ones of the list are used.

    Args:
        scales: sizes of the pictures in pixels, each one number for a square or [width, height].
        first_bs: pictures of one rank in a batch of the first size.
        divided_factor: sides are rounded down to a multiple of this, the network's stride.
        is_training: false gives all batches the first size, as it is, in the order of the list.
        sample_count: samples of the data set.
        rank: number of this process, from 0.
        world_size: number of processes.
        training: whether the batches are trained on.

    Raises:
        ArgumentError: ``is_training`` in an evaluation, a side below ``divided_factor``, or fewer
            pictures than ranks.
    """

    def __init__(
        self,
        scales: Annotated[list[Side | list[Side]], Field(min_length=1)],
        first_bs: Annotated[int, Field(ge=1)],
        divided_factor: Annotated[int, Field(ge=1)] = 32,
        is_training: bool = True,
        *,
        sample_count: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = True,
    ):
        check_run(sample_count, seed, rank, world_size)
        if is_training and not training:
            raise ArgumentError("is_training", "expected false in an evaluation, received true")
        if training:
            check_batches(first_bs, False, sample_count, world_size)
        self.training = training
        self.is_training = is_training
        self.sample_count = sample_count
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._sizes = _sizes(scales, divided_factor if is_training else 1)
        width, height = _sizes(scales[:1], 1)[0]
        pixels = width * height * first_bs
        self._batch_sizes = [max(1, pixels // (w * h)) for w, h in self._sizes]
        if not is_training:
            self._sizes, self._batch_sizes = self._sizes[:1], self._batch_sizes[:1]
        steps = [size * world_size for size in self._batch_sizes]
        self._bounds = step_bounds(sample_count, steps, least=world_size if training else 1)

    @staticmethod
    def check_arguments(scales: list[int | list[int]], divided_factor: int) -> None:
        """Raises ArgumentError if a size is not one, or smaller than ``divided_factor``."""
        _sizes(scales, divided_factor)

    def __len__(self) -> int:
        """Batches of this rank in an epoch; the same in every epoch."""
        starts, ends = shares(self._bounds, self.rank, self.world_size)
        return int(np.count_nonzero(starts < ends))

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of this rank in this epoch, each int64 [n]; see :meth:`sizes`."""
        order = np.arange(self.sample_count)
        if self.is_training:
            order = generator(self.seed, epoch).permutation(self.sample_count)
        starts, ends = shares(self._bounds, self.rank, self.world_size)
        return [order[starts[i] : ends[i]] for i in self._steps(epoch).tolist()]

    def sizes(self, epoch: int) -> list[tuple[int, int]]:
        """(width, height) of the pictures of each batch of this epoch."""
        return [self._sizes[i % len(self._sizes)] for i in self._steps(epoch).tolist()]

    def _steps(self, epoch: int) -> np.ndarray:
        """The steps of this rank in their order."""
        if self.is_training:
            return generator(self.seed, epoch, stream=1).permutation(len(self._bounds) - 1)
        return np.arange(len(self))


def _sizes(scales: list[int | list[int]], divided_factor: int) -> list[tuple[int, int]]:
    sizes = []
    for scale in scales:
        sides = [scale, scale] if isinstance(scale, int) else scale
        if len(sides) != 2 or min(sides) < divided_factor:
            raise ArgumentError(
                "scales",
                f"expected sides of at least {divided_factor} (divided_factor), one number or"
                f" [width, height] a size, received {scale}",
            )
        width, height = (side // divided_factor * divided_factor for side in sides)
        sizes.append((width, height))
    return sizes
