"""MLflow. https://mlflow.org/docs/latest/ml/tracking"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ppcls.engine.trackers.base import Run, Tracker, environment, flat, library
from ppcls.registry import TRACKERS

AT_ONCE = 100  # parameters that a server takes in one request
LONGEST = 500  # characters of a parameter that every version keeps


@TRACKERS.register("mlflow")
class MLflow(Tracker):
    """Writes the data base ``mlflow.db``, or what the user has set as ``MLFLOW_TRACKING_URI``.

    ``MLFLOW_EXPERIMENT_NAME`` counts as well. A resumed run goes on with the same run id.
    """

    title = "MLflow"

    def __init__(self) -> None:
        # It would tell its makers that it is used, and note in the home directory that it did.
        with environment(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="WARNING"):
            self._library = library("mlflow", "mlflow")
        self._entities = library("mlflow.entities", "mlflow")
        self._client: Any = None
        self._id = ""

    def open(self, run: Run) -> str:
        """Starts a run in the experiment, with the configuration as parameters, or resumes one."""
        own = f"sqlite:///{run.folder.resolve() / 'mlflow.db'}"
        address = os.environ.get("MLFLOW_TRACKING_URI") or own
        self._client = self._library.MlflowClient(tracking_uri=address)
        self._id = run.state.get("run_id", "")
        if not (self._id and self._resumes()):
            experiment = self._experiment(run if address == own else None)
            self._id = self._client.create_run(experiment, run_name=run.name).info.run_id
            self._add_parameters(run.config)
        return f"mlflow ui --backend-store-uri {address}"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(tag, float(value), now, step) for tag, value in values.items()
        ]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, finished: bool) -> None:
        """Marks the run as finished, or as failed."""
        if self._id:
            self._client.set_terminated(self._id, "FINISHED" if finished else "FAILED")

    def state(self) -> dict[str, Any]:
        """The run's id."""
        return {"run_id": self._id} if self._id else {}

    def _resumes(self) -> bool:
        """Whether the run before is in this data base, which another output folder's is not."""
        try:
            self._client.update_run(self._id, status="RUNNING")
        except self._library.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _experiment(self, run: Run | None) -> str:
        """Id of the experiment; files of a local one would go to this run's folder."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "ppcls")
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = (run.folder.resolve() / "mlartifacts").as_uri() if run else None
        return str(self._client.create_experiment(name, artifact_location=place))

    def _add_parameters(self, config: Mapping[str, Any]) -> None:
        parameters = [
            self._entities.Param(path, str(value)[:LONGEST]) for path, value in flat(config).items()
        ]
        for start in range(0, len(parameters), AT_ONCE):
            self._client.log_batch(self._id, params=parameters[start : start + AT_ONCE])
