"""Reads MATLAB's MAT-files of level 5, as data sets hold their labels in; nothing is executed.

The format: MathWorks, "MAT-File Format", chapter 1. Numbers, texts, cells and structures are read;
sparse matrices, objects and complex numbers are refused.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15
# Storage type -> NumPy's, without the byte order.
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
STORED |= {13: "u8", 16: "u1", 17: "u2", 18: "u4"}
CELL, STRUCTURE, TEXT = 1, 2, 4
NUMBERS = range(6, 16)
COMPLEX = 0x0800


class MatError(Exception):
    """Bytes that are no MAT-file of level 5, or hold what is not read here."""


def read_mat(data: bytes, name: str) -> dict[str, Any]:
    """The variables of a file by name.

    Args:
        data: the whole file.
        name: of the file, for messages.

    Returns:
        Numbers as arrays of their shape, in the type that they are stored in; texts as
        ``str``; cells as lists; structures as lists of dictionaries, one for each element.

    Raises:
        MatError: the file cannot be read.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER_BYTES])
    if order is None or struct.unpack(f"{order}H", data[124:126])[0] >> 8 != 1:
        raise MatError(f"{name}: expected a MAT-file of level 5, received other bytes")
    variables = {}
    try:
        position = HEADER_BYTES
        while position < len(data):
            kind, content, position = _element(data, position, order)
            if kind == COMPRESSED:
                kind, content, _ = _element(zlib.decompress(content), 0, order)
            if kind != MATRIX:
                raise MatError(f"expected a variable, received an element of type {kind}")
            variable, value = _matrix(content, order)
            variables[variable] = value
    except (MatError, struct.error, zlib.error, ValueError, KeyError, IndexError) as error:
        raise MatError(f"{name}: cannot be read as a MAT-file: {error}") from error
    return variables


def _element(data: bytes, position: int, order: str) -> tuple[int, bytes, int]:
    """Type and content of the element at ``position``, and where the next one begins."""
    kind, size = struct.unpack_from(f"{order}II", data, position)
    if kind >> 16:  # four bytes or fewer stand in the place of the size
        content = data[position + 4 : position + 4 + (kind >> 16)]
        return kind & 0xFFFF, content, position + 8
    start, end = position + 8, position + 8 + size
    if end > len(data):
        raise MatError("it breaks off")
    return kind, data[start:end], end if kind == COMPRESSED else end + -end % 8


def _matrix(data: bytes, order: str) -> tuple[str, Any]:
    """Name and value of a variable, a cell or a field."""
    if not data:
        return "", np.empty((0, 0))
    _, flags, position = _element(data, 0, order)
    kind = struct.unpack_from(f"{order}I", flags)[0]
    _, sides, position = _element(data, position, order)
    shape = tuple(np.frombuffer(sides, f"{order}i4").tolist())
    _, name, position = _element(data, position, order)
    return name.decode("ascii"), _value(kind, shape, data, position, order)


def _value(kind: int, shape: tuple[int, ...], data: bytes, position: int, order: str) -> Any:
    count = int(np.prod(shape))
    if kind & COMPLEX:
        raise MatError("it holds complex numbers")
    kind &= 0xFF
    if kind == CELL:
        return _matrices(data, position, count, order)
    if kind == STRUCTURE:
        _, width, position = _element(data, position, order)
        _, text, position = _element(data, position, order)
        size = int.from_bytes(width, "little" if order == "<" else "big")
        names = [text[i : i + size].partition(b"\0")[0].decode() for i in range(0, len(text), size)]
        values = _matrices(data, position, count * len(names), order)
        starts = range(0, len(values), max(1, len(names)))
        return [dict(zip(names, values[i : i + len(names)], strict=True)) for i in starts]
    if kind != TEXT and kind not in NUMBERS:
        raise MatError(f"it holds a matrix of class {kind}")
    stored, content, _ = _element(data, position, order)
    if kind == TEXT and stored == 16:
        return content.decode("utf-8")
    numbers = np.frombuffer(content, order + STORED[stored])
    if kind == TEXT:
        return "".join(map(chr, numbers.tolist()))
    return numbers.reshape(shape, order="F")


def _matrices(data: bytes, position: int, count: int, order: str) -> list[Any]:
    values = []
    for _ in range(count):
        kind, content, position = _element(data, position, order)
        if kind != MATRIX:
            raise MatError(f"expected a matrix, received an element of type {kind}")
        values.append(_matrix(content, order)[1])
    return values
