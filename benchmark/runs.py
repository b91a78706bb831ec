"""Training runs of the proofs: each by the real command line, once; their figures as a table."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = "result.json"


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        name: of the row of the table.
        config: the YAML file.
        overrides: ``path=value`` each, as after ``-o``.
        seed: ``Global.seed``.
    """

    name: str
    config: Path
    overrides: tuple[str, ...]
    seed: int

    @property
    def folder(self) -> str:
        """Where it writes, below the folder of all runs."""
        return f"{self.name.replace(' ', '_')}/seed_{self.seed}"


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        folder: of its configuration, log and checkpoints.
        top1: of the evaluation after the last epoch, not of the best one.
        seconds: from the command to its end.
        given: configuration and overrides, by which a later call knows the run again.
    """

    folder: str
    top1: float
    seconds: float
    given: list[str]


def perform(runs: Sequence[Run], out: Path, jobs: int = 1) -> list[Result]:
    """Trains what has no result yet, ``jobs`` at a time, which share the processor's cores."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ThreadPoolExecutor(jobs)
    try:
        return list(pool.map(lambda run: trained(run, out, threads), runs))
    except KeyboardInterrupt:
        os._exit(130)  # or the pool would wait for its trainings, which end when we do
    finally:
        pool.shutdown(cancel_futures=True)


def trained(run: Run, out: Path, threads: int | None = None) -> Result:
    """The result of a run, which is trained unless its result is there already.

    Raises:
        SystemExit: the run failed, or the folder holds the result of another one.
    """
    folder = out / run.folder
    given = [str(run.config.resolve().relative_to(ROOT)), *run.overrides]
    if (folder / RESULT).is_file():
        result = Result(**json.loads((folder / RESULT).read_text(encoding="utf-8")))
        if result.given != given:
            raise SystemExit(f"{folder} holds a run of other settings; choose another --out")
        return result
    shutil.rmtree(folder, ignore_errors=True)
    settings = [*run.overrides, f"Global.seed={run.seed}", f"Global.output_dir={folder}"]
    start = time.perf_counter()
    call(["train", "-c", str(run.config)], settings, threads)
    seconds = time.perf_counter() - start
    [metrics] = folder.glob("*/metrics.jsonl")
    result = Result(str(metrics.parent), last_top1(metrics), round(seconds, 1), given)
    (folder / RESULT).write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    sys.stderr.write(f"{run.name}, seed {run.seed}: {result.top1:.2%} in {seconds:.0f} s\n")
    return result


def call(command: Sequence[str], overrides: Sequence[str] = (), threads: int | None = None) -> str:
    """Runs a command of ``ppcls`` and returns what it prints.

    Raises:
        SystemExit: it failed; what it said stands above.
    """
    arguments = [part for override in overrides for part in ("-o", override)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    # However this process ends, Linux sends its children SIGTERM then: none trains on alone.
    ours = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    done = subprocess.run(
        [*ours, sys.executable, "-m", "ppcls.cli", *command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        sys.stderr.write(done.stdout[-2000:] + done.stderr[-2000:])
        raise SystemExit(f"ppcls {' '.join(command)} ended with {done.returncode}")
    return done.stdout


def last_top1(metrics: Path) -> float:
    """Top-1 of the last evaluation in a ``metrics.jsonl``."""
    lines = metrics.read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "eval"][-1]["top1"]


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation in percent, or points."""
    deviation = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{deviation}"


def gain(values: Sequence[float], beside: Sequence[float]) -> str:
    """Mean and sample standard deviation of the differences, seed by seed, in points."""
    differences = [one - other for one, other in zip(values, beside, strict=True)]
    sign = "+" if statistics.mean(differences) >= 0 else ""
    return sign + spread(differences)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
