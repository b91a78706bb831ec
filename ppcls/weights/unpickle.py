"""The one place that opens pickles, and never executes what they say.

A pickle is a program. The unpickler here knows arrays of numbers, plain containers and what its
caller adds, and refuses everything else; there is no fall-back. Nothing of numpy's is handed to a
pickle, as that trusts the states that it is given: stand-ins take these, check them, and become
arrays when the program is over. What a pickle says about lengths is checked before it runs.
"""

from __future__ import annotations

import itertools
import math
import os
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from ppcls.errors import WeightsError

MOST_COPIES = 16  # times a file's size that its arrays may take: some share their numbers
MOST_AXES = 32  # of numpy 1
LONGEST_TUPLE = 64  # that a pickle makes by a call; copies of long ones would fill the memory
# Floats, integers, booleans.
DTYPE = re.compile(r"[<>|=]?(f[248]|[iu][1248]|b1)")


class Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not admitted."""


class Damaged(Exception):
    """The pickle cannot be read; the message says why."""


def describe(value: Any) -> str:
    """A value from a pickle for a message; a few bytes can be a tuple that prints without end."""
    short = value.bit_length() <= 64 if type(value) is int else type(value) is str
    if short and (type(value) is int or len(value) <= 40):
        return repr(value)
    return f"a {type(value).__name__}"


# What a pickle may ask for -----------------------------------------------------------------------


class Function:
    """A function that a pickle may call but not change, as it could a plain one's defaults."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        """Calls it."""
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Refused("it asks to change a function")


class Table(dict[Any, Any]):
    """For OrderedDict and the like; what is said beside their entries is dropped."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


class _Dtype:
    """Stands for numpy.dtype."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any):
        if type(code) is not str or not DTYPE.fullmatch(code):
            raise Refused(f"it asks for numbers of the kind {describe(code)}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        match state:
            case (3, ("<" | ">" | "|" | "=") as order, None, None, None, -1, -1, 0):
                self.dtype = self.dtype.newbyteorder(order)
            case _:
                raise Refused("it asks to change a kind of numbers")


class _Array:
    """Stands for an array until the pickle has been read to its end."""

    __slots__ = ("array",)
    __hash__ = None  # type: ignore[assignment]  # as of an array: it can be no key

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        match state:
            case (1, tuple(shape), _Dtype(dtype=dtype), bool() | 0 | 1 as turned, bytes(raw)):
                pass
            case _:
                raise Refused("it asks for an array of anything but numbers")
        if len(shape) > MOST_AXES or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
            raise Damaged("an array's shape is none")
        if math.prod(shape) * dtype.itemsize != len(raw):
            raise Damaged("an array is not as long as its shape says")
        self.array = np.frombuffer(raw, dtype).reshape(shape, order="F" if turned else "C")


def _is_asked_to_call(*_: Any) -> Any:
    raise Refused("it asks to call 'numpy.ndarray'")


def _scalar(dtype: Any, raw: Any) -> Any:
    """``numpy.float32(3)`` as a plain number."""
    if not isinstance(dtype, _Dtype) or type(raw) is not bytes:
        raise Refused("it asks for a scalar that is no number")
    if len(raw) != dtype.dtype.itemsize:
        raise Damaged("a number is not as long as its kind says")
    return np.frombuffer(raw, dtype.dtype)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """``_codecs.encode`` as old pickles use it for bytes; any other codec is refused."""
    if type(encoding) is not str or encoding != "latin1":
        raise Refused(f"it asks for codec {describe(encoding)}")
    return text.encode("latin1")


def _tuple(values: Any) -> tuple[Any, ...]:
    if type(values) not in (list, tuple) or len(values) > LONGEST_TUPLE:
        raise Refused("it asks for a tuple of something unknown")
    return tuple(values)


TUPLE = Function(_tuple)
ENCODE = ("_codecs", "encode")
_ndarray = Function(_is_asked_to_call)
_reconstruct = Function(lambda *_: _Array())

ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Table,
    # Paddle writes a tensor as (name, array).
    ("builtins", "tuple"): TUPLE,
    ("__builtin__", "tuple"): TUPLE,
    # Old pickles write no bytes as this, and others as text that is to be encoded.
    ("builtins", "bytes"): Function(lambda: b""),
    ("__builtin__", "bytes"): Function(lambda: b""),
    ENCODE: Function(_encode),
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): Function(lambda code, *_: _Dtype(code)),
    # numpy 1 and 2 keep these in different modules.
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): Function(_scalar),
    ("numpy._core.multiarray", "scalar"): Function(_scalar),
}


# Reading -----------------------------------------------------------------------------------------


def load_pickle(
    file: IO[bytes],
    admitted: Mapping[tuple[str, str], Any] = ADMITTED,
    outside: Callable[[Any], Any] | None = None,
) -> Any:
    """Reads one pickle from where the file stands, and leaves the file behind its end.

    Args:
        admitted: what stands for a (module, name) that the pickle asks for.
        outside: gives the object that a persistent id means; without it there may be none.

    Returns:
        What it holds. Arrays are not to be written to: their numbers are the pickle's own.

    Raises:
        Refused: naming what the pickle asks for.
        Damaged: it breaks off, or makes no sense.
    """
    try:
        size = _check_lengths(file)
        content = _Unpickler(file, admitted, outside, MOST_COPIES * size).load()
        return _Resolver(MOST_COPIES * size).resolve(content)
    except (Refused, Damaged):
        raise
    except Exception as error:
        raise Damaged(f"{type(error).__name__}: {error}") from None


def explain(path: Any, error: Refused | Damaged) -> WeightsError:
    """The error for the user, which names the file."""
    if isinstance(error, Refused):
        return WeightsError(f"{path}: refused, nothing was executed: {error}")
    return WeightsError(f"{path}: is damaged or truncated ({error})")


class _Unpickler(pickle.Unpickler):
    def __init__(
        self,
        file: IO[bytes],
        admitted: Mapping[tuple[str, str], Any],
        outside: Callable[[Any], Any] | None,
        most: int,
    ):
        super().__init__(file, encoding="utf-8")
        self._admitted, self._outside, self._left = admitted, outside, most

    def find_class(self, module: str, name: str) -> Any:
        try:
            found = self._admitted[module, name]
        except KeyError:
            wanted = f"{module[:100]}.{name[:100]}"
            raise Refused(f"it asks to run '{wanted}'") from None
        return Function(self._encode) if (module, name) == ENCODE else found

    def persistent_load(self, pid: Any) -> Any:
        if self._outside is None:
            raise Refused("it asks for an object from outside")
        return self._outside(pid)

    def _encode(self, text: Any, encoding: Any) -> bytes:
        """Each call makes a copy, and a pickle may call as often as it likes."""
        encoded = _encode(text, encoding)
        self._left -= len(encoded)
        if self._left < 0:
            raise Damaged("it claims far more bytes than the file has")
        return encoded


class _Resolver:
    """Puts arrays where their stand-ins are, at any depth."""

    def __init__(self, most: int):
        self._left = most
        self._known: dict[int, tuple[Any, Any]] = {}  # by id; the old one is kept, and so its id

    def resolve(self, value: Any) -> Any:
        """The value itself, if it is a table or list; else what stands for it."""
        if type(value) not in (_Array, dict, Table, list, tuple):
            return value
        if id(value) in self._known:
            return self._known[id(value)][1]
        self._known[id(value)] = value, value  # it may contain itself
        found = value
        if isinstance(value, _Array):
            found = self._array(value)
        elif isinstance(value, dict):
            for key, entry in value.items():
                value[key] = self.resolve(entry)
        elif isinstance(value, list):
            value[:] = map(self.resolve, value)
        else:
            parts = tuple(map(self.resolve, value))
            if any(new is not old for new, old in zip(parts, value, strict=True)):
                found = parts
        self._known[id(value)] = value, found
        return found

    def _array(self, stand_in: _Array) -> np.ndarray:
        array = stand_in.array
        if array is None:
            raise Damaged("an array has no numbers")
        self._left -= array.nbytes
        if self._left < 0:
            raise Damaged("its arrays claim far more numbers than the file has")
        return array.astype(array.dtype.newbyteorder("="), copy=False)


# Lengths -----------------------------------------------------------------------------------------

# Opcode -> its name, and how long its argument is; negative: see _WIDTHS, or up to an end of line.
_LENGTHS = {
    opcode.code.encode("latin1"): (opcode.name, opcode.arg.n if opcode.arg else 0)
    for opcode in pickletools.opcodes
}
_WIDTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def _check_lengths(file: IO[bytes]) -> int:
    """Skips through one pickle and back, and gives the size of its file.

    The unpickler takes memory for whatever length or number of a memo a pickle claims.
    """
    start, size, frame_end = file.tell(), file.seek(0, os.SEEK_END), 0
    file.seek(start)
    for count in itertools.count():
        position = file.tell()
        name, length = _LENGTHS.get(file.read(1), ("STOP", 0))  # the unpickler tells if it is none
        if name == "STOP":
            break
        argument = _argument(file, name, length)
        end = file.tell()
        if length in _WIDTHS or name == "FRAME":
            end += int.from_bytes(argument, "little")
        if end > size:
            raise Damaged("it breaks off")
        if position < frame_end < end:
            raise Damaged("a part of it reaches beyond its frame")
        if name == "FRAME":
            frame_end = end
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            number = int(argument) if name == "PUT" else int.from_bytes(argument, "little")
            if not 0 <= number <= count:
                raise Damaged("it numbers more objects than it has")
        elif length in _WIDTHS:
            file.seek(end)
    file.seek(start)
    return size


def _argument(file: IO[bytes], name: str, length: int) -> bytes:
    """What stands behind an opcode; only the length of what has one."""
    if length == pickletools.UP_TO_NEWLINE:
        if name in ("GLOBAL", "INST"):
            file.readline()
        return file.readline()
    return file.read(_WIDTHS.get(length, length))
