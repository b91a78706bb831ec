"""Libraries that only some data sets need."""

from __future__ import annotations

import importlib
from typing import Any

from ppcls.errors import EnvironmentProblem


def optional(module: str, package: str) -> Any:
    """An imported module.

    Args:
        package: what ``pip install`` calls it.

    Raises:
        EnvironmentProblem: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvironmentProblem(
            f"this data set needs the package '{package}': pip install {package} ({error})"
        ) from None
