"""PKSampler: P classes with K pictures of each in a batch."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ppcls.data.samplers.base import Classes, TrainingSampler, generator, occurrences
from ppcls.errors import ArgumentError
from ppcls.registry import SAMPLERS

BLOCK = 2**20  # numbers in memory at a time


@SAMPLERS.register()
class PKSampler(TrainingSampler):
    """P classes with K pictures of each in a batch, for losses that compare pictures.

    The batches of arXiv:1703.07737 (Section 2). Each batch has P different classes, drawn by
    ``sample_method``. Over the epoch of a rank, the pictures of a class follow one another in a
    random order, K at a time and all different; of a class of fewer than K pictures, each is taken
    as often as the others, to within one. Ranks draw independently of each other.

    An epoch is as long as with :class:`DistributedBatchSampler`.

    Args:
        batch_size: P x K, pictures of one batch of one rank.
        sample_per_id: K.
        shuffle: false draws the same in every epoch.
        drop_last: rounds the number of batches down instead of up; all batches are full.
        id_list: [first, last, first, last, ...]: ranges of labels, ends included, whose
            probability is multiplied by ``ratio``; the first range that holds a label counts.
        ratio: one factor for each range.
        sample_method: ``sample_avg_prob`` draws classes in proportion to their pictures,
            ``id_avg_prob`` all alike.
        labels: of the samples, int64 [N].

    Raises:
        ArgumentError: evaluation, several targets a sample, ``batch_size`` that is not a multiple
            of ``sample_per_id``, too few classes or pictures, or ranges that are none.
    """

    def __init__(
        self,
        batch_size: Annotated[int, Field(ge=1)],
        sample_per_id: Annotated[int, Field(ge=1)],
        shuffle: bool = True,
        drop_last: bool = True,
        id_list: list[int] | None = None,
        ratio: list[Annotated[float, Field(ge=0)]] | None = None,
        sample_method: Literal["sample_avg_prob", "id_avg_prob"] = "sample_avg_prob",
        *,
        sample_count: int,
        labels: np.ndarray | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        training: bool = True,
    ):
        super().__init__(sample_count, seed, rank, world_size, training)
        self.check_arguments(batch_size, sample_per_id, id_list, ratio)
        self.shuffle = shuffle
        self.classes_per_batch = batch_size // sample_per_id
        self.sample_per_id = sample_per_id
        self._classes = Classes(labels)
        self._probabilities = self._probability(sample_method, id_list or [], ratio or [])
        drawable = int(np.count_nonzero(self._probabilities))
        if self.classes_per_batch > drawable:
            raise ArgumentError(
                "batch_size",
                f"expected at most sample_per_id {sample_per_id} x {drawable} classes, received"
                f" {batch_size}",
            )
        share = -(-sample_count // world_size)
        self._length = share // batch_size if drop_last else -(-share // batch_size)
        if not self._length:
            raise ArgumentError(
                "batch_size",
                f"expected at most {share} pictures (of {sample_count}, on {world_size} processes)"
                f" with drop_last, received {batch_size}",
            )

    @staticmethod
    def check_arguments(
        batch_size: int,
        sample_per_id: int,
        id_list: list[int] | None,
        ratio: list[float] | None,
    ) -> None:
        """Raises ArgumentError if the arguments do not go together."""
        if batch_size % sample_per_id:
            raise ArgumentError(
                "batch_size",
                f"expected a multiple of sample_per_id {sample_per_id}, received {batch_size}",
            )
        if len(id_list or []) != 2 * len(ratio or []):
            raise ArgumentError(
                "id_list",
                f"expected [first, last] for each of {len(ratio or [])} factors in ratio, received"
                f" {id_list}",
            )

    def __len__(self) -> int:
        return self._length

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The draws of this rank in this epoch, int64 [P x K] a batch, class by class."""
        rng = generator(self.seed, epoch if self.shuffle else 0, stream=self.rank)
        chosen = self._chosen(rng).ravel()
        counts, size = self._classes.counts, self.sample_per_id
        # A group of K is part of a pass over its class, or spans several passes over a small one.
        groups = np.maximum(counts // size, 1)[chosen]
        spans = -(-size // counts)
        turns, places = np.divmod(occurrences(chosen), groups)
        times = np.bincount(chosen, minlength=len(counts))
        passes = -(-times // np.maximum(counts // size, 1)) * spans
        indices, starts = self._classes.passes(passes, rng)
        places = (turns * (spans * counts)[chosen] + places * size)[:, None] + np.arange(size)
        repeats = places // counts[chosen][:, None]
        draws = indices[starts[chosen][:, None] + places]
        # The ranks do not know of each other's draws: none may have the same number.
        draws = draws + self.sample_count * (repeats * self.world_size + self.rank)
        return list(draws.reshape(self._length, -1))

    def _chosen(self, rng: np.random.Generator) -> np.ndarray:
        """int64 [batches, P]: numbers of different classes, drawn one after the other."""
        number = self.classes_per_batch
        bounds = np.cumsum(self._probabilities)
        # More than are wanted: a class that was drawn already is drawn in vain.
        numbers = rng.random((self._length, 4 * number + 8))
        candidates = np.searchsorted(bounds / bounds[-1], numbers, side="right")
        order = np.argsort(candidates, axis=1, kind="stable")
        ordered = np.take_along_axis(candidates, order, axis=1)
        is_new = np.ones(order.shape, bool)
        is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        taken = np.empty_like(is_new)
        np.put_along_axis(taken, order, is_new, axis=1)
        taken &= np.cumsum(taken, axis=1) <= number
        full = np.count_nonzero(taken, axis=1) == number
        chosen = np.empty((self._length, number), np.int64)
        chosen[full] = candidates[full][taken[full]].reshape(-1, number)
        short = np.flatnonzero(~full)
        for rows in np.array_split(short, -(-len(short) * len(bounds) // BLOCK) or 1):
            chosen[rows] = self._completed(candidates[rows], taken[rows], rng)
        return chosen

    def _completed(
        self, candidates: np.ndarray, taken: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """int64 [n, P]: the candidates that were taken, and as many others as are missing.

        The others are those of the shortest waiting times, whose rates are the probabilities:
        that is how successive draws without replacement come out.
        """
        waits = rng.exponential(size=(len(taken), len(self._probabilities)))
        with np.errstate(divide="ignore"):
            waits /= self._probabilities
        rows, columns = np.nonzero(taken)
        waits[rows, candidates[rows, columns]] = -1
        number = self.classes_per_batch
        return np.argpartition(waits, number - 1, axis=1)[:, :number]

    def _probability(self, method: str, id_list: list[int], ratio: list[float]) -> np.ndarray:
        classes = self._classes
        result = np.ones(len(classes)) if method == "id_avg_prob" else classes.counts.astype(float)
        is_free = np.ones(len(classes), bool)
        for first, last, factor in zip(id_list[::2], id_list[1::2], ratio, strict=True):
            is_in = is_free & (first <= classes.values) & (classes.values <= last)
            result[is_in] *= factor
            is_free &= ~is_in
        return result
