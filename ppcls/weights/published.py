"""Checkpoints that PaddleClas wrote: ``<prefix>.pdparams``, ``.pdopt`` and ``.pdstates``.

With an EMA there is ``.pdema``, too: it holds the trained weights, and ``.pdparams`` the average.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import WeightsError
from ppcls.weights.read import NAME_TABLE, read_arrays, read_container, read_weights
from ppcls.weights.unpickle import describe

SUFFIXES = (".pdparams", ".pdopt", ".pdstates")
TRAINED_SUFFIX = ".pdema"


def is_checkpoint(prefix: Path) -> bool:
    """Whether all three files are there."""
    return all(_file(prefix, suffix).is_file() for suffix in SUFFIXES)


def read_checkpoint(
    prefix: Path,
) -> tuple[Path, dict[str, np.ndarray], dict[str, Any], dict[str, np.ndarray]]:
    """The weights file, the optimizer's arrays keyed by parameter name, the epoch, and the EMA's.

    The arrays of an EMA are keyed ``ema/<name>`` and ``trained/<name>``; empty without one.

    PaddleClas keys the optimizer's arrays by names that Paddle numbered in the process that saved
    them (``conv2d_0.w_0_velocity_0``); the weights file holds the table that undoes this.

    Raises:
        WeightsError: a file cannot be read, or the table does not cover the optimizer's arrays.
    """
    weights, optimizer, states = (_file(prefix, suffix) for suffix in SUFFIXES)
    # PaddleClas averages a copy of the network, whose parameters have other numbers.
    trained = _file(prefix, TRAINED_SUFFIX)
    named = trained if trained.is_file() else weights
    table = read_arrays(named).get(NAME_TABLE)
    if not isinstance(table, dict):
        raise WeightsError(f"{named}: does not say which parameter {optimizer} belongs to")
    epoch = read_arrays(states).get("epoch")
    if not isinstance(epoch, int):
        raise WeightsError(f"{states}: expected the number of an epoch, received {describe(epoch)}")
    state: dict[str, Any] = {"epoch": epoch}
    arrays: dict[str, np.ndarray] = {}
    if trained.is_file():
        state["weights"] = "ema"
        for group, path in (("ema", weights), ("trained", trained)):
            arrays |= {f"{group}/{name}": array for name, array in read_weights(path).items()}
    return weights, _by_parameter(_optimizer_arrays(optimizer), table), state, arrays


def _optimizer_arrays(path: Path) -> dict[str, np.ndarray]:
    content = read_container(path)
    tables = content if isinstance(content, list) else [content]
    if len(tables) != 1 or not isinstance(tables[0], dict):
        raise WeightsError(f"{path}: expected the state of one optimizer")
    named = {key: v[1] if isinstance(v, tuple) else v for key, v in tables[0].items()}
    return {key: value for key, value in named.items() if isinstance(value, np.ndarray)}


def _by_parameter(arrays: dict[str, np.ndarray], table: dict[str, str]) -> dict[str, np.ndarray]:
    """``conv2d_0.w_0_velocity_0`` -> ``features.0.0.weight/velocity``."""
    renamed = {}
    for structured, auto in table.items():
        for key in [key for key in arrays if key.startswith(f"{auto}_")]:
            slot = key[len(auto) + 1 :].rpartition("_")[0]
            renamed[f"{structured}/{slot}"] = arrays[key]
    return renamed


def _file(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)
