"""What the samplers share: where batches begin and end, their random numbers, samples by class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ppcls.errors import ArgumentError


def step_bounds(
    count: int, sizes: Sequence[int], drop_last: bool = False, least: int = 1
) -> np.ndarray:
    """Where each step's samples begin and end in the order of an epoch.

    Args:
        count: samples of the epoch.
        sizes: samples of a step over all ranks; the steps go through them again and again.
        drop_last: leaves out the samples that do not fill a step.
        least: a last step of fewer samples becomes part of the one before it.

    Returns:
        int64 [steps + 1], from 0.
    """
    rounds = -(-count // sum(sizes))
    ends = np.cumsum(np.tile(np.asarray(sizes, np.int64), rounds))
    full = int(np.searchsorted(ends, count, side="right"))
    bounds = np.concatenate([[0], ends[:full]])
    rest = count - int(bounds[-1])
    if drop_last or not rest:
        return bounds
    if rest < least and full:
        bounds[-1] = count
        return bounds
    return np.append(bounds, count)


def shares(bounds: np.ndarray, rank: int, world_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the samples of one rank begin and end in each step: the steps are split evenly.

    Args:
        bounds: int64 [steps + 1], of :func:`step_bounds`.

    Returns:
        (starts, ends), each int64 [steps].
    """
    even, more = np.divmod(np.diff(bounds), world_size)
    starts = bounds[:-1] + rank * even + np.minimum(rank, more)
    return starts, starts + even + (rank < more)


def cut(order: np.ndarray, bounds: np.ndarray, rank: int, world_size: int) -> list[np.ndarray]:
    """The batches of one rank; without those that would be empty."""
    starts, ends = shares(bounds, rank, world_size)
    return [order[i:j] for i, j in zip(starts.tolist(), ends.tolist(), strict=True) if i < j]


def check_run(sample_count: int, seed: int, rank: int, world_size: int) -> None:
    """Raises ArgumentError if a fact about the run is out of range."""
    if not 0 <= rank < world_size:
        raise ArgumentError("rank", f"expected 0 <= rank < {world_size}, received {rank}")
    if seed < 0:
        raise ArgumentError("seed", f"expected an integer >= 0, received {seed}")
    if sample_count < 1:
        raise ArgumentError("sample_count", f"expected at least 1, received {sample_count}")


def check_batches(batch_size: int, drop_last: bool, samples: int, world_size: int) -> None:
    """Raises ArgumentError if not every rank gets a batch of an epoch of so many samples."""
    if drop_last and batch_size * world_size > samples:
        raise ArgumentError(
            "batch_size",
            f"expected batch_size x {world_size} processes <= {samples} samples with"
            f" drop_last, received {batch_size}: not one batch would be left",
        )
    if samples < world_size:
        raise ArgumentError(
            "batch_size",
            f"expected at least one sample for each of {world_size} processes, received {samples}",
        )


class TrainingSampler(ABC):
    """A sampler that reads some samples several times an epoch and others never.

    Args:
        sample_count: samples of the data set.
        seed: of the run; with the epoch, all that the batches depend on.
        rank: number of this process, from 0.
        world_size: number of processes.
        training: false is refused: an evaluation counts every sample once.

    Raises:
        ArgumentError: evaluation, or a number out of range.
    """

    training = True

    def __init__(self, sample_count: int, seed: int, rank: int, world_size: int, training: bool):
        if not training:
            raise ArgumentError(
                "name",
                "expected a sampler that reads every sample once for an evaluation, such as"
                f" DistributedBatchSampler, received {type(self).__name__}",
            )
        check_run(sample_count, seed, rank, world_size)
        self.sample_count = sample_count
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    @abstractmethod
    def __len__(self) -> int:
        """Batches of this rank in an epoch; the same on all ranks and in every epoch."""

    @abstractmethod
    def batches(self, epoch: int) -> list[np.ndarray]:
        """The draws of this rank in this epoch, int64 [n] a batch.

        A draw is the sample's index + ``sample_count`` x how often it was drawn before.
        """


def generator(seed: int, epoch: int, stream: int = 0) -> np.random.Generator:
    """Random numbers of an epoch; each stream has its own.

    They are not those that a sample is augmented with: those have the draw in the place where
    these have a spawn key.
    """
    return np.random.default_rng(np.random.SeedSequence((seed, epoch), spawn_key=(stream,)))


def occurrences(values: np.ndarray) -> np.ndarray:
    """How often each value stood before it: [7, 4, 7, 7] -> [0, 0, 1, 2].

    Args:
        values: int64 [n].
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    places = np.arange(len(values))
    is_first = np.ones(len(values), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    result = np.empty_like(places)
    result[order] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return result


class Classes:
    """The samples of a data set by class. Classes without samples are left out.

    Args:
        labels: int64 [N].

    Attributes:
        values: int64 [C], the label of each class, ascending.
        counts: int64 [C], samples of each class.

    Raises:
        ArgumentError: there are no labels, or several to a sample.
    """

    def __init__(self, labels: np.ndarray | None):
        if labels is None or labels.ndim != 1:
            received = "none" if labels is None else "several targets a sample"
            raise ArgumentError("name", f"expected one class a sample, received {received}")
        self.values, self.codes, self.counts = np.unique(
            labels, return_inverse=True, return_counts=True
        )
        self._members = np.argsort(self.codes, kind="stable")
        self._starts = np.cumsum(self.counts) - self.counts

    def __len__(self) -> int:
        return len(self.values)

    def members(self, classes: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Indices of the samples at these places of these classes, all int64 [n]."""
        return self._members[self._starts[classes] + places]

    def passes(
        self, numbers: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whole passes over the samples of each class, each pass in another random order.

        Args:
            numbers: int64 [C], passes over each class.

        Returns:
            (indices, starts): pass t of class c is the ``counts[c]`` indices from
            ``starts[c] + t * counts[c]`` on.
        """
        classes = np.repeat(np.arange(len(self)), numbers)
        sizes = self.counts[classes]
        ends = np.cumsum(sizes)
        passes = np.repeat(np.arange(len(sizes)), sizes)
        places = np.arange(len(passes)) - (ends - sizes)[passes]
        # The whole part keeps the passes in their order, the fraction shuffles within a pass.
        order = np.argsort(passes + rng.random(len(passes)))
        read = numbers * self.counts
        return self.members(classes[passes], places)[order], np.cumsum(read) - read
