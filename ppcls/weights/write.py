"""Weights files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import EnvironmentProblem, UsageError

SUFFIXES = (".pdparams", ".safetensors")
# What Paddle lacks; it would take uint16 for the bits of bfloat16.
SIGNED = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}


def check_suffix(path: Path) -> None:
    """Raises UsageError if no file of that kind can be written."""
    if path.suffix not in SUFFIXES:
        expected = " or ".join(SUFFIXES)
        raise UsageError(f"{path}: expected a file to write that ends in {expected}")


def write_weights(path: Path, weights: Mapping[str, Any]) -> None:
    """Writes a ``.pdparams``, which ``paddle.load`` reads, or a ``.safetensors`` file.

    Args:
        weights: a network's state dict, or name -> array.

    Raises:
        UsageError: the file's name ends otherwise.
        EnvironmentProblem: it cannot be written.
    """
    check_suffix(path)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write = _write_paddle if path.suffix == ".pdparams" else _write_safetensors
            write(new, weights)
            with new.open("rb") as file:
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from None


def _write_paddle(path: Path, weights: Mapping[str, Any]) -> None:
    import paddle

    tensors = {
        name: paddle.to_tensor(value.astype(SIGNED.get(value.dtype.name, value.dtype), copy=False))
        if isinstance(value, np.ndarray)
        else value
        for name, value in weights.items()
    }
    paddle.save(tensors, str(path))


def _write_safetensors(path: Path, weights: Mapping[str, Any]) -> None:
    from safetensors.numpy import save

    arrays = {
        name: np.asarray(value if isinstance(value, np.ndarray) else value.numpy(), order="C")
        for name, value in weights.items()
    }
    path.write_bytes(save(arrays))
