"""A part of a data set: a fraction, a few samples of each class, or one fold of k."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ppcls.errors import ArgumentError

# Spawn keys of the random numbers; those of the samplers are shorter.
FOLD, PART = (0, 0), (0, 1)

logger = logging.getLogger(__name__)


def chosen(
    labels: np.ndarray,
    *,
    subset: float | None = None,
    few_shot: int | None = None,
    fold: str | None = None,
    mode: Literal["Train", "Eval"],
    seed: int,
    warn: Callable[[str], Any] = logger.warning,
) -> np.ndarray | None:
    """Which samples a data set keeps. Depends on the labels, the seed and these arguments only.

    The fold is chosen first; ``subset`` or ``few_shot`` are then a part of what it leaves in this
    mode. Each works on the section that it stands in: a ``subset`` of the training set leaves the
    evaluation whole.

    Args:
        labels: int64 [N]; or float [N, C] with several targets a sample, which are not stratified.
        subset: fraction of the samples to keep, the same of each class, at least one of each.
        few_shot: samples of each class to keep; a class with fewer keeps all, with a warning. The
            4-shot samples are among the 16-shot samples of the same seed.
        fold: ``"2/5"``: of 5 equal parts, evaluation gets the second and training the others. Both
            sections have to name the same samples, as the parts are made from their labels. Parts
            differ by one sample at most, and so do the samples of each class in them.
        mode: which side of the fold.
        warn: called with what does not stop a run, but is often not meant.

    Returns:
        Sorted indices, int64 [M]; None if nothing is to be left out.

    Raises:
        ArgumentError: (of the argument's name) it is malformed, or cannot be had of these samples.
    """
    if subset is not None and few_shot is not None:
        raise ArgumentError("few_shot", "expected either subset or few_shot, received both")
    if subset is None and few_shot is None and fold is None:
        return None
    kept = np.arange(len(labels))
    if fold is not None:
        number, folds = fold_of(fold)
        fold_numbers = _folds(labels, folds, seed, warn)
        kept = np.flatnonzero((fold_numbers == number - 1) == (mode == "Eval"))
    if few_shot is not None:
        kept = kept[_few(labels[kept], few_shot, seed, warn)]
    if subset is not None:
        kept = kept[_part(labels[kept], subset, seed)]
    return kept


def fold_of(text: str) -> tuple[int, int]:
    """(i, k) of ``"i/k"``.

    Raises:
        ArgumentError: (``fold``) it is something else, or not 1 <= i <= k with k >= 2.
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text, re.ASCII)
    number, folds = map(int, match.groups()) if match else (0, 0)
    if not (1 <= number <= folds and folds >= 2):
        raise ArgumentError(
            "fold", f"expected 'i/k' with 1 <= i <= k and k >= 2, such as '2/5', received {text!r}"
        )
    return number, folds


def _folds(labels: np.ndarray, folds: int, seed: int, warn: Callable[[str], Any]) -> np.ndarray:
    """int64 [N]: the fold of each sample, from 0."""
    if len(labels) < folds:
        raise ArgumentError(
            "fold", f"expected at most as many folds as samples ({len(labels)}), received {folds}"
        )
    rng = _generator(seed, FOLD)
    order, counts = _by_class(labels, rng)
    scarce = int(np.count_nonzero(counts < folds))
    if labels.ndim == 1 and scarce:
        warn(
            f"fold: {scarce} of {len(counts)} classes have fewer than {folds} samples:"
            " some folds have none of them"
        )
    result = np.empty(len(labels), np.int64)
    # Dealt like cards, without a new deal for the next class: all parts are equally large too.
    result[order] = (np.arange(len(labels)) + rng.integers(folds)) % folds
    return result


def _few(labels: np.ndarray, number: int, seed: int, warn: Callable[[str], Any]) -> np.ndarray:
    if number < 1:
        raise ArgumentError("few_shot", f"expected an integer >= 1, received {number}")
    if labels.ndim != 1:
        raise ArgumentError(
            "few_shot", "expected one class a sample, received several targets a sample"
        )
    order, counts = _by_class(labels, _generator(seed, PART))
    scarce = int(np.count_nonzero(counts < number))
    if scarce:
        warn(
            f"few_shot: {scarce} of {len(counts)} classes have fewer than {number} samples,"
            f" the smallest {counts.min()}"
        )
    return _first(order, counts, np.minimum(counts, number))


def _part(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    if not 0 < fraction <= 1:
        raise ArgumentError("subset", f"expected a fraction > 0 and <= 1, received {fraction!r}")
    order, counts = _by_class(labels, _generator(seed, PART))
    shares = fraction * counts
    numbers = np.maximum(np.floor(shares).astype(np.int64), 1)
    # The classes that lose most by rounding get the samples that are missing to the whole.
    missing = max(round(fraction * len(labels)) - int(numbers.sum()), 0)
    numbers[np.argsort(numbers - shares, kind="stable")[:missing]] += 1
    return _first(order, counts, numbers)


def _generator(seed: int, spawn_key: tuple[int, int]) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=spawn_key))


def _by_class(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(order, counts): the samples class by class, each class shuffled, and the classes' sizes.

    Samples of several targets count as one class.
    """
    shuffled = rng.permutation(len(labels))
    if labels.ndim != 1:
        return shuffled, np.array([len(labels)])
    counts = np.unique(labels, return_counts=True)[1]
    return shuffled[np.argsort(labels[shuffled], kind="stable")], counts


def _first(order: np.ndarray, counts: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The first ``numbers`` samples of each class, sorted."""
    places = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[places < np.repeat(numbers, counts)])
