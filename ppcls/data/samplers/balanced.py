"""ClassBalancedSampler and WeightedSampler: how often each class is read."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ppcls.data.samplers.base import (
    Classes,
    TrainingSampler,
    check_batches,
    cut,
    generator,
    occurrences,
    step_bounds,
)
from ppcls.errors import ArgumentError
from ppcls.registry import SAMPLERS

Weight = Annotated[float, Field(ge=0)]


@SAMPLERS.register()
class ClassBalancedSampler(TrainingSampler):
    """Every class equally often (class-balanced sampling, arXiv:1910.09217, Section 3).

    The draws of an epoch go round by round: a round has one picture of each class, in a random
    order; only the last round may be incomplete. The pictures of a class follow one another in a
    random order, and none of them is drawn again before all of them were.

    Args:
        batch_size: draws of one batch of one rank.
        shuffle: false draws the same in every epoch.
        drop_last: leaves out the draws that do not fill a batch on every rank.
        samples_per_epoch: draws of an epoch over all ranks; default: as many as there are samples.
        labels: of the samples, int64 [N].

    Raises:
        ArgumentError: evaluation, several targets a sample, or too few draws.
    """

    def __init__(
        self,
        batch_size: Annotated[int, Field(ge=1)],
        shuffle: bool = True,
        drop_last: bool = False,
        samples_per_epoch: Annotated[int, Field(ge=1)] | None = None,
        *,
        sample_count: int,
        labels: np.ndarray | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = True,
    ):
        super().__init__(sample_count, seed, rank, world_size, training)
        self.shuffle = shuffle
        self.samples_per_epoch = samples_per_epoch or sample_count
        self._classes = Classes(labels)
        self._bounds = _bounds(batch_size, drop_last, self.samples_per_epoch, world_size)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The draws of this rank in this epoch, int64 [n] a batch."""
        rng = generator(self.seed, epoch if self.shuffle else 0)
        classes = self._classes
        rounds = -(-self.samples_per_epoch // len(classes))
        turns = rng.permuted(np.tile(np.arange(len(classes)), (rounds, 1)), axis=1)
        chosen = turns.ravel()[: self.samples_per_epoch]
        round_of = np.arange(self.samples_per_epoch) // len(classes)
        indices, starts = classes.passes(-(-rounds // classes.counts), rng)
        repeats = round_of // classes.counts[chosen]
        draws = indices[starts[chosen] + round_of] + self.sample_count * repeats
        return cut(draws, self._bounds, self.rank, self.world_size)


@SAMPLERS.register()
class WeightedSampler(TrainingSampler):
    """Draws samples at random, each with the weight of its class.

    Args:
        batch_size: draws of one batch of one rank.
        weights: weight of a sample of each class, in the order of the labels: a sample of weight 2
            is drawn twice as often as one of weight 1. ``inverse_frequency`` is 1 / (samples of
            the class), which draws all classes equally often; ``sqrt`` is 1 / its root, half way
            to that.
        replacement: whether a sample may be drawn several times an epoch. Without, each draw is
            one of the samples that are left, with a probability in proportion to its weight.
        samples_per_epoch: draws of an epoch over all ranks; default: as many as there are samples,
            which would be all of them without ``replacement``, where it has to be given.
        shuffle: false draws the same in every epoch.
        drop_last: leaves out the draws that do not fill a batch on every rank.
        labels: of the samples, int64 [N].

    Raises:
        ArgumentError: evaluation, several targets a sample, weights that do not fit the labels, or
            more or fewer draws than there can be.
    """

    def __init__(
        self,
        batch_size: Annotated[int, Field(ge=1)],
        weights: list[Weight] | Literal["inverse_frequency", "sqrt"] = "inverse_frequency",
        replacement: bool = True,
        samples_per_epoch: Annotated[int, Field(ge=1)] | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        *,
        sample_count: int,
        labels: np.ndarray | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = True,
    ):
        super().__init__(sample_count, seed, rank, world_size, training)
        self.check_arguments(replacement, samples_per_epoch)
        self.shuffle = shuffle
        self.replacement = replacement
        self.samples_per_epoch = samples_per_epoch or sample_count
        self._classes = Classes(labels)
        self._weights = _class_weights(weights, self._classes)
        drawable = int(self._classes.counts[self._weights > 0].sum())
        if not replacement and self.samples_per_epoch > drawable:
            raise ArgumentError(
                "samples_per_epoch",
                f"expected at most the {drawable} samples of a weight above 0 without replacement,"
                f" received {samples_per_epoch}",
            )
        self._bounds = _bounds(batch_size, drop_last, self.samples_per_epoch, world_size)

    @staticmethod
    def check_arguments(replacement: bool, samples_per_epoch: int | None) -> None:
        """Raises ArgumentError if the weights would not have an effect."""
        if not replacement and samples_per_epoch is None:
            raise ArgumentError(
                "samples_per_epoch",
                "expected a number without replacement, received null: every sample would be drawn"
                " once, whatever its weight",
            )

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The draws of this rank in this epoch, int64 [n] a batch."""
        rng = generator(self.seed, epoch if self.shuffle else 0)
        draws = self._with_replacement(rng) if self.replacement else self._without(rng)
        return cut(draws, self._bounds, self.rank, self.world_size)

    def _with_replacement(self, rng: np.random.Generator) -> np.ndarray:
        counts = self._classes.counts
        mass = self._weights * counts
        chosen = rng.choice(len(counts), self.samples_per_epoch, p=mass / mass.sum())
        indices = self._classes.members(chosen, rng.integers(counts[chosen]))
        return indices + self.sample_count * occurrences(indices)

    def _without(self, rng: np.random.Generator) -> np.ndarray:
        # Waiting times of rate w: the order in which they end is that of successive draws
        # (Efraimidis and Spirakis, Information Processing Letters 97, 2006).
        waits = rng.exponential(size=self.sample_count)
        with np.errstate(divide="ignore"):
            waits /= self._weights[self._classes.codes]
        return np.argsort(waits)[: self.samples_per_epoch]


def _class_weights(weights: list[float] | str, classes: Classes) -> np.ndarray:
    """float64 [C]: weight of a sample of each class that has samples."""
    if weights == "inverse_frequency":
        return 1 / classes.counts
    if weights == "sqrt":
        return 1 / np.sqrt(classes.counts)
    highest = int(classes.values[-1])
    if len(weights) <= highest:
        raise ArgumentError(
            "weights",
            f"expected a weight for each of the labels 0 to {highest}, received {len(weights)}",
        )
    chosen = np.asarray(weights, np.float64)[classes.values]
    if not chosen.any():
        raise ArgumentError("weights", "expected a weight above 0 for a class with samples")
    return chosen


def _bounds(batch_size: int, drop_last: bool, draws: int, world_size: int) -> np.ndarray:
    check_batches(batch_size, drop_last, draws, world_size)
    return step_bounds(draws, [batch_size * world_size], drop_last, least=world_size)
