"""Fetching the shards of an epoch before they are read."""

from __future__ import annotations

import mmap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from ppcls.errors import PPClsError

LOOK = 0.05  # seconds between two looks at how far the readers have come


class Marks:
    """Which shards were read since :meth:`clear`; shared with processes that are forked later."""

    def __init__(self, count: int):
        self._marks = np.frombuffer(mmap.mmap(-1, max(1, count)), np.uint8)

    def clear(self) -> None:
        """Nothing was read."""
        self._marks[:] = 0

    def set(self, shard: int) -> None:
        """This shard is being read."""
        self._marks[shard] = 1

    def last(self, order: np.ndarray) -> int:
        """Place in the order of the last shard that was read; -1 if there is none."""
        read = np.flatnonzero(self._marks[order])
        return int(read[-1]) if len(read) else -1


class Ahead:
    """A thread that fetches shards in an order, a few before the readers need them.

    It ends with the order, with the next one, or with its owner. A shard that cannot be had is
    left to the reader that needs it.

    Args:
        owner: whose ``fetch`` is called.
        marks: what the readers have read.
        distance: how many shards it may be ahead.
    """

    def __init__(self, owner: Any, marks: Marks, distance: int):
        self._owner = weakref.ref(owner)
        self._marks = marks
        self._distance = distance
        self._stop = threading.Event()

    def start(self, order: np.ndarray) -> None:
        """Begins with another order, int64 [S], shards by their first use."""
        self._stop.set()
        self._stop = threading.Event()
        self._marks.clear()
        arguments = (self._owner, self._marks, self._distance, order, self._stop)
        threading.Thread(target=_run, args=arguments, name="shards-ahead", daemon=True).start()


def _run(
    owner: Callable[[], Any],
    marks: Marks,
    distance: int,
    order: np.ndarray,
    stop: threading.Event,
) -> None:
    for place, shard in enumerate(order.tolist()):
        while place > marks.last(order) + distance:
            if stop.wait(LOOK) or owner() is None:
                return
        cache = owner()
        if cache is None or stop.is_set():
            return
        try:
            cache.fetch(shard)
        except PPClsError:
            return
        del cache
