"""What the processes that ``benchmark/reader.py`` starts have in common.

Imports the standard library only: they run in environments of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Epoch = Callable[[], Iterator[int]]  # yields the number of pictures of each batch


def parse(doc: str | None) -> argparse.Namespace:
    """The command line of a reader."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of the pictures")
    parser.add_argument("list", type=Path, help="lines 'path label'")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--jitter", action="store_true", help="with brightness, contrast, colour")
    parser.add_argument("--backend", choices=("cv2", "pil"), default="cv2", help="that resizes")
    parser.add_argument("--decode", choices=("fast", "exact"), default="fast", help="ppcls only")
    return parser.parse_args()


def read_list(options: argparse.Namespace) -> list[tuple[str, int]]:
    """The lines of the list: (path of a picture, label)."""
    lines = options.list.read_text(encoding="utf-8").splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines)
    return [(os.path.join(options.root, path), int(label)) for path, label in pairs]  # noqa: PTH118


def take_turns(make: Callable[[], Epoch], workers: Callable[[], Sequence[int]]) -> None:
    """Reads an epoch for each line of standard input, and answers with a line of JSON.

    Args:
        make: builds the reader; its time counts towards the first batch.
        workers: process numbers of the reader's processes, once it runs.
    """
    start = time.perf_counter()
    first = 0.0
    epoch = make()
    for _ in sys.stdin:
        began, used = time.perf_counter(), processor_seconds(workers())
        pictures = 0
        for batch in epoch():
            first = first or time.perf_counter()
            pictures += batch
        answer: dict[str, Any] = {
            "rate": pictures / (time.perf_counter() - began),
            "first_batch": first - start,
            "processor_ms": (processor_seconds(workers()) - used) / pictures * 1e3,
            "workers_mib": [private_mib(process) for process in workers()],
        }
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


def epochs_of(loader: Iterable[Any]) -> Epoch:
    """Epochs of a loader that gives (images, labels) each time it is gone through."""

    def epoch() -> Iterator[int]:
        for images, _ in loader:
            yield images.shape[0]

    return epoch


def processor_seconds(workers: Sequence[int]) -> float:
    """Processor time that this process and its workers have used so far."""
    ticks = 0
    for process in workers:
        fields = (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        )
        ticks += int(fields[11]) + int(fields[12])  # utime and stime of proc(5)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def private_mib(process: int) -> float:
    """Memory that only this process holds, in MiB."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8")
    fields = [line.split() for line in rollup.splitlines()[1:]]
    return sum(int(f[1]) for f in fields if f[0] in ("Private_Clean:", "Private_Dirty:")) / 1024


def children() -> list[int]:
    """The processes that this one has started, and that still run."""
    listing = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8")
    return [int(number) for number in listing.split()]
