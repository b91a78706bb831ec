"""Says which process of several failed first, and why.

The launcher prints the log of the first process, which shows no more than that a peer is gone.
So the process that fails writes ``error.N.json`` beside the results, and its message to the
launcher's own console.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path

from ppcls.engine.distributed import World


def report_failure(error: BaseException, world: World, folder: Path | None) -> None:
    """Records a failure of this process; never raises."""
    record = {
        "rank": world.rank,
        "time": time.time(),
        "error": f"{type(error).__name__}: {error}",
        "traceback": traceback.format_exception(error),
    }
    try:
        if folder is not None and folder.is_dir():
            _record_file(world, folder).write_text(json.dumps(record, indent=1), encoding="utf-8")
        _tell_launcher(f"[rank {world.rank}] {record['error']}\n")
    except OSError as problem:
        sys.stderr.write(f"the failure could not be recorded: {problem}\n")


def forget_failure(world: World, folder: Path) -> None:
    """Removes what this process recorded in an earlier run."""
    _record_file(world, folder).unlink(missing_ok=True)


def _record_file(world: World, folder: Path) -> Path:
    return folder / f"error.{world.rank}.json"


def _tell_launcher(message: str) -> None:
    """Writes to the standard error of the parent process, which is the launcher's console.

    The first process's own output is copied there anyway.
    """
    rank = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
    console = Path(f"/proc/{os.getppid()}/fd/2")
    if rank and console.exists():
        with console.open("a", encoding="utf-8") as file:
            file.write(message)
