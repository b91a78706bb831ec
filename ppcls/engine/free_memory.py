"""How much memory a process takes, and how much there is, on Linux; elsewhere as far as known."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

KIB = 1024


def gibibytes(size: int) -> str:
    """``0.50 GiB``."""
    return f"{size / 2**30:.2f} GiB"


def peak_memory(process: int) -> int:
    """The largest resident set of a process so far, in bytes; 0 if it has ended, or is not known.

    Not ``getrusage``: that has what the parent had when it started the process.
    """
    if found := _field(Path(f"/proc/{process}/status"), "VmHWM"):
        return found
    if process != os.getpid() or Path("/proc/self/status").exists():
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * KIB


def available_memory() -> int | None:
    """Bytes that this process could still take: of the machine, or of its container if less."""
    known = [_field(Path("/proc/meminfo"), "MemAvailable") or None, *_left_in_groups()]
    return min((left for left in known if left is not None), default=None)


def device_memory() -> int | None:
    """Bytes of the GPU that Paddle would use; None without one. Not measured here."""
    import paddle

    if not paddle.is_compiled_with_cuda() or not paddle.device.cuda.device_count():
        return None
    return int(paddle.device.cuda.get_device_properties().total_memory)


def _field(file: Path, name: str) -> int:
    """Bytes of a line ``name: 123 kB``; 0 if there is none."""
    try:
        lines = file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    found = [line for line in lines if line.startswith(f"{name}:")]
    return int(found[0].split()[1]) * KIB if found else 0


def _left_in_groups(root: Path = Path("/sys/fs/cgroup")) -> Iterator[int | None]:
    """Bytes left in each control group that this process is in, of either version."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        files = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if controllers
            else ("memory.max", "memory.current")
        )
        # A container sees its own group as the root, whatever its path is outside.
        inside = top / path.strip("/")
        for folder in {top, inside, *(p for p in inside.parents if p.is_relative_to(top))}:
            limit, used = (_number(folder / name) for name in files)
            if limit is not None and used is not None:
                yield limit - used


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return None
