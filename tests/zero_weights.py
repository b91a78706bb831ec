"""Large networks in a tenth of the time, for tests that look at shapes only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from paddle.nn.initializer import Constant
from paddle.nn.initializer.initializer import Initializer


@contextmanager
def zero_weights() -> Iterator[None]:
    """Networks that are built inside get weights of zero instead of random ones."""
    zero = Constant(0.0)
    with mock.patch.object(
        Initializer, "__call__", lambda _, p, block=None: zero.forward(p, block)
    ):
        yield
