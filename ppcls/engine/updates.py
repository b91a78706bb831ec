"""Optimizer steps from the gradients of several batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppcls.engine.precision import Precision
from ppcls.optim.base import Optimizer

if TYPE_CHECKING:
    import paddle


class Updates:
    """Adds gradients up until the optimizer steps.

    The step is that of one batch with all samples of the group: each batch counts by its size, also
    in a group that is shorter than the others because the epoch ends. That holds for losses that
    are means over samples, and for networks without batch statistics, which see one batch only.

    Args:
        optimizer: what steps.
        precision: how gradients are scaled.
        every: batches in a group.
    """

    def __init__(self, optimizer: Optimizer, precision: Precision, every: int):
        self._optimizer = optimizer
        self._precision = precision
        self._every = every
        self._samples = 0  # of the first batch
        self._batches = 0.0  # so far, where a smaller batch is a part of one

    @property
    def is_pending(self) -> bool:
        """Whether there are gradients that no step has used."""
        return self._batches > 0

    def backward(self, loss: paddle.Tensor, samples: int) -> None:
        """Adds the gradients of a loss that is a mean over so many samples."""
        if not self.is_pending:
            self._samples = samples
        share = samples / self._samples
        self._batches += share
        weight = share / self._every
        self._precision.scaled(loss if weight == 1 else loss * weight).backward()

    def step(self) -> None:
        """Has the optimizer step, and forgets the gradients."""
        if self._batches != self._every:
            self._optimizer.scale_gradients(self._every / self._batches)
        self._precision.step(self._optimizer)
        self._optimizer.clear_grad()
        self._batches = 0.0
