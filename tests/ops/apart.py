"""Running what may go wrong, or must start afresh, in processes of its own."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import support

PATHS = ":".join(map(str, (support.ROOT, support.ROOT / "tests", Path(__file__).parent)))


def forked(check: Callable[[], None], timeout: float = 20) -> None:
    """Calls a function in a fork of this process, so that a crash fails one test only."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            check()
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
            os._exit(1)
        os._exit(0)
    os.close(writing)
    end = time.monotonic() + timeout
    while not (waited := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:  # Paddle's handler of a crash can hang itself
            os.kill(child, signal.SIGKILL)
            waited = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    with os.fdopen(reading, "rb") as said:
        message = said.read().decode(errors="replace")
    assert waited[1] == 0, message or f"crashed: {waited[1]}"


def in_a_fork(test: Callable[..., None]) -> Callable[..., None]:
    """A test that leaves nothing in this process: no threads, and none of its damage."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        forked(lambda: test(**fixtures))

    return run


def start(code: str, **variables: str | Path | None) -> subprocess.Popen[str]:
    """Starts Python code; a variable that is None is taken out of the environment."""
    unset = {"OMP_NUM_THREADS": None, "PPCLS_CPU_ISA": None}
    changed = {**support.environment(), **unset, **variables, "PYTHONPATH": PATHS}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={name: str(value) for name, value in changed.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it prints; it must end well."""
    done = support.finish(process, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout
