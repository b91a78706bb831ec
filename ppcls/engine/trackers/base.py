"""The one interface to tools that draw curves."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppcls.errors import EnvironmentProblem


@dataclass(frozen=True)
class Run:
    """What is tracked.

    Attributes:
        name: of the network.
        folder: of the run; trackers write here and nowhere else, unless the user says so.
        config: the resolved configuration in plain values.
        step: optimizer steps done so far; points behind it come from a run that was cut short.
        state: what ``Tracker.state`` said when the checkpoint that is resumed from was saved; empty
            in a new run.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    step: int = 0
    state: Mapping[str, Any] = field(default_factory=dict)


class Tracker:
    """A tool that draws curves. Its methods may raise anything: the caller switches it off then.

    Attributes:
        title: what messages call it.

    Raises:
        EnvironmentProblem: its library is not installed.
    """

    title = ""

    def open(self, run: Run) -> str:
        """Begins the curves, or goes on with those of ``run.state``; says how to look at them."""
        raise NotImplementedError

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve.

        Args:
            step: optimizer steps so far; several calls may have the same.
            values: by tag, such as ``train/loss`` or ``eval/top1``.
        """
        raise NotImplementedError

    def close(self, finished: bool) -> None:
        """The run is over: at its end, or before it."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same curves; plain JSON values."""
        return {}


def library(module: str, name: str) -> Any:
    """A module of the library that the tracker ``name`` needs, whose extra has the same name.

    Raises:
        EnvironmentProblem: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"the tracker {name} needs a library ({error}): pip install 'ppcls[{name}]'"
        raise EnvironmentProblem(message) from None


@contextmanager
def environment(**defaults: str) -> Iterator[None]:
    """Variables that libraries read, for as long as it lasts; those that the user has set stay."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"Global.epochs": 3, "Loss.Train.0.CELoss.weight": 1.0}``: a value for each dotted path."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, (list, tuple)) and any(isinstance(v, (dict, list)) for v in value):
            value = dict(enumerate(value))
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{path}.")
        else:
            found[path] = value
    return found
