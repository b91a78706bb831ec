"""The mean of several weights of one network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ppcls.errors import WeightsError


class WeightMean:
    """Adds weights up, in 64 bits; integers are those of the last one.

    Attributes:
        count: of how many weights it is the mean.
    """

    def __init__(self) -> None:
        self.count = 0
        self._source = ""
        self._first: Mapping[str, np.ndarray] = {}
        self._sums: dict[str, np.ndarray] = {}

    def plus(self, source: str, weights: Mapping[str, np.ndarray]) -> WeightMean:
        """The mean with one more; this one stays as it is.

        Args:
            source: what a message calls them.

        Raises:
            WeightsError: they are of another network than the first ones.
        """
        new = WeightMean()
        new.count = self.count + 1
        new._source, new._first = self._source or source, self._first or weights
        check_same(new._source, new._first, source, weights)
        for name, array in weights.items():
            if array.dtype.kind != "f":
                new._sums[name] = array
            elif self.count:
                new._sums[name] = self._sums[name] + array
            else:
                new._sums[name] = array.astype(np.float64)
        return new

    def value(self) -> dict[str, np.ndarray]:
        """The mean, in the types of the first weights."""
        return {
            name: np.asarray(total / self.count, self._first[name].dtype)
            if total.dtype.kind == "f"
            else total
            for name, total in self._sums.items()
        }


def check_same(
    one: str, left: Mapping[str, np.ndarray], other: str, right: Mapping[str, np.ndarray]
) -> None:
    """Raises WeightsError if names, shapes or kinds of number differ."""
    for name in [*left, *right]:
        for source, weights in ((one, left), (other, right)):
            if name not in weights:
                there = other if source == one else one
                raise WeightsError(f"{source}: lacks '{name}', which {there} has")
        if left[name].shape != right[name].shape:
            shapes = f"{list(right[name].shape)}, and {list(left[name].shape)} in {one}"
            raise WeightsError(f"{other}: the shape of '{name}' is {shapes}")
        kinds = left[name].dtype.kind, right[name].dtype.kind
        if "f" in kinds and kinds != ("f", "f"):
            types = f"{right[name].dtype}, and {left[name].dtype} in {one}"
            raise WeightsError(f"{other}: the type of '{name}' is {types}")
