"""PyTorch's files, read without PyTorch and without executing what they say.

There are two forms. Since PyTorch 1.6 a file is a zip archive: ``<prefix>/data.pkl`` is a pickle of
the objects, and the numbers of the storage ``key`` are ``<prefix>/data/<key>``. Before that, a file
was a row of pickles (magic number, version, machine, objects, keys of the storages), and then the
numbers of each storage.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from ppcls.errors import WeightsError
from ppcls.weights.torch_tensors import ADMITTED, Storage, Tensor, storage_of, view
from ppcls.weights.unpickle import (
    MOST_COPIES,
    Damaged,
    Refused,
    describe,
    explain,
    load_pickle,
)

SUFFIXES = (".pth", ".pt", ".bin")
LEGACY_HEAD = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # behind the version of its pickles
LEGACY_VERSION = 1001
CONVERT = "torch.save(torch.load(path), new_path) with a PyTorch from 1.6 on converts it"
WEIGHTS_ALONE = "torch.save(net.state_dict(), new_path) writes the weights alone"
# Where training scripts keep the weights; those of a moving average are the ones that scored.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
PREFIXES = ("module.", "model.", "_orig_mod.")


class _Opened(NamedTuple):
    """A file's objects, and how to get the bytes of a storage."""

    content: Any
    load: Callable[[Storage], np.ndarray]
    order: Literal["<", ">"] = "<"


def read_torch(path: Path, head: bytes) -> tuple[dict[str, Any], str]:
    """The state dict of a file: arrays (not to be written to), and plain values between them.

    Args:
        head: the first bytes of the file.

    Returns:
        The entries by name, and which part of the file they are, in words.

    Raises:
        WeightsError: the file is damaged, of another kind, or holds anything but tensors and
            plain values.
    """
    try:
        if head[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                return _state_dict(path, _open_zip(path, archive))
        with path.open("rb") as file:
            return _state_dict(path, _open_legacy(path, file, head))
    except Refused as error:
        raise WeightsError(f"{explain(path, error)}; {WEIGHTS_ALONE}") from None
    except Damaged as error:
        raise explain(path, error) from None
    except WeightsError:
        raise
    except Exception as error:  # zipfile has many ways to stumble over a damaged archive
        raise explain(path, Damaged(f"{type(error).__name__}: {error}")) from None


def _state_dict(path: Path, opened: _Opened) -> tuple[dict[str, Any], str]:
    table, taken = _unwrapped(opened.content)
    if not isinstance(table, Mapping) or not all(isinstance(name, str) for name in table):
        raise WeightsError(f"{path}: expected a table of named tensors, received another content")
    storages: dict[str, np.ndarray] = {}
    entries, left = {}, MOST_COPIES * path.stat().st_size
    for name, value in table.items():
        if isinstance(value, Tensor):
            try:
                value = _array(value, opened, storages)
            except (ValueError, TypeError, OverflowError, MemoryError) as error:
                raise Damaged(f"'{name}': {error}") from None
            left -= value.nbytes
            if left < 0:
                raise Damaged("its tensors claim far more numbers than the file has")
        entries[name] = value
    prefix = _common_prefix(list(entries))
    if prefix:
        taken.append(f"without '{prefix}'")
    return {name[len(prefix) :]: value for name, value in entries.items()}, ", ".join(taken)


def _array(tensor: Tensor, opened: _Opened, storages: dict[str, np.ndarray]) -> np.ndarray:
    """The tensor, whose storage is read when it is first asked for."""
    if not isinstance(tensor.storage, Storage):
        raise ValueError("is no view of a storage")
    key = tensor.storage.key
    if key not in storages:
        storages[key] = opened.load(tensor.storage)
    return view(tensor, storages[key], opened.order)


def _unwrapped(content: Any) -> tuple[Any, list[str]]:
    """The state dict within a training script's checkpoint, and the keys that led to it."""
    taken: list[str] = []
    while isinstance(content, Mapping) and len(taken) < 3:
        inner = {k: content[k] for k in WRAPPERS if isinstance(content.get(k), Mapping)}
        key = next((key for key, table in inner.items() if table), None)
        if key is None:
            break
        content = content[key]
        taken.append(f"from '{key}'")
    return content, taken


def _common_prefix(names: list[str]) -> str:
    """What wrappers of a network (data parallel, compiled ...) put before all of its names."""
    prefix = ""
    while names:
        more = next((p for p in PREFIXES if all(n.startswith(prefix + p) for n in names)), "")
        if not more or prefix + more in names:
            break
        prefix += more
    return prefix


def _read_bytes(file: IO[bytes], storage: Storage) -> np.ndarray:
    data = file.read(storage.nbytes)
    if len(data) != storage.nbytes:
        raise ValueError(f"storage {storage.key} breaks off")
    return np.frombuffer(data, np.uint8)


# The zip archive ---------------------------------------------------------------------------------


def _open_zip(path: Path, archive: zipfile.ZipFile) -> _Opened:
    names = set(archive.namelist())
    prefixes = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(prefixes) != 1:
        raise WeightsError(f"{path}: is a zip archive, but none that torch.save has written")
    [prefix] = prefixes
    if f"{prefix}constants.pkl" in names:
        message = (
            "is a TorchScript program; torch.save(torch.jit.load(path).state_dict(), new_path)"
        )
        raise WeightsError(f"{path}: {message} takes the weights out of it")
    orders: dict[bytes, Literal["<", ">"]] = {b"little": "<", b"big": ">"}
    order = f"{prefix}byteorder"
    said = archive.read(_stored(archive, order)) if order in names else b"little"
    if said.strip() not in orders:
        raise Damaged(f"the order of bytes is {said[:20]!r}, expected little or big")
    left = [path.stat().st_size]  # bytes that storages may still take: more cannot be in the file

    def load(storage: Storage) -> np.ndarray:
        entry = _stored(archive, f"{prefix}data/{storage.key}")
        if entry.file_size != storage.nbytes:
            message = f"expected {storage.nbytes} bytes in storage {storage.key}"
            raise ValueError(f"{message}, received {entry.file_size}")
        left[0] -= entry.file_size
        if left[0] < 0:
            raise ValueError(f"storage {storage.key} claims more bytes than the file has")
        with archive.open(entry) as file:
            return _read_bytes(file, storage)

    pickled = archive.read(_stored(archive, f"{prefix}data.pkl"))
    content = load_pickle(io.BytesIO(pickled), ADMITTED, storage_of)
    return _Opened(content, load, orders[said.strip()])


def _stored(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """An entry that takes as many bytes as it says; compressed ones may claim any number."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise Damaged(f"{name} is compressed, which PyTorch never does")
    return entry


# The row of pickles ------------------------------------------------------------------------------


def _open_legacy(path: Path, file: IO[bytes], head: bytes) -> _Opened:
    if head[:1] != b"\x80":
        old = f"; if it is a PyTorch file from before 0.4, {CONVERT}" if _is_tar(file) else ""
        raise WeightsError(f"{path}: is not a PyTorch file: it starts with {head[:12]!r}{old}")
    if head[2:15] != LEGACY_HEAD:
        raise WeightsError(f"{path}: is a pickle, but none that torch.save has written")
    file.seek(15)
    version = load_pickle(file, {})
    if version != LEGACY_VERSION:
        received = describe(version)
        raise WeightsError(f"{path}: expected version {LEGACY_VERSION}, received {received}")
    load_pickle(file, {})  # of the machine; the numbers are little-endian everywhere
    known: dict[str, Storage] = {}

    def remember(pid: Any) -> Storage:
        storage = storage_of(pid)
        if known.setdefault(storage.key, storage) != storage:
            raise Damaged(f"storage {storage.key} is described in two ways")
        return storage

    content = load_pickle(file, ADMITTED, remember)
    places = _places(file, load_pickle(file, {}), known)

    def load(storage: Storage) -> np.ndarray:
        file.seek(places[storage.key])
        return _read_bytes(file, storage)

    return _Opened(content, load)


def _places(file: IO[bytes], keys: Any, known: Mapping[str, Storage]) -> dict[str, int]:
    """Where the numbers of each storage start; a count of 8 bytes stands before them."""
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        raise Damaged("the list of storages is none")
    if not set(known) <= set(keys):
        raise Damaged("the list of storages does not fit the tensors")
    places = {}
    position, end = file.tell(), file.seek(0, os.SEEK_END)
    for key in keys:
        if key not in known:
            raise Damaged(f"storage {describe(key)} belongs to no tensor")
        file.seek(position)
        [count] = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
        places[key] = position + 8
        position += 8 + known[key].nbytes
        if count != known[key].length or position > end:
            raise Damaged(f"storage {key} breaks off, or is not as long as its tensors say")
    return places


def _is_tar(file: IO[bytes]) -> bool:
    file.seek(257)
    return file.read(5) == b"ustar"
