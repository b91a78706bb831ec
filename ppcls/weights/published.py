"""Checkpoints that PaddleClas wrote: ``<prefix>.pdparams``, ``.pdopt`` and ``.pdstates``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import WeightsError
from ppcls.weights.read import NAME_TABLE, read_arrays, read_container
from ppcls.weights.unpickle import describe

SUFFIXES = (".pdparams", ".pdopt", ".pdstates")


def is_checkpoint(prefix: Path) -> bool:
    """Whether all three files are there."""
    return all(_file(prefix, suffix).is_file() for suffix in SUFFIXES)


def read_checkpoint(prefix: Path) -> tuple[Path, dict[str, np.ndarray], dict[str, Any]]:
    """The weights file, the optimizer's arrays keyed by parameter name, and the epoch.

    PaddleClas keys the optimizer's arrays by names that Paddle numbered in the process that saved
    them (``conv2d_0.w_0_velocity_0``); the weights file holds the table that undoes this.

    Raises:
        WeightsError: a file cannot be read, or the table does not cover the optimizer's arrays.
    """
    weights, optimizer, states = (_file(prefix, suffix) for suffix in SUFFIXES)
    table = read_arrays(weights).get(NAME_TABLE)
    if not isinstance(table, dict):
        raise WeightsError(f"{weights}: does not say which parameter {optimizer} belongs to")
    epoch = read_arrays(states).get("epoch")
    if not isinstance(epoch, int):
        raise WeightsError(f"{states}: expected the number of an epoch, received {describe(epoch)}")
    return weights, _by_parameter(_optimizer_arrays(optimizer), table), {"epoch": epoch}


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
