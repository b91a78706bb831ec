"""The temperature of calibrated weights: a file beside them, bound to them by its checksum.

Dividing the logits by one number, fitted on validation data, leaves every answer as it is and makes
its probability honest (arXiv:1706.04599, section 4.2).
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path

from ppcls.errors import DataError, EnvironmentProblem, WeightsError
from ppcls.metrics.calibration import HIGHEST, LOWEST
from ppcls.weights.manifest import describe_file
from ppcls.weights.source import MODEL_FILE

CALIBRATION_FILE = "calibration.json"
METRICS_NEEDED = ("LogLoss", "ECE", "Temperature")


def calibration_file(weights: Path) -> Path:
    """Where the temperature of a weights file stands: beside it.

    A checkpoint's is ``calibration.json``, that of ``net.pdparams`` ``net.calibration.json``. The
    checkpoint's manifest does not list it, and stays valid.
    """
    prefix = "" if weights.name == MODEL_FILE else f"{weights.stem}."
    return weights.with_name(prefix + CALIBRATION_FILE)


def write_calibration(weights: Path, values: Mapping[str, float], images: int) -> Path:
    """Writes what an evaluation with ``METRICS_NEEDED`` has found; returns where.

    Args:
        values: the evaluation's.
        images: how many it was of.

    Raises:
        DataError: no temperature could be fitted.
        EnvironmentProblem: the file cannot be written.
    """
    temperature = values["temperature"]
    if not math.isfinite(temperature):
        raise DataError(
            "no temperature could be fitted: there are no images, or the logits are not finite"
        )
    content = {
        "temperature": temperature,
        "images": images,
        "log_loss": {"before": values["log_loss"], "after": values["calibrated_log_loss"]},
        "ECE": {"before": values["ECE"], "after": values["calibrated_ECE"]},
        "weights": describe_file(weights),
    }
    path = calibration_file(weights)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        try:
            new.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from None
    return path


def read_temperature(weights: Path, logger: logging.Logger) -> float | None:
    """The temperature of a weights file; None if it was not calibrated.

    One that was fitted for other weights, which have stood there before, is left out with a
    warning.

    Raises:
        WeightsError: the file is not one of ours.
    """
    path = calibration_file(weights)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        temperature, described = float(content["temperature"]), content["weights"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path}: cannot be read: {error!r}") from None
    if not LOWEST <= temperature <= HIGHEST:
        expected = f"expected a temperature from {LOWEST:g} to {HIGHEST:g}"
        raise WeightsError(f"{path}: {expected}, received {temperature}")
    if described != describe_file(weights):
        logger.warning(f"{path} is left out: it was fitted for other weights than {weights.name}")
        return None
    return temperature
