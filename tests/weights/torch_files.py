"""Files of PyTorch's two forms, written without PyTorch: right ones and hostile ones."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


@dataclass
class Global:
    """Something that the pickle asks for by name."""

    module: str
    name: str


@dataclass
class Call:
    """The result of a call."""

    function: Global
    arguments: tuple


@dataclass
class Outside:
    """An object outside of the pickle."""

    pid: Any


@dataclass
class Changed:
    """An object to which the pickle gives a state."""

    value: Any
    state: Any


def emit(value: Any) -> bytes:
    """The opcodes (protocol 2) that make a value."""
    match value:
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return emit(value.function) + emit(value.arguments) + b"R"
        case Outside():
            return emit(value.pid) + b"Q"
        case Changed():
            return emit(value.value) + emit(value.state) + b"b"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case tuple():
            return b"(" + b"".join(map(emit, value)) + b"t"
        case list():
            return b"](" + b"".join(map(emit, value)) + b"e"
        case dict():
            return b"}(" + b"".join(emit(k) + emit(v) for k, v in value.items()) + b"u"
    raise TypeError(value)


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + emit(value) + b"."


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")


def storage(key: str, length: int, kind: str = "FloatStorage") -> Outside:
    return Outside(("storage", Global("torch", kind), key, "cpu", length))


def view(outside: Any, offset: Any, size: Any, stride: Any) -> Call:
    return Call(REBUILD, (outside, offset, size, stride, False, {}))


def tensor(key: str, array: np.ndarray) -> Call:
    """A tensor that is the whole of a storage."""
    stride = tuple(step // array.itemsize for step in array.strides)
    return view(storage(key, array.size, KINDS[array.dtype.name]), 0, array.shape, stride)


def write_zip(
    path: Path, content: Any, storages: Mapping[str, bytes], byteorder: bytes | None = b"little"
) -> Path:
    """What torch.save writes since 1.6. ``content``: a value, or the bytes of a pickle."""
    data = content if isinstance(content, bytes) else pickled(content)
    entries = {"data.pkl": data} | {f"data/{key}": value for key, value in storages.items()}
    if byteorder is not None:
        entries["byteorder"] = byteorder
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, value in entries.items():
            archive.writestr(f"archive/{name}", value)
        archive.writestr("archive/version", b"3\n")
    return path


def write_legacy(path: Path, content: Any, storages: Mapping[str, tuple[int, bytes]]) -> Path:
    """What torch.save wrote before; a storage is its length in numbers, and its bytes."""
    parts = [pickled_long(0x1950A86A20F9469CFC6C), pickled(1001), pickled({"little_endian": True})]
    parts += [pickled(content), pickled(list(storages))]
    parts += [struct.pack("<q", length) + data for length, data in storages.values()]
    path.write_bytes(b"".join(parts))
    return path


def pickled_long(value: int) -> bytes:
    return b"\x80\x02\x8a\x0a" + value.to_bytes(10, "little", signed=True) + b"."


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], legacy: bool = False) -> Path:
    """A state dict."""
    content = {name: tensor(str(i), array) for i, (name, array) in enumerate(arrays.items())}
    if legacy:
        for call in content.values():
            call.arguments[0].pid += (None,)
        whole = {str(i): (a.size, a.tobytes()) for i, a in enumerate(arrays.values())}
        return write_legacy(path, content, whole)
    return write_zip(path, content, {str(i): a.tobytes() for i, a in enumerate(arrays.values())})
