"""Weights & Biases. https://docs.wandb.ai"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import Any

from ppcls.engine.trackers.base import Run, Tracker, environment, library
from ppcls.registry import TRACKERS


@TRACKERS.register("wandb")
class WeightsAndBiases(Tracker):
    """Writes ``wandb/``, and sends nothing anywhere unless the user has set ``WANDB_MODE``.

    ``WANDB_PROJECT``, ``WANDB_NAME``, ``WANDB_DIR`` and ``WANDB_RUN_ID`` count as well. A resumed
    run has the id of the one before; of points that come twice, the first ones stay.
    """

    title = "Weights & Biases"

    def __init__(self) -> None:
        self._library = library("wandb", "wandb")
        self._run: Any = None
        self._id = ""

    def open(self, run: Run) -> str:
        """Starts a run of the library, or resumes the one before."""
        given = os.environ.get
        mode = given("WANDB_MODE", "offline")
        self._id = run.state.get("id") or given("WANDB_RUN_ID") or uuid.uuid4().hex[:8]
        folder = given("WANDB_DIR") or str(run.folder)
        quiet = {"WANDB_ERROR_REPORTING": "false"} if mode == "offline" else {}
        # Its caches and logs would go to the home directory.
        with environment(WANDB_CACHE_DIR=str(run.folder / "wandb" / "cache"), **quiet):
            self._run = self._library.init(
                project=given("WANDB_PROJECT", "ppcls"),
                name=given("WANDB_NAME", run.name),
                id=self._id,
                resume="allow" if run.state.get("id") and mode != "offline" else None,
                dir=folder,
                mode=mode,
                config=dict(run.config),
                settings=self._library.Settings(console="off", silent=True, reinit="create_new"),
            )
        if mode == "offline":
            return f"wandb sync {self._run.settings.sync_dir}"
        return str(self._run.url)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        self._run.log(dict(values), step=step)

    def close(self, finished: bool) -> None:
        """Ends the library's run; one that did not finish is marked so."""
        if self._run is not None:
            self._run.finish(exit_code=0 if finished else 1)

    def state(self) -> dict[str, Any]:
        """The run's id."""
        return {"id": self._id} if self._id else {}
