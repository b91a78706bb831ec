"""VisualDL: Paddle's own tool. https://github.com/PaddlePaddle/VisualDL"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppcls.engine.trackers.base import Run, Tracker, library
from ppcls.registry import TRACKERS


@TRACKERS.register("visualdl")
class VisualDL(Tracker):
    """Writes ``vdl/``. A resumed run adds a file; VisualDL cannot hide what was written twice."""

    title = "VisualDL"

    def __init__(self) -> None:
        self._library = library("visualdl", "visualdl")
        self._writer: Any = None

    def open(self, run: Run) -> str:
        """Opens a log file."""
        folder = run.folder / "vdl"
        self._writer = self._library.LogWriter(logdir=str(folder))
        return f"visualdl --logdir {folder}"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def close(self, finished: bool) -> None:
        """Closes the log file."""
        if self._writer is not None:
            self._writer.close()
