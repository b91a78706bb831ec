"""What every figure is printed with: the machine, the versions, the median of several runs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("paddlepaddle", "numpy", "opencv-python-headless", "pillow")


def describe_machine() -> str:
    """One line: processor, cores, memory, Python, versions."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} absent")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB; Python "
        f"{platform.python_version()}, {', '.join(versions)}"
    )


def report(name: str, rates: Sequence[float], unit: str = "img/s") -> float:
    """Prints and returns the median of some rates, with their range."""
    median = statistics.median(rates)
    spread = f"{min(rates):.1f} to {max(rates):.1f}, {len(rates)} runs"
    sys.stdout.write(f"{name:<44} {median:8.1f} {unit}  ({spread})\n")
    return median


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
