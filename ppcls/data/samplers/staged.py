"""StagedSampler: another size of pictures and of batches in each stage of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ppcls.config.progressive import Stages

Sampler = Any  # what the loader asks of one; see ppcls.data.loader.Sampler


class StagedSampler:
    """The samplers of progressive learning, one for each batch size. Not for configurations.

    An epoch is that of the sampler of its stage, whatever the stages before it were: a run can be
    resumed in any of them.

    Args:
        nominal: the sampler of the configuration's own batch size. As many steps as it has are
            an epoch to the learning rate.
        build: gives a sampler of another batch size.
        stages: of the run.
    """

    def __init__(self, nominal: Sampler, build: Callable[[int], Sampler], stages: Stages):
        self.stages = stages
        self._nominal = nominal
        sizes = {stage.batch_size for stage in stages}
        self._samplers = {size: build(size) if size else nominal for size in sizes}
        self.training: bool = nominal.training
        self.world_size: int = nominal.world_size
        self.batch_size: int | None = getattr(nominal, "batch_size", None)

    def __len__(self) -> int:
        """Batches of this rank in an epoch of the nominal batch size."""
        return len(self._nominal)

    def batches_in(self, epoch: int) -> int:
        """Batches of this rank in an epoch."""
        return len(self._of(epoch))

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The draws of this rank in an epoch, int64 [n] a batch."""
        drawn: list[np.ndarray] = self._of(epoch).batches(epoch)
        return drawn

    def sizes(self, epoch: int) -> list[tuple[int, int] | None]:
        """(width, height) of the pictures of each batch, or None for the transforms' own."""
        return [self.stages.at(epoch).width_and_height] * self.batches_in(epoch)

    def kinds(self) -> list[int]:
        """An epoch of each stage."""
        return self.stages.starts()

    def _of(self, epoch: int) -> Sampler:
        return self._samplers[self.stages.at(epoch).batch_size]
