"""Weights files -> name -> array, without ever executing what a file says.

A ``.pdparams`` is a pickle, and a pickle is a program. It is read by an unpickler that knows
arrays and plain containers and refuses everything else; there is no fall-back.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.errors import WeightsError

NUMBERS = "fiub"  # numpy's kinds: floats, integers, booleans
SUFFIXES = (".pdparams", ".pdopt", ".pdstates", ".safetensors")
# Paddle's own entry in each file: structured name -> the parameter's name in the saving process
NAME_TABLE = "StructuredToParameterName@@"

# Looked up from live objects, because numpy 1 and 2 keep these functions in different modules.
_reconstruct: Any = np.empty(0).__reduce__()[0]
_scalar: Any = np.float32(0).__reduce__()[0]


def _encode(text: str, encoding: str) -> bytes:
    """``_codecs.encode`` as old pickles use it for bytes; any other codec is refused."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"codec '{encoding}'")
    return text.encode("latin1")


ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "tuple"): tuple,  # Paddle writes a tensor as (name, array)
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits arrays and plain containers only."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks to run '{module}.{name}'") from None


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a ``.pdparams`` or ``.safetensors`` file.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or holds anything but arrays.
    """
    path = Path(path)
    weights = read_arrays(path)
    weights.pop(NAME_TABLE, None)
    for name, value in weights.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in NUMBERS:
            kind = getattr(value, "dtype", type(value).__name__)
            raise WeightsError(f"{path}: expected arrays of numbers, but '{name}' is a {kind}")
    if not weights:
        raise WeightsError(f"{path}: holds no weights")
    return weights


def read_arrays(path: Path) -> dict[str, Any]:
    """A file's entries by name: arrays, and whatever plain values stand between them."""
    content = read_container(path)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise WeightsError(f"{path}: expected a table of named arrays, received another content")
    # Paddle writes some tensors as (name, array).
    return {name: v[1] if _is_named(v) else v for name, v in content.items()}


def read_container(path: Path) -> Any:
    """What a file holds, read safely; raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file")
    if path.suffix not in SUFFIXES:
        expected = ", ".join(SUFFIXES)
        raise WeightsError(f"{path}: expected a file ending in {expected}")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise WeightsError(f"{path}: is empty (0 bytes)")
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
    return read(path, head)


def _is_named(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _read_pickle(path: Path, head: bytes) -> Any:
    if head[0] != 0x80:  # the opcode that every binary pickle starts with
        raise WeightsError(f"{path}: is not a {path.suffix} file: it starts with {head[:12]!r}")
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file).load()
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: refused, nothing was executed: {error}") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise WeightsError(f"{path}: is damaged or truncated ({reason})") from None


def _read_safetensors(path: Path, head: bytes) -> Any:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        message = f"is not a safetensors file, or is damaged: {error}; it starts with {head[:12]!r}"
        raise WeightsError(f"{path}: {message}") from None
