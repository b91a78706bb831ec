"""What limits a training run on this machine: each stage measured on its own, then all together."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, cycle, islice
from typing import Any

from ppcls.config import Config
from ppcls.data.loader import Batch, DataLoader
from ppcls.engine.diagnosis import Figures
from ppcls.engine.diagnosis_reading import LONGEST, measure_pictures
from ppcls.engine.diagnosis_table import report
from ppcls.engine.rehearsal import Rehearsal

FEWEST = 2  # steps or batches that a figure needs, however long they take
WARM_UP = 2  # steps that are not counted: the first ones set things up
KEPT = 4  # batches that the network is measured with, again and again


def diagnose(config: Config, batches: int = 20) -> str:
    """Measures reading and training as a configuration says, and names the limit.

    Nothing is written to where the run writes. No weights are loaded, as
    they do not change how long a step takes.

    Args:
        config: a checked configuration with all that training needs.
        batches: how many each stage is measured with; fewer if they take longer than 10 s.

    Returns:
        A table of the stages, what limits the run, and what would change that.

    Raises:
        ConfigError, DataError, EnvironmentProblem: as before any training.
    """
    trainer = _Rehearsal(config, loads=False)
    try:
        reader = trainer.reader
        pictures = measure_pictures(reader, batches)
        delivered = measure_reader(reader, batches)
        copying, computing, together, batch = trainer.measure(batches)
        figures = Figures(
            pictures=pictures,
            workers=reader.num_workers,
            cores=_cores(),
            device=trainer.device,
            batch=batch,
            epoch=sum(map(len, reader.sampler.batches(0))),
            delivered=delivered,
            copying=copying,
            computing=computing,
            together=together,
        )
    finally:
        trainer.close()
    return report(figures, config.Arch.name)


def measure_reader(reader: DataLoader, batches: int) -> float:
    """Pictures a second that all workers deliver while nothing else runs."""
    together = max(1, reader.num_workers)  # batches that are read at the same time
    pictures, started = 0, time.perf_counter()
    for number, batch in enumerate(_endless(reader), 1):
        now = time.perf_counter()
        if number <= together:  # while the workers start
            started = now
            continue
        pictures += batch.pictures
        read = number - together
        # Batches arrive as many at once as there are workers: whole rounds are counted.
        if read % together == 0 and _is_enough(read, batches, now - started):
            break
    return pictures / (time.perf_counter() - started)


def _is_enough(done: int, wanted: int, seconds: float) -> bool:
    return done >= wanted or (done >= FEWEST and seconds > LONGEST)


def _endless(reader: DataLoader) -> Iterator[Batch]:
    """Epoch after epoch."""
    for epoch in count():
        yield from reader.epoch(epoch)


def _cores() -> int:
    """Of the processor, those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Training ----------------------------------------------------------------------------------------


class _Rehearsal(Rehearsal):
    """Measures steps."""

    def measure(self, batches: int) -> tuple[float, float, float, int]:
        """Seconds a picture of copying and of computing; pictures a second of both with the reader.

        Returns:
            (copying, computing, together, pictures of a batch).
        """
        self.model.train()
        kept = [replace(b, images=b.images.copy()) for b in islice(_endless(self.reader), KEPT)]
        copying = self._rate(self._copied, cycle(kept), batches)
        both = self._rate(lambda batch: self._step(batch), cycle(kept), batches)
        together = self._rate(lambda batch: self._step(batch), _endless(self.reader), batches)
        # Both were measured on their own, so that their difference may come out below zero.
        computing = max(1 / both - 1 / copying, 1e-9)
        return 1 / copying, computing, together, kept[0].pictures

    def _copied(self, batch: Batch) -> Any:
        return self.mixing(*self._to_tensors(batch), 0, 0)

    def _rate(self, work: Callable[[Batch], Any], source: Iterator[Batch], batches: int) -> float:
        """Pictures a second."""
        begun = started = time.perf_counter()
        pictures = done = warm = 0
        for batch in source:
            work(batch)
            self.wait()
            now = time.perf_counter()
            if not done and warm < WARM_UP and (not warm or now - begun < LONGEST):
                warm += 1
                started = now
                continue
            done += 1
            pictures += batch.pictures
            if _is_enough(done, batches, now - started):
                break
        return pictures / (time.perf_counter() - started)
