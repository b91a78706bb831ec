"""What every batch transform is, and how two pictures become one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ppcls.registry import Repeats

STREAM = 0x6D6978  # "mix": sets these random numbers apart from those of samples and steps

Alpha = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
ClassNum = Annotated[int | None, Repeats("Arch.class_num")]


class BatchTransform(ABC):
    """One operation on a whole batch.

    It holds its settings only, and works on NumPy arrays and on Paddle tensors alike, so that it
    runs on the device.

    Attributes:
        mixes: of ``mixup`` and ``cutmix``, those that it has an alpha for.
    """

    mixes: frozenset[str] = frozenset()

    @abstractmethod
    def __call__(self, images: Any, targets: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        """The batch, transformed; what is given is not written to.

        Args:
            images: float32 [N, C, H, W], normalised; any N.
            targets: float32 [N, num_classes], probabilities.
            rng: the only source of random numbers.

        Returns:
            Images and targets of the same shapes and type.
        """

    def of_alphas(self, alphas: Mapping[str, float]) -> BatchTransform:
        """This operation with other alphas, of those it ``mixes``; at 0 nothing is mixed."""
        return self


def batch_generator(seed: int, epoch: int, batch: int, rank: int) -> np.random.Generator:
    """The random numbers of one batch of one process, whether the run was resumed or not."""
    key = np.random.SeedSequence((seed, epoch, batch, rank), spawn_key=(STREAM,))
    return np.random.default_rng(key)


def mixed(
    images: Any,
    targets: Any,
    partners: np.ndarray,
    shares: np.ndarray,
    weights: np.ndarray | None = None,
) -> tuple[Any, Any]:
    """Each picture mixed with another one of the batch, and their targets likewise.

    Args:
        images: float32 [N, C, H, W].
        targets: float32 [N, num_classes].
        partners: int [N], the picture that each is mixed with.
        shares: [N or 1, 1, H or 1, W or 1], from 0 to 1: how much of the picture itself stays.
        weights: [N or 1], how much of its own target stays, if not the mean of its ``shares``.
    """
    if weights is None:
        weights = shares.mean(axis=(1, 2, 3), dtype=np.float64)
    return (
        _between(images, images[partners], shares),
        _between(targets, targets[partners], weights.reshape(-1, 1)),
    )


def _between(own: Any, other: Any, share: np.ndarray) -> Any:
    """``share * own + (1 - share) * other``, float32, in operations both kinds of array have."""

    def as_own(array: np.ndarray) -> Any:
        single = array.astype(np.float32)
        return single if isinstance(own, np.ndarray) else type(own)(single)

    return own * as_own(share) + other * as_own(1 - share)
