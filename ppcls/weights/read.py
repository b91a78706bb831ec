"""Weights files -> name -> array, without ever executing what a file says."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import WeightsError
from ppcls.weights import torch_file
from ppcls.weights.bfloat16 import to_float32
from ppcls.weights.unpickle import Damaged, Refused, explain, load_pickle

NUMBERS = "fiub"  # numpy's kinds: floats, integers, booleans
SUFFIXES = (
    *(".pdparams", ".pdema", ".pdopt", ".pdstates"),
    ".safetensors",
    *torch_file.SUFFIXES,
)
# Paddle's own entry in each file: structured name -> the parameter's name in the saving process
NAME_TABLE = "StructuredToParameterName@@"


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a ``.pdparams``, ``.safetensors`` or PyTorch file (``.pth``, ``.pt``, ``.bin``).

    bfloat16, which numpy lacks, becomes float32. Arrays may be read-only.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or holds anything but arrays.
    """
    return open_weights(path)[0]


def open_weights(path: str | Path) -> tuple[dict[str, np.ndarray], str]:
    """As ``read_weights``, and which part of a training script's checkpoint that is, in words."""
    path = Path(path)
    _check_file(path)
    if path.suffix in torch_file.SUFFIXES:
        weights, taken = torch_file.read_torch(path, _head(path))
    else:
        weights, taken = read_arrays(path), ""
    if path.suffix in (".pdparams", ".pdema"):  # where uint16 means bfloat16
        weights |= {n: to_float32(v) for n, v in weights.items() if _is_uint16(v)}
    weights.pop(NAME_TABLE, None)
    for name, value in weights.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in NUMBERS:
            kind = getattr(value, "dtype", type(value).__name__)
            raise WeightsError(f"{path}: expected arrays of numbers, but '{name}' is a {kind}")
    if not weights:
        raise WeightsError(f"{path}: holds no weights")
    return weights, taken


def read_arrays(path: Path) -> dict[str, Any]:
    """A file's entries by name: arrays, and whatever plain values stand between them."""
    content = read_container(path)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise WeightsError(f"{path}: expected a table of named arrays, received another content")
    # Paddle writes some tensors as (name, array).
    return {name: v[1] if _is_named(v) else v for name, v in content.items()}


def read_container(path: Path) -> Any:
    """What a file of Paddle's or a ``.safetensors`` holds, read safely; raises WeightsError."""
    _check_file(path)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    return read(path, _head(path))


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file")
    if path.suffix not in SUFFIXES:
        expected = ", ".join(SUFFIXES)
        raise WeightsError(f"{path}: expected a file ending in {expected}")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise WeightsError(f"{path}: is empty (0 bytes)")
    return head


def _is_uint16(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.uint16


def _is_named(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _read_pickle(path: Path, head: bytes) -> Any:
    if head[0] != 0x80:  # the opcode that every binary pickle starts with
        hint = ", as PyTorch's files do: give it the ending .pth" if head[:2] == b"PK" else ""
        message = f"is not a {path.suffix} file: it starts with {head[:12]!r}{hint}"
        raise WeightsError(f"{path}: {message}")
    try:
        with path.open("rb") as file:
            return load_pickle(file)
    except (Refused, Damaged) as error:
        raise explain(path, error) from None


def _read_safetensors(path: Path, head: bytes) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            names = list(file.keys())
            small = [name for name in names if file.get_slice(name).get_dtype() == "BF16"]
            arrays = {n: None if n in small else file.get_tensor(n) for n in names}
        return {**arrays, **_read_bfloat16(path, small)} if small else arrays
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        message = f"is not a safetensors file, or is damaged: {error}; it starts with {head[:12]!r}"
        raise WeightsError(f"{path}: {message}") from None


def _read_bfloat16(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Tensors that safetensors cannot give to numpy; the library has checked the header."""
    arrays = {}
    with path.open("rb") as file:
        [length] = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        for name in names:
            start, end = header[name]["data_offsets"]
            file.seek(8 + length + start)
            bits = np.frombuffer(file.read(end - start), "<u2").astype(np.uint16)
            arrays[name] = to_float32(bits.reshape(header[name]["shape"]))
    return arrays
