"""The bytes of shards that lie in a folder."""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from pathlib import Path
from typing import BinaryIO

from ppcls.data.shards import Shard
from ppcls.errors import DataError

OPEN_FILES = 64  # shards that a process holds open at once
CHUNK = 1 << 24  # bytes that are asked for at once when shards are read through
STEP = 1 << 17  # Linux silently shortens one advice to what it reads ahead anyway
# So many reads within so few shards: they are read through. At random, over more shards than can
# be cached anyway, 64 reads meet about 60 shards.
RECENT, NEAR = 64, 16
REMEMBERED = 256  # chunks


class LocalShards:
    """Shards in a folder; any number of threads and forked processes may read.

    Where samples are asked for in about the order in which they are stored, whole pieces of
    a shard are requested ahead, so that a disk reads them in one go: the page cache is the buffer.

    Raises:
        DataError: a shard is missing, or has another length than the index says.
    """

    def __init__(self, folder: Path, shards: list[Shard]):
        self._folder = folder
        self._shards = shards
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        self._ahead = ReadAhead()
        for number, shard in enumerate(shards):
            try:
                found = (folder / shard.name).stat().st_size
            except OSError as error:
                raise DataError(f"{self.where(number)}: {error.strerror}") from None
            if found != shard.bytes:
                state = "is truncated" if found < shard.bytes else "is another file"
                raise DataError(
                    f"{self.where(number)}: {state}: expected {shard.bytes} bytes, received {found}"
                )

    def where(self, shard: int) -> str:
        """The path of a shard."""
        return str(self._folder / self._shards[shard].name)

    def read(self, shard: int, start: int, size: int) -> bytes:
        """``size`` bytes of a shard from ``start`` on; fewer if it ends before."""
        file = self._files.get(shard)
        if file is None:
            file = self._files[shard] = (self._folder / self._shards[shard].name).open(
                "rb", buffering=0
            )
            while len(self._files) > OPEN_FILES:  # another thread may still read: it holds the file
                self._files.popitem(last=False)
        for first in self._ahead.chunks(shard, start, size):
            advise(file.fileno(), first, CHUNK)
        return os.pread(file.fileno(), size, start)


class ReadAhead:
    """Notices that shards are read through, and which pieces were not asked for yet."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._asked: OrderedDict[tuple[int, int], None] = OrderedDict()

    def chunks(self, shard: int, start: int, size: int) -> list[int]:
        """Offsets of the chunks to ask for, before these bytes are read."""
        self._recent.append(shard)
        if len(self._recent) < RECENT or len(set(self._recent)) > NEAR:
            return []
        wanted = range(start // CHUNK, (start + size - 1) // CHUNK + 1)
        new = [chunk for chunk in wanted if (shard, chunk) not in self._asked]
        self._asked.update(dict.fromkeys((shard, chunk) for chunk in new))
        while len(self._asked) > REMEMBERED:
            self._asked.popitem(last=False)
        return [chunk * CHUNK for chunk in new]


def advise(descriptor: int, start: int, size: int) -> None:
    """Asks the system to have these bytes of a file ready soon; waits for nothing."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        for first in range(start, start + size, STEP):
            os.posix_fadvise(descriptor, first, STEP, os.POSIX_FADV_WILLNEED)
