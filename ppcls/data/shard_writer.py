"""Writing shards: tar files with the same bytes whenever the same samples are packed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from ppcls.data.datasets.base import Source
from ppcls.data.image import FORMATS, MAX_PIXELS, decode, resize
from ppcls.data.jpeg import read_header
from ppcls.data.shards import HEADER
from ppcls.errors import DataError, EnvironmentProblem

BLOCKS_AT_END = 2 * HEADER
RECORD = 20 * HEADER  # tar pads a file to whole records
LARGEST = 2**32 - 1


@dataclass(frozen=True)
class Sample:
    """What becomes of a picture.

    Attributes:
        data: the bytes of the file to be.
        suffix: of its name, without the dot.
        label: the bytes of the member beside it.
        label_suffix: ``cls`` or ``json``.
    """

    data: bytes
    suffix: str
    label: bytes
    label_suffix: str

    @property
    def room(self) -> int:
        """Bytes that it takes up in a tar file."""
        return sum(HEADER + len(part) + _padding(len(part)) for part in (self.data, self.label))


class Ahead:
    """Samples of which the next can be looked at before it is taken.

    Attributes:
        head: the next sample; None at the end.
        place: of it.
        position: how many are behind us.
    """

    def __init__(
        self, samples: Iterator[tuple[int, Sample | str]], position: int, moved: Callable[[], Any]
    ):
        self._samples = samples
        self._moved = moved
        self._skipped: list[str] = []
        self.position = position
        self.place = -1
        self.head: Sample | None = None
        self._find()

    def advance(self) -> None:
        """Takes the head."""
        self._step()
        self._find()

    def drain(self) -> list[str]:
        """What was left out since the last call."""
        skipped, self._skipped = self._skipped, []
        return skipped

    def _find(self) -> None:
        self.head = None
        for place, sample in self._samples:
            if isinstance(sample, Sample):
                self.place, self.head = place, sample
                return
            self._skipped.append(sample)
            self._step()

    def _step(self) -> None:
        self.position += 1
        self._moved()


class ShardWriter:
    """One tar file, which gets its name when it is whole.

    Args:
        path: of the file.
        before_rename: called with the size and the SHA-256 when all bytes are on the disk.
    """

    def __init__(self, path: Path, before_rename: Callable[[int, str], None]):
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._before_rename = before_rename
        self._file = self._part.open("wb")
        self._digest = hashlib.sha256()
        self._written = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._close()
                return
        except OSError as problem:
            raise EnvironmentProblem(f"cannot write {self._part}: {problem.strerror}") from None
        finally:
            with suppress(OSError):  # what is written last may not fit on the disk, either
                self._file.close()
            self._part.unlink(missing_ok=True)

    def size_with(self, sample: Sample) -> int:
        """Bytes of the file if this sample were its last."""
        return _closed_size(self._written + sample.room)

    def add(self, key: str, sample: Sample) -> int:
        """Appends the members of a sample; returns where the picture's bytes begin."""
        offset = self._written + HEADER
        self._member(f"{key}.{sample.suffix}", sample.data)
        self._member(f"{key}.{sample.label_suffix}", sample.label)
        return offset

    def _close(self) -> None:
        self._write(bytes(_closed_size(self._written) - self._written))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._before_rename(self._written, self._digest.hexdigest())
        self._part.replace(self._path)

    def _member(self, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(name)  # time, owner and group are 0
        entry.size = len(data)
        self._write(entry.tobuf(tarfile.USTAR_FORMAT) + data + bytes(_padding(len(data))))

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {self._part}: {error.strerror}") from None
        self._digest.update(data)
        self._written += len(data)


def prepared(source: Source, row: int, short_side: int | None, quality: int) -> Sample:
    """A sample as it is to be packed.

    Args:
        short_side: larger pictures become JPEGs with a short side of so many pixels, turned
            upright; all others, and without it all, keep their bytes.
        quality: of these JPEGs, as Pillow counts it.

    Raises:
        DataError: it cannot be read; names the picture.
    """
    path = Path(source.path(row))
    try:
        if path.exists() and not path.is_file():  # reading a pipe would never end
            raise DataError("expected a file, received a pipe, a device or a folder")
        data, suffix = _file_of(source.read(row), str(path), short_side, quality)
    except OSError as error:
        raise DataError(f"{source.describe(row)}: {error.strerror or error}") from None
    except DataError as error:
        raise DataError(f"{source.describe(row)}: {error}") from None
    label = source.labels[row]
    if np.ndim(label):
        return Sample(data, suffix, json.dumps([float(v) for v in label]).encode(), "json")
    return Sample(data, suffix, str(int(label)).encode(), "cls")


def suffix_of(path: str) -> str:
    """How the name of a member ends: as the file's does, in small letters."""
    suffix = Path(path).suffix[1:].lower()
    return suffix if re.fullmatch(r"[a-z0-9]{1,16}", suffix) else "img"


def _file_of(
    content: bytes | np.ndarray, path: str, short_side: int | None, quality: int
) -> tuple[bytes, str]:
    if isinstance(content, np.ndarray):
        if short_side is None or min(content.shape[:2]) <= short_side:
            return _encoded(content, "PNG"), "png"
        return _encoded(_shrunk(content, short_side), "JPEG", quality=quality), "jpg"
    if not content:
        raise DataError("the file is empty (0 bytes)")
    if len(content) > LARGEST:
        raise DataError(f"expected less than 4 GiB, received {len(content)} bytes")
    if short_side is None or _short_side(content) <= short_side:
        _check_decodes(content)
        return content, suffix_of(path)
    return _encoded(_shrunk(decode(content), short_side), "JPEG", quality=quality), "jpg"


def _check_decodes(data: bytes) -> None:
    """Raises DecodeError unless it is a picture; of most JPEGs the structure is enough."""
    header = read_header(data)
    if header is None or header.width * header.height > MAX_PIXELS:
        decode(data)


def _short_side(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return min(picture.size)
    except Exception:  # decoding it will say what is wrong
        return sys.maxsize


def _shrunk(pixels: np.ndarray, short_side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = short_side / min(width, height)
    return resize(pixels, round(width * scale), round(height * scale), "area")


def _encoded(pixels: np.ndarray, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def _padding(size: int) -> int:
    return -size % HEADER


def _closed_size(written: int) -> int:
    return -(-(written + BLOCKS_AT_END) // RECORD) * RECORD
