"""TensorBoard, by its own writer: neither TensorFlow nor PyTorch is needed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ppcls.engine.trackers.base import Run, Tracker, library
from ppcls.registry import TRACKERS


@TRACKERS.register("tensorboard")
class TensorBoard(Tracker):
    """Writes ``tensorboard/``: one file of events for each start of the run."""

    title = "TensorBoard"

    def __init__(self) -> None:
        self._files = library("tensorboard.summary.writer.event_file_writer", "tensorboard")
        self._events = library("tensorboard.compat.proto.event_pb2", "tensorboard")
        self._summaries = library("tensorboard.compat.proto.summary_pb2", "tensorboard")
        self._texts = library("tensorboard.plugins.text.metadata", "tensorboard")
        self._tensors = library("tensorboard.util.tensor_util", "tensorboard")
        self._writer: Any = None

    def open(self, run: Run) -> str:
        """Opens a file of events, and hides the points behind the step that the run resumes at."""
        folder = run.folder / "tensorboard"
        self._writer = self._files.EventFileWriter(str(folder))
        if run.step:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._add(run.step + 1, session_log=start)
        self._add_text(run.step, "config", json.dumps(run.config, indent=2, default=str))
        return f"tensorboard --logdir {folder}"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        points = [
            self._summaries.Summary.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
        ]
        self._add(step, summary=self._summaries.Summary(value=points))

    def close(self, finished: bool) -> None:
        """Closes the file of events."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, step: int, **what: Any) -> None:
        self._writer.add_event(self._events.Event(wall_time=time.time(), step=step, **what))

    def _add_text(self, step: int, tag: str, text: str) -> None:
        code = "\n".join(f"    {line}" for line in text.splitlines())  # as Markdown shows code
        value = self._summaries.Summary.Value(
            tag=tag,
            metadata=self._texts.create_summary_metadata(display_name=tag, description=""),
            tensor=self._tensors.make_tensor_proto([code.encode()]),
        )
        self._add(step, summary=self._summaries.Summary(value=[value]))
