"""Greedy soups (arXiv:2203.05482): the mean of those checkpoints that validation wants in it.

Weights of several runs from one start, or of several epochs of a run, often lie in one valley, and
their mean is better than each. Batch statistics are averaged as weights are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ppcls.engine.evaluator import Evaluator
from ppcls.errors import DataError
from ppcls.weights import find_weights
from ppcls.weights.average import WeightMean, check_same
from ppcls.weights.load import read_checked


@dataclass(frozen=True)
class Soup:
    """What was found.

    Attributes:
        weights: the mean of the ingredients.
        ingredients: the sources in it, the best one first.
        metric: its result in validation.
        best_single: that of the best source alone.
    """

    weights: dict[str, np.ndarray]
    ingredients: list[str]
    metric: float
    best_single: float


def greedy_soup(evaluator: Evaluator, sources: Sequence[str], say: Callable[[str], None]) -> Soup:
    """Recipe 1 of the paper: from the best source on, each that does not make the mean worse.

    Of equally good sources the one named first comes first. Every process of a job has to call.

    Args:
        evaluator: of the validation data; the first metric of ``Metric.Eval`` decides.
        sources: see ``find_weights``.
        say: called with each step, in a line.

    Raises:
        WeightsError: they are of different networks.
        DataError: no source has a result to compare by.
    """
    name, sign = evaluator.main_name, 1 if evaluator.higher_is_better else -1
    results: dict[str, float] = {}
    for source in sources[1:]:  # before hours of work
        check_same(sources[0], _read(sources[0]), source, _read(source))
    for source in sources:
        evaluator.load(source)
        results[source] = evaluator.measure().values[name]
        say(f"{results[source]:.5f}    {source}")
    comparable = [source for source in results if not np.isnan(results[source])]
    if not comparable:
        raise DataError(f"no checkpoint has a {name} to compare by: each is not a number")
    first, *others = sorted(comparable, key=lambda source: -sign * results[source])
    say(f"greedy, by {name}:")
    say(f"{results[first]:.5f}    {first}: the best alone")
    soup, best, ingredients = WeightMean().plus(first, _read(first)), results[first], [first]
    for source in others:
        candidate = soup.plus(source, _read(source))
        evaluator.use(candidate.value())
        result = evaluator.measure().values[name]
        taken = sign * result >= sign * best
        say(f"{result:.5f}  + {source}: {'taken' if taken else 'left out'}")
        if taken:
            soup, best, ingredients = candidate, result, [*ingredients, source]
    return Soup(soup.value(), ingredients, best, results[first])


def _read(source: str) -> dict[str, np.ndarray]:
    return read_checked(find_weights(source))[0]
