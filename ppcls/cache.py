"""Where files that can be made or fetched again are kept."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """The folder of one kind of files (``weights``, ``ops``); it need not exist yet.

    ``$PPCLS_HOME/<kind>``; without that, ``ppcls/<kind>`` in ``$PPCLS_CACHE``, in
    ``$XDG_CACHE_HOME``, or in ``~/.cache``.
    """
    if home := os.environ.get("PPCLS_HOME"):
        return Path(home).expanduser() / kind
    base = os.environ.get("PPCLS_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ppcls" / kind


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock file: other processes, and other threads, wait until the block ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:  # closing is not enough: a process forked meanwhile has the file open, too
            fcntl.flock(file, fcntl.LOCK_UN)
