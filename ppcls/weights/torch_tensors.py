"""PyTorch's tensors, as its pickles describe them: views of storages outside of the pickle.

A view is an offset, a size and a stride; none of these is believed before it was held against the
storage.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from ppcls.weights.bfloat16 import to_float32
from ppcls.weights.unpickle import ADMITTED as PLAIN
from ppcls.weights.unpickle import MOST_AXES, TUPLE, Function, Refused, Table, describe

# PyTorch's names -> how numpy stores the numbers.
BFLOAT16 = "bfloat16"
DTYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    BFLOAT16: "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "u1",
}
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class Storage(NamedTuple):
    """Numbers outside of the pickle."""

    dtype: str
    key: str
    length: int  # in numbers

    @property
    def nbytes(self) -> int:
        """Its length in bytes."""
        return self.length * np.dtype(DTYPES[self.dtype]).itemsize


class Tensor(NamedTuple):
    """A view of a storage, as the pickle describes it: not checked yet."""

    storage: Any
    offset: Any
    size: Any
    stride: Any
    dtype: Any


def view(tensor: Tensor, raw: np.ndarray, order: Literal["<", ">"]) -> np.ndarray:
    """A tensor as a read-only array.

    Args:
        raw: the bytes of its storage.
        order: of the bytes of a number: ``<`` or ``>``.

    Raises:
        ValueError, TypeError, OverflowError: the description does not fit the storage.
    """
    if type(tensor.dtype) is not str or tensor.dtype not in DTYPES:
        raise ValueError(f"is of the unknown kind {describe(tensor.dtype)}")
    numbers = raw.view(np.dtype(DTYPES[tensor.dtype]).newbyteorder(order))
    array = _checked_view(numbers, tensor.offset, tensor.size, tensor.stride)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if tensor.dtype == BFLOAT16:
        array = to_float32(array)
    elif tensor.dtype == "bool":
        array = np.asarray(array != 0)
    array.flags.writeable = False
    return array


def _checked_view(numbers: np.ndarray, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """What PyTorch calls ``as_strided``; never reaches outside, nor is larger than the storage."""
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise ValueError("has a size and a stride that do not belong together")
    if len(size) > MOST_AXES:
        raise ValueError(f"has {len(size)} axes")
    for n in (offset, *size, *stride):
        if type(n) is not int or not 0 <= n < 2**63:
            raise ValueError(f"has {describe(n)} in its offset, size or stride")
    count = math.prod(size)
    if count == 0:
        return np.empty(size, numbers.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= numbers.size or count > numbers.size:
        raise ValueError(
            f"offset {offset}, size {size} and stride {stride} reach beyond "
            f"its storage of {numbers.size} numbers"
        )
    steps = [s * numbers.itemsize if n > 1 else 0 for n, s in zip(size, stride, strict=True)]
    return np.lib.stride_tricks.as_strided(numbers[offset:], size, steps)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """``_rebuild_tensor`` and ``_rebuild_tensor_v2``."""
    return Tensor(storage, offset, size, stride, getattr(storage, "dtype", None))


def _tensor_of_dtype(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    """``_rebuild_tensor_v3``, for numbers that have no storage of their own."""
    return Tensor(storage, offset, size, stride, dtype)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _tensor_with_attributes(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    if not isinstance(function, Function):
        raise Refused("it asks for a tensor of an unknown kind")
    return function(*arguments)


ADMITTED: dict[tuple[str, str], Any] = {
    **PLAIN,
    ("argparse", "Namespace"): Table,  # a training script's arguments, beside the weights
    ("torch", "Size"): TUPLE,
    ("torch", "device"): Function(lambda *name: name),
    ("torch", "Tensor"): "Tensor",
    ("torch.nn.parameter", "Parameter"): "Parameter",
    ("torch._utils", "_rebuild_tensor"): Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Function(_tensor_of_dtype),
    ("torch._utils", "_rebuild_parameter"): Function(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Function(_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): Function(_tensor_with_attributes),
    ("torch.storage", "UntypedStorage"): "uint8",
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
    **{("torch", name): name for name in DTYPES},
}


def storage_of(pid: Any) -> Storage:
    """The storage that a persistent id means: (kind, dtype, key, device, count[, None])."""
    match pid:
        case ("storage", str(dtype), str(key), str(), int(count)) | (
            "storage",
            str(dtype),
            str(key),
            str(),
            int(count),
            None,
        ) if dtype in DTYPES and count >= 0:
            return Storage(dtype, key, count)
    kind = pid[0] if isinstance(pid, tuple) and pid and isinstance(pid[0], str) else "object"
    raise Refused(f"it asks for a {kind[:20]} from outside")
