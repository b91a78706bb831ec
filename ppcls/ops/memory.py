"""How the process keeps the memory of tensors that are gone."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt(3).
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
KEEP = 2**31 - 1  # bytes at the top of the heap that may stay unused
STEP = 64 << 20  # bytes that the heap grows by


def keep_memory() -> bool:
    """Has glibc keep freed memory for the next tensor; returns whether it could be asked to.

    By default every large tensor is mapped anew from the system and given back when it goes, so
    that each of its pages is faulted in and zeroed over and over: a large part of a training
    step on a CPU. The process keeps its peak size from now on.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    settings = (MMAP_MAX, 0), (TRIM_THRESHOLD, KEEP), (TOP_PAD, STEP)
    results = [mallopt(name, value) for name, value in settings]
    return all(result == 1 for result in results)
