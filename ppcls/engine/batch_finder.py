"""The batch finder: real training steps with larger and larger batches, until memory is full.

Each size is tried in a process of its own, so that one that is killed for its memory takes nothing
else with it, and none finds what another has left. Start one by hand with
``python -m ppcls.engine.batch_finder CONFIG SIZE``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.config import Config, load_config
from ppcls.data.loader import Batch
from ppcls.engine.batch import build_reader
from ppcls.engine.distributed import World
from ppcls.engine.free_memory import available_memory, device_memory, gibibytes, peak_memory
from ppcls.engine.logging import make_logger
from ppcls.errors import EnvironmentProblem, PPClsError, TrainingError

PART = 0.9  # of the memory; the rest is for reader processes and whatever else starts
FIRST = 8  # pictures of the first trial
FINE = 8  # the answer is exact to one part in so many
WARM = 2  # steps, after which the optimizer has all its state
TIMED = 2  # steps whose time counts
LONGEST = 1800.0  # seconds of a trial
LOOKS = 0.02  # seconds between looks at a trial's memory
CODE_OUT_OF_MEMORY = 77


@dataclass(frozen=True)
class Trial:
    """One batch size.

    Attributes:
        size: pictures of a batch.
        fits: whether its steps were done within the limit.
        memory: the process's peak, in bytes; on a GPU what Paddle has reserved there.
        speed: pictures a second; 0 if it does not fit.
    """

    size: int
    fits: bool
    memory: int
    speed: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What is tried.

    Attributes:
        limit: bytes that a process may take; on a GPU what Paddle may.
        why: where the limit comes from.
        most: the largest size to try.
        batch: the configuration's own.
        unit: what sizes have to be a multiple of.
    """

    limit: int
    why: str
    most: int
    batch: int
    unit: int = 1

    def words(self) -> str:
        """For the user."""
        return f"Batches of at most {self.most} pictures, {gibibytes(self.limit)} ({self.why})."


def plan(config: Config, memory: int | None = None, most: int | None = None) -> Plan:
    """The limits of a search.

    Args:
        memory: bytes that may be taken at most; by default ``PART`` of what is free.
        most: the largest size; by default the pictures of the training set.

    Raises:
        ConfigError, DataError: as before any training, or the sampler has no ``batch_size``.
        EnvironmentProblem: nobody knows how much memory is free.
    """
    [reader] = config.require("DataLoader.Train", purpose="finding a batch size")
    batch = reader.sampler.arguments.get("batch_size")
    if batch is None:
        message = f"expected a sampler with batch_size, received {reader.sampler.name}"
        raise config.problem("DataLoader.Train.sampler.name", message)
    limit, why = _limit(config, memory)
    reader.loader.num_workers = 0  # it is only asked how long it is
    world, logger = World.from_environment(), make_logger(stream=sys.stderr)
    with build_reader(config, "Train", world, logger) as found:
        pictures = len(found.dataset)
    unit = reader.sampler.arguments.get("sample_per_id", 1)
    return Plan(limit, why, min(most or pictures, pictures), batch, unit)


def _limit(config: Config, memory: int | None) -> tuple[int, str]:
    """Bytes, and where they come from."""
    on_gpu = config.Global.device != "cpu" and (total := device_memory())
    free = total if on_gpu else available_memory()
    what = "the GPU's" if on_gpu else "what is free now"
    if free is None:
        if memory is None:
            raise EnvironmentProblem("how much memory is free is not known here: give --memory")
        return memory, "--memory"
    if memory is not None and memory <= free:
        return memory, "--memory"
    more = f"; --memory {gibibytes(memory)} is more than there is" if memory else ""
    return int(PART * free), f"{PART:.0%} of {what}{more}"


def find_batch(
    config: Config,
    limit: int,
    most: int,
    on_trial: Callable[[Trial], object] = lambda trial: None,
    first: int = FIRST,
) -> list[Trial]:
    """Tries sizes, each doubled, then between the last that fits and the first that does not.

    Args:
        config: a checked configuration; one of its batches is repeated to the size of each trial.
        limit: bytes that a process may take; on a GPU what Paddle may.
        most: the largest size to try.
        on_trial: called with each.
        first: the first size to try.

    Returns:
        The trials, by size.

    Raises:
        TrainingError: a trial failed for another reason than its memory; says what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(config.to_yaml(), encoding="utf-8")

        def tried(size: int) -> Trial:
            trial = _try(path, size, limit)
            on_trial(trial)
            return trial

        return search(tried, most, first)


def search(run: Callable[[int], Trial], most: int, first: int) -> list[Trial]:
    """The trials that it takes to know the largest size to one part in ``FINE``, by size."""
    trials: list[Trial] = []
    fits, too_large, size = 0, 0, min(first, most)
    while True:
        trials.append(run(size))
        if trials[-1].fits:
            fits = size
        else:
            too_large = size
        if not too_large:
            if size == most:
                break
            size = min(2 * size, most)
        elif too_large - fits > max(1, fits // FINE):
            size = (fits + too_large) // 2
        else:
            break
    return sorted(trials, key=lambda trial: trial.size)


# The process that starts the trials --------------------------------------------------------------


def _try(path: Path, size: int, limit: int) -> Trial:
    """Runs a trial, and ends it once it takes more than ``limit``."""
    command = [sys.executable, "-m", __name__, str(path), str(size)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, env=_environment())
        try:
            peak = _watch(process, limit)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        errors.seek(0)
        said, complaint = (file.read().decode(errors="replace") for file in (out, errors))
    killed = process.returncode == -9  # by us, or by the system, which is out of memory
    if killed or process.returncode == CODE_OUT_OF_MEMORY:
        return Trial(size, False, peak)
    if process.returncode:
        reason = complaint.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise TrainingError(f"a batch of {size} could not be tried: {reason[0]}")
    trial = Trial(**json.loads(said.splitlines()[-1]))
    return trial if trial.memory <= limit else Trial(size, False, trial.memory)


def _watch(process: subprocess.Popen[bytes], limit: int) -> int:
    """Waits for a trial to end, or ends it; returns the peak of its memory as far as seen."""
    peak, until = 0, time.monotonic() + LONGEST
    while process.poll() is None:
        peak = max(peak, peak_memory(process.pid))
        if peak > limit:
            process.kill()
            process.wait()
        elif time.monotonic() > until:
            raise TrainingError(f"a trial took more than {LONGEST:g} s; try fewer: --most")
        time.sleep(LOOKS)
    return peak


def _environment() -> dict[str, str]:
    """This one, with ppcls where a new process finds it."""
    home = str(Path(__file__).resolve().parents[2])
    paths = [home, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


# A trial -----------------------------------------------------------------------------------------


def measure(config: Config, size: int) -> Trial:
    """Trains some steps with batches of ``size``.

    Raises:
        MemoryError: they do not fit (Paddle's ResourceExhausted; on a GPU not measured here).
    """
    from ppcls.engine.handlers import training_handlers
    from ppcls.engine.rehearsal import Rehearsal

    [reader] = config.require("DataLoader.Train", purpose="training")
    reader.loader.num_workers = 0  # one batch is all it reads
    # With more batches to a step, the gradients lie beside the activations from the second one on.
    update_freq = min(2, config.Global.update_freq)
    config = replace(config, Global=replace(config.Global, update_freq=update_freq))
    trainer = Rehearsal(config, training_handlers(config), loads=False)
    try:
        trainer.state.epoch = config.Global.epochs  # progressive learning ends with the largest
        trainer.emit("fit_start")
        trainer.emit("epoch_start")
        batch = next(trainer.reader.epoch(trainer.state.epoch))
        seconds = _timed(trainer, _repeated(batch, size), update_freq)
    finally:
        trainer.close()
    return Trial(size, True, _peak_of(trainer.device), size / seconds)


def _timed(trainer: Any, batch: Batch, update_freq: int) -> float:
    """Seconds of a batch, after the first steps."""
    trainer.model.train()
    warm = WARM * update_freq
    for number in range(warm + TIMED * update_freq):
        if number == warm:
            started = time.perf_counter()
        trainer.emit("step_start")
        trainer.train_on(replace(batch, number=number % update_freq))
        trainer.wait()
    return (time.perf_counter() - started) / (TIMED * update_freq)


def _repeated(batch: Batch, size: int) -> Batch:
    """A batch of ``size`` pictures, the same ones again and again if need be."""
    return batch.taken(np.arange(size) % batch.pictures)


def _peak_of(device: str) -> int:
    if device == "gpu":
        import paddle

        return int(paddle.device.cuda.max_memory_reserved())
    return peak_memory(os.getpid())


def main() -> int:
    """A trial: ``CONFIG SIZE`` as arguments, a line of JSON as output."""
    path, size = sys.argv[1:]
    _volunteer()
    try:
        trial = measure(load_config(path), int(size))
    except MemoryError:
        return CODE_OUT_OF_MEMORY
    except PPClsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"\n{json.dumps(asdict(trial))}\n")
    return 0


def _volunteer() -> None:
    """Has Linux end this process first if memory runs out."""
    with suppress(OSError):  # not Linux, or forbidden
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
