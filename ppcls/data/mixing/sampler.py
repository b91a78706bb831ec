"""A choice among batch transforms."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from ppcls.data.mixing.base import BatchTransform, ClassNum, Probability
from ppcls.errors import ArgumentError
from ppcls.registry import BATCH_TRANSFORMS, Argument, ByName

ROUNDING = 1e-6  # probabilities such as 0.1 do not add up to 1 exactly


@BATCH_TRANSFORMS.register()
class OpSampler(BatchTransform):
    """One of several batch transforms for each batch, or none.

    In a configuration, ``OpSampler: {MixupOperator: {alpha: 0.8, prob: 0.5}, ...}``; what the
    probabilities lack to 1 is that of leaving a batch as it is.

    Args:
        ops: batch transforms, and how likely each is (``prob``).
        class_num: may repeat the number of classes.

    Raises:
        ArgumentError: there is nothing to choose, or the probabilities add up to more than 1.
    """

    def __init__(
        self,
        ops: Annotated[
            Sequence[tuple[BatchTransform, float]],
            ByName(BATCH_TRANSFORMS, also=(Argument("prob", Probability),)),
        ],
        class_num: ClassNum = None,
    ):
        if not ops:
            raise ArgumentError("ops", "expected at least one batch transform, received none")
        self._ops = [op for op, _ in ops]
        probabilities = [prob for _, prob in ops]
        if sum(probabilities) > 1 + ROUNDING:
            received = " + ".join(f"{prob:g}" for prob in probabilities)
            message = f"expected probabilities that add up to at most 1, received {received}"
            raise ArgumentError("prob", message)
        self._bounds = np.cumsum(probabilities)
        self.mixes = frozenset().union(*(op.mixes for op in self._ops))

    def of_alphas(self, alphas: Mapping[str, float]) -> OpSampler:
        """See :class:`BatchTransform`."""
        other = copy.copy(self)
        other._ops = [op.of_alphas(alphas) for op in self._ops]
        return other

    def __call__(self, images: Any, targets: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        """See :class:`BatchTransform`."""
        chosen = int(np.searchsorted(self._bounds, rng.random(), side="right"))
        if chosen == len(self._ops):
            return images, targets
        return self._ops[chosen](images, targets, rng)
