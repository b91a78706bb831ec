"""The bytes of shards that lie behind a web address."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ppcls.cache import cache_folder, locked
from ppcls.data.shard_ahead import Ahead, Marks
from ppcls.data.shard_files import OPEN_FILES
from ppcls.data.shards import INDEX_FILE, Index, Shard, digest_of, parse_index
from ppcls.errors import ArgumentError, DataError, EnvironmentProblem
from ppcls.transfer import (
    TransferError,
    WholeFilesOnly,
    download,
    place_below,
    quoted,
    read_range,
    split,
)

AHEAD = 2  # shards that are fetched before they are read
POLL = 0.05  # seconds between two looks whether there is room
REST = 60.0  # seconds for which a shard that could not be had is not asked for again
BLOCK = 1 << 22  # bytes of one request where samples are read one behind the other
BLOCKS = 4  # that are kept

logger = logging.getLogger(__name__)


def url_of(root: str, name: str) -> str:
    """The address of a file below another; a query, such as a signature, stays behind it."""
    parts = split(root)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{name}", fragment="").geturl()


def fetch_index(root: str) -> tuple[Index, Path]:
    """The index behind an address, and the local folder for what belongs to it.

    It is asked for each time; where there is no network, the last one serves.

    Raises:
        DataError: it cannot be had.
    """
    url = url_of(root, INDEX_FILE)
    path = place_below(cache_folder("shards"), url)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f"{path.name}.lock")):
            try:
                download(quoted(url), path, lambda _: "", is_quiet=True)
            except TransferError as error:
                if not path.is_file():
                    raise DataError(str(error)) from None
                logger.warning(f"{error}; the one of the last time is used")
            data = path.read_bytes()
            # Files of another packing may have the same names: each has a folder of its own.
            folder = path.parent / digest_of(path)[:12]
        folder.mkdir(exist_ok=True)
    return parse_index(data, url), folder


def fetch_tables(root: str, index: Index, folder: Path) -> None:
    """Brings the files beside the shards into the folder. Raises DataError."""
    for name, (size, sha256) in index.files.items():
        path = folder / name
        with _writing(path), locked(folder / f"{name}.lock"):
            if not path.is_file() or path.stat().st_size != size:
                _download(url_of(root, name), path, Shard(name, 0, size, sha256), is_quiet=False)


class CachedShards:
    """Shards on the web, fetched as a whole when they are first read.

    The cache is a folder of bounded size, which all processes of a machine share: one of them
    fetches a shard while the others wait, and the shards that were opened longest ago make
    room. A shard that has to go while it is read stays readable, and its space is given back
    when the reader opens another.

    Args:
        root: address of the folder.
        folder: of the cache; it exists.
        limit: bytes that the cached shards may take up.

    Raises:
        ArgumentError: (``cache_gb``) the largest shard does not fit.
    """

    def __init__(self, root: str, shards: list[Shard], folder: Path, limit: int):
        largest = max((shard.bytes for shard in shards), default=0)
        if limit < largest:
            raise ArgumentError(
                "cache_gb",
                f"expected a cache_gb of 0 or at least {largest / 1e9:.3g}, the size of the largest"
                f" shard of {root}, received {limit / 1e9:.3g}",
            )
        self._root, self._shards = root, shards
        self._folder, self._limit = folder, limit
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        self._failed: dict[int, tuple[float, str]] = {}
        self._marks = Marks(len(shards))
        # Room for what is read now comes first.
        self._distance = min(AHEAD, limit // max(1, largest) - AHEAD)
        self._ahead: Ahead | None = None

    def expect(self, order: np.ndarray) -> None:
        """Begins to fetch shards before they are read, if the cache has room for that.

        Args:
            order: int64 [S], the shards of an epoch by their first use.
        """
        if self._distance > 0:
            self._ahead = self._ahead or Ahead(self, self._marks, self._distance)
            self._ahead.start(order)

    def fetch(self, shard: int) -> None:
        """Brings a shard into the cache. Raises as :meth:`read` does."""
        self._opened(shard).close()

    def where(self, shard: int) -> str:
        """The address of a shard."""
        return url_of(self._root, self._shards[shard].name)

    def read(self, shard: int, start: int, size: int) -> bytes:
        """``size`` bytes of a shard from ``start`` on.

        Raises:
            DataError: it cannot be fetched; says its address.
            EnvironmentProblem: the cache cannot be written.
        """
        self._marks.set(shard)
        file = self._files.get(shard)
        if file is None:
            file = self._opened(shard)
            for number, other in list(self._files.items()):
                if os.fstat(other.fileno()).st_nlink == 0:
                    self._files.pop(number, None)
            self._files[shard] = file
            while len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
        return os.pread(file.fileno(), size, start)

    def _opened(self, shard: int) -> BinaryIO:
        since, reason = self._failed.get(shard, (-REST, ""))
        if time.monotonic() - since < REST:
            raise DataError(reason)
        path = self._folder / self._shards[shard].name
        try:
            with _writing(path), locked(_lock_of(path)):
                if not path.is_file() or path.stat().st_size != self._shards[shard].bytes:
                    self._make_room(self._shards[shard])
                    _download(self.where(shard), path, self._shards[shard])
                os.utime(path)
                return path.open("rb", buffering=0)
        except DataError as error:
            self._failed[shard] = (time.monotonic(), str(error))
            raise

    def _make_room(self, wanted: Shard) -> None:
        """Removes shards until there is room for another one, and reserves it.

        Where other processes fill the cache at this moment, it waits for them.
        """
        while True:
            with locked(self._folder / "room.lock"):
                held = self._held()
                room = self._limit - sum(shard.bytes for shard, _ in held if shard != wanted)
                for shard, _ in held:  # the one that was opened longest ago first
                    if room >= wanted.bytes:
                        break
                    if shard != wanted and _removed(self._folder / shard.name):
                        room += shard.bytes
                if room >= wanted.bytes:
                    _part_of(self._folder / wanted.name).touch()
                    return
            time.sleep(POLL)

    def _held(self) -> list[tuple[Shard, float]]:
        """Shards that take up room, whole or not, in the order in which they were opened."""
        held = []
        for shard in self._shards:
            path = self._folder / shard.name
            # the part first: another process may rename it to the whole shard in between
            times = [t for t in map(_changed, (_part_of(path), path)) if t is not None]
            if times:
                held.append((shard, max(times)))
        return sorted(held, key=lambda item: item[1])


class RangedShards:
    """Shards on the web that nothing is kept of: one request a sample.

    Where samples are asked for one behind the other, a request brings several.

    Args:
        root: address of the folder.
    """

    def __init__(self, root: str, shards: list[Shard]):
        self._root, self._shards = root, shards
        self._ends: dict[int, int] = {}
        self._blocks: deque[tuple[int, int, bytes]] = deque(maxlen=BLOCKS)

    def where(self, shard: int) -> str:
        """The address of a shard."""
        return url_of(self._root, self._shards[shard].name)

    def read(self, shard: int, start: int, size: int) -> bytes:
        """``size`` bytes of a shard from ``start`` on; fewer if it ends before.

        Raises:
            DataError: they cannot be had; says the address.
        """
        gap = start - self._ends.get(shard, -BLOCK)
        self._ends[shard] = start + size
        for number, first, data in self._blocks:
            if number == shard and first <= start and start + size <= first + len(data):
                return data[start - first : start - first + size]
        is_next = 0 <= gap < BLOCK
        wanted = max(size, min(BLOCK, self._shards[shard].bytes - start)) if is_next else size
        try:
            data = read_range(quoted(self.where(shard)), start, wanted)
        except WholeFilesOnly as error:
            raise DataError(f"{error}, which cache_gb: 0 needs; set cache_gb above 0") from None
        except TransferError as error:
            raise DataError(str(error)) from None
        if is_next:
            self._blocks.append((shard, start, data))
        return data[:size]


def _download(url: str, path: Path, expected: Shard, is_quiet: bool = True) -> None:
    def wrong(found: Path) -> str:
        size = found.stat().st_size
        if size < expected.bytes:
            return f"is truncated: expected {expected.bytes} bytes, received {size}"
        if size > expected.bytes:
            return f"is another file: expected {expected.bytes} bytes, received more"
        if digest_of(found) != expected.sha256:
            return f"is damaged: its SHA-256 is not the one in {INDEX_FILE}"
        return ""

    try:
        download(quoted(url), path, wrong, is_quiet, expected.bytes)
    except TransferError as error:
        raise DataError(str(error)) from None


def _removed(path: Path) -> bool:
    """Removes a shard, unless a process is fetching or opening it."""
    with _lock_of(path).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        part = _part_of(path)
        for name in (path, part, part.with_name(f"{part.name}.tag")):
            name.unlink(missing_ok=True)
    return True


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from None
