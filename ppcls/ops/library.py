"""The compiled kernels as Python functions, and the threads they may use."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path

from ppcls.ops.build import BuildError, find_library

CONVOLUTION, DEPTHWISE, SQUEEZE_EXCITATION = range(3)
NO_NORM, BATCH_NORM, FROZEN_NORM = range(3)
IDENTITY, RELU, RELU6, HARDSWISH, SILU = range(5)


_loaded: ctypes.CDLL | None = None


class LayerStruct(ctypes.Structure):
    """``Layer`` of ``csrc/layer.h``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("kind", "channels_in", "channels_out", "kernel")),
        *((name, ctypes.c_int64) for name in ("stride", "pad_top", "pad_left", "groups")),
        *((name, ctypes.c_int64) for name in ("in_h", "in_w", "out_h", "out_w", "norm", "act")),
        *((name, ctypes.c_double) for name in ("epsilon", "momentum")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "gamma", "beta")),
        *((name, ctypes.c_void_p) for name in ("running_mean", "running_variance")),
        *((name, ctypes.c_void_p) for name in ("dweight", "dbias", "dgamma", "dbeta")),
        *((name, ctypes.c_void_p) for name in ("weight2", "bias2", "dweight2", "dbias2")),
        ("reduced", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("gate_slope", "gate_offset")),
    )


class ChainStruct(ctypes.Structure):
    """``Chain`` of ``csrc/layer.h``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "count", "threads")),
        ("layers", ctypes.POINTER(LayerStruct)),
        *((name, ctypes.c_void_p) for name in ("x", "out", "saved", "shortcut")),
        ("shortcut_channels", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("dout", "dx")),
        ("shortcut_is_x", ctypes.c_int64),
    )


class Kernels:
    """Functions of the library, for one precision.

    Those of a chain take a ``ChainStruct``; ``saved_size`` returns a number of scalars, the others
    fill the arrays that the struct points to. Python's lock is open while they run.
    """

    def __init__(self, library: ctypes.CDLL, suffix: str):
        self.saved_size = self._chain(library, f"ppcls_chain_saved_size{suffix}")
        self.forward = self._work(library, f"ppcls_chain_forward{suffix}")
        self.infer = self._work(library, f"ppcls_chain_infer{suffix}")
        self.backward = self._work(library, f"ppcls_chain_backward{suffix}")
        self.to_channels_last = self._map(library, f"ppcls_to_channels_last{suffix}")
        self.to_channels_first = self._map(library, f"ppcls_to_channels_first{suffix}")
        self.pool = self._map(library, f"ppcls_pool{suffix}")
        self.pool_backward = self._map(library, f"ppcls_pool_backward{suffix}")
        self.look_up = library[f"ppcls_look_up{suffix}"]
        self.look_up.argtypes = (ctypes.c_void_p,) * 3 + (ctypes.c_int64,) * 2
        self.look_up.restype = None
        self.momentum = library[f"ppcls_momentum{suffix}"]
        self.momentum.argtypes = (
            *(ctypes.c_void_p, ctypes.c_int64, ctypes.c_double, ctypes.c_double),
            *(ctypes.c_int64, ctypes.c_int64),
        )
        self.momentum.restype = None

    def _chain(self, library: ctypes.CDLL, name: str) -> Callable[[ctypes.Structure], int]:
        function = library[name]
        function.argtypes = (ctypes.POINTER(ChainStruct),)
        function.restype = ctypes.c_int64
        return function

    def _work(self, library: ctypes.CDLL, name: str) -> Callable[[ctypes.Structure], None]:
        function = self._chain(library, name)

        def run(chain: ctypes.Structure) -> None:
            if function(chain):
                raise MemoryError("not enough memory for the CPU kernels: make the batch smaller")

        return run

    def _map(self, library: ctypes.CDLL, name: str) -> Callable[..., None]:
        """From, to, images, channels, pixels, threads."""
        function = library[name]
        function.argtypes = (ctypes.c_void_p,) * 2 + (ctypes.c_int64,) * 4
        function.restype = None
        return function


@functools.cache
def kernels(dtype: str) -> Kernels:
    """The kernels for ``"float32"`` or ``"float64"``.

    Raises:
        BuildError: they are not compiled and cannot be.
    """
    return Kernels(load(), {"float32": "_f32", "float64": "_f64"}[dtype])


def load(announce: Callable[[str], None] = lambda line: None) -> ctypes.CDLL:
    """The library; compiled now, after a line to ``announce``, if it was never before.

    Raises:
        BuildError: it is not compiled and cannot be.
    """
    global _loaded
    if _loaded is None:
        path = find_library(announce)
        try:
            _loaded = ctypes.CDLL(str(path))
        except OSError as error:
            raise BuildError(f"{path} cannot be loaded: {error}") from None
    return _loaded


def _environment_at_start() -> dict[str, str]:
    """The environment as it was when the process started, where the system tells.

    Paddle sets OMP_NUM_THREADS to 1 as it is imported; this shows what the user said.
    """
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = (entry.decode(errors="replace").partition("=") for entry in entries if entry)
    return {name: value for name, _, value in pairs}


@functools.cache
def thread_count() -> int:
    """Threads for the kernels of this process.

    What ``OMP_NUM_THREADS`` said when the process started; else the cores that the process may
    use, shared among the processes that the launcher started on this machine.
    """
    chosen = _environment_at_start().get("OMP_NUM_THREADS", "").split(",")[0]
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    here = os.environ.get("PADDLE_LOCAL_SIZE", "1")
    return max(1, (cores or 1) // (int(here) if here.isdecimal() and int(here) > 0 else 1))
