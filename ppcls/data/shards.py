"""Packed pictures: an index, and tar shards in which each picture is found by its offset.

A packed folder holds

- ``shard-000000.tar``, ...: plain tar files with two members a sample, ``000000123.jpg`` and
  ``000000123.cls`` (the label in digits; ``.json`` with one target per class where there are
  several), as ``webdataset`` expects them;
- ``index.json``: the shards with sizes, sample counts and SHA-256 (``wids`` reads it too), the
  classes, and the sizes of the arrays below;
- ``samples.npy``: one :data:`TABLE` row a sample, which is mapped and not loaded;
- ``names.bin``: what the files were called before, one behind the other;
- ``targets.npy``: float32 [N, C], only if the samples have several targets.

A folder packed from ``train/`` and ``val/`` holds two such folders, and an ``index.json`` that
names them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ppcls.errors import DataError

FORMAT, VERSION = "ppcls-packed", 1
INDEX_FILE, TABLE_FILE, NAMES_FILE, TARGETS_FILE = (
    "index.json",
    "samples.npy",
    "names.bin",
    "targets.npy",
)
# offset: of the picture's bytes in its shard; its tar header stands before them.
# suffix: place in the index's list of suffixes. name_end: where its name ends in names.bin.
TABLE = np.dtype(
    [
        ("offset", "<i8"),
        ("name_end", "<i8"),
        ("size", "<u4"),
        ("shard", "<i4"),
        ("label", "<i4"),
        ("suffix", "<i4"),
    ]
)
HEADER = 512  # bytes of a tar header; contents are padded to a multiple of it


@dataclass(frozen=True)
class Shard:
    """One tar file, as the index describes it."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What ``index.json`` says.

    Attributes:
        files: name -> (bytes, sha256) of the files beside the shards.
        splits: name -> folder, if this is the index of a folder with several.
    """

    samples: int = 0
    shards: list[Shard] = field(default_factory=list)
    suffixes: list[str] = field(default_factory=list)
    class_names: list[str] | None = None
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)


class Shards(Protocol):
    """Where the bytes of the shards come from."""

    def where(self, shard: int) -> str:
        """A path or an address, for messages."""

    def read(self, shard: int, start: int, size: int) -> bytes:
        """``size`` bytes of a shard from ``start`` on; fewer if it ends before."""


def key_of(row: int) -> str:
    """What the members of a sample are called, without the suffix."""
    return f"{row:09d}"


def parse_index(data: bytes, where: str) -> Index:
    """What ``index.json`` says. Raises DataError if it says something else."""
    try:
        tree = json.loads(data)
        found = tree["format"], tree["version"]
        if found != (FORMAT, VERSION):
            raise ValueError(f"expected format {FORMAT} {VERSION}, received {found[0]} {found[1]}")
        if "splits" in tree:
            return Index(splits={str(k): _plain(v) for k, v in tree["splits"].items()})
        shards = [
            Shard(_plain(s["url"]), int(s["nsamples"]), int(s["filesize"]), str(s["sha256"]))
            for s in tree["shardlist"]
        ]
        files = {_plain(k): (int(v["bytes"]), str(v["sha256"])) for k, v in tree["files"].items()}
        if not {TABLE_FILE, NAMES_FILE} <= files.keys() <= {TABLE_FILE, NAMES_FILE, TARGETS_FILE}:
            raise ValueError(f"expected the files {TABLE_FILE} and {NAMES_FILE}")
        names = tree["class_names"]
        suffixes = [_plain(suffix) for suffix in tree["suffixes"]]
        return Index(int(tree["samples"]), shards, suffixes, names and list(names), files)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{where}: is no index of packed pictures: {reason}") from None


def _plain(name: Any) -> str:
    """A name that stays in its folder."""
    if not isinstance(name, str) or not name or name[0] == "." or set(name) & set("/\\?#\0"):
        raise ValueError(f"expected the name of a file, received {name!r}")
    return name


class PackedSource:
    """Pictures in shards: a :class:`ppcls.data.datasets.base.Source`.

    Args:
        index: of the folder.
        folder: local folder with the index's other files.
        shards: where the bytes come from.

    Attributes:
        shards: int64 [N], the shard of each sample.
        origin: where the bytes come from.

    Raises:
        DataError: a file of the index is damaged, or does not fit the others.
    """

    def __init__(self, index: Index, folder: Path, shards: Shards):
        self.origin = shards
        self._suffixes = index.suffixes
        for name in index.files.keys() - {NAMES_FILE}:
            _check_file(folder / name, index.files[name])
        self._table = _mapped(folder / TABLE_FILE, TABLE, (index.samples,))
        _check_table(self._table, index, str(folder / TABLE_FILE))
        self.shards = self._table["shard"].astype(np.int64)
        self.labels = self._table["label"].astype(np.int64)
        if TARGETS_FILE in index.files:
            self.labels = _mapped(folder / TARGETS_FILE, np.dtype("<f4"), (index.samples, None))
        self.class_names = index.class_names
        self._names = _names(folder / NAMES_FILE, index.files[NAMES_FILE][0])

    def read(self, row: int) -> bytes:
        """The picture file; its tar header has to be the one that the index promises."""
        entry = self._table[row]
        start, size = int(entry["offset"]) - HEADER, int(entry["size"]) + HEADER
        data = self.origin.read(int(entry["shard"]), start, size)
        where = self.origin.where(int(entry["shard"]))
        if len(data) != size:
            raise DataError(
                f"{where} is truncated: expected {size} bytes at {start}, received {len(data)}"
            )
        expected = self._member(row)
        try:
            header = tarfile.TarInfo.frombuf(data[:HEADER], "ascii", "surrogateescape")
            fits = (header.name, header.size) == (expected, size - HEADER)
        except tarfile.HeaderError:
            fits = False
        if not fits:
            raise DataError(
                f"{where}: expected the member '{expected}' of {size - HEADER} bytes at {start},"
                " received something else: the shard is damaged, or not the one that was indexed"
            )
        return data[HEADER:]

    def path(self, row: int) -> str:
        """``folder/shard-000000.tar/000000012.jpg``."""
        return f"{self.origin.where(int(self._table['shard'][row]))}/{self._member(row)}"

    def describe(self, row: int) -> str:
        """The path, and what the file was called before it was packed."""
        start = int(self._table["name_end"][row - 1]) if row else 0
        name = os.fsdecode(self._names[start : int(self._table["name_end"][row])].tobytes())
        return f"{self.path(row)} ({name})" if name else self.path(row)

    def _member(self, row: int) -> str:
        return f"{key_of(row)}.{self._suffixes[int(self._table['suffix'][row])]}"


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_file(path: Path, expected: tuple[int, str]) -> None:
    if not path.is_file():
        raise DataError(f"{path}: No such file or directory")
    size = path.stat().st_size
    if size != expected[0]:
        raise DataError(f"{path}: expected {expected[0]} bytes, received {size}")
    if digest_of(path) != expected[1]:
        raise DataError(f"{path}: is damaged: its SHA-256 is not the one in {INDEX_FILE}")


def _mapped(path: Path, dtype: np.dtype, shape: tuple[int | None, ...]) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        raise DataError(
            f"{path}: expected {dtype} {list(shape)}, received {array.dtype} {list(array.shape)}"
        )
    return array


def _names(path: Path, expected: int) -> np.ndarray:
    found = path.stat().st_size if path.is_file() else None
    if found != expected:
        received = "none" if found is None else found
        raise DataError(f"{path}: expected a file of {expected} bytes, received {received}")
    return np.memmap(path, np.uint8, "r") if expected else np.empty(0, np.uint8)


def _check_table(table: np.ndarray, index: Index, where: str) -> None:
    counts = np.asarray([shard.samples for shard in index.shards], np.int64)
    lengths = np.asarray([shard.bytes for shard in index.shards], np.int64)
    shards, suffixes = table["shard"], table["suffix"]
    fits = (
        len(table) > 0
        and 0 <= shards.min() <= shards.max() < len(counts)
        and 0 <= suffixes.min() <= suffixes.max() < len(index.suffixes)
        and np.array_equal(np.bincount(shards, minlength=len(counts)), counts)
        and table["offset"].min() >= HEADER
        and bool((table["offset"] + table["size"] <= lengths[shards]).all())
    )
    if not fits:
        raise DataError(f"{where}: does not fit the shards that {INDEX_FILE} lists")
