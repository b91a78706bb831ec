"""The one place that opens pickles, and never executes what they say.

A pickle is a program. The unpickler here knows arrays, plain containers and what its caller adds,
and refuses everything else; there is no fall-back.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from ppcls.errors import WeightsError

# Looked up from live objects, because numpy 1 and 2 keep these functions in different modules.
_reconstruct: Any = np.empty(0).__reduce__()[0]
_scalar: Any = np.float32(0).__reduce__()[0]


class Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not admitted."""


class Damaged(Exception):
    """The pickle cannot be read; the message says why."""


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


def _encode(text: str, encoding: str) -> bytes:
    """``_codecs.encode`` as old pickles use it for bytes; any other codec is refused."""
    if encoding != "latin1":
        raise Refused(f"it asks for codec '{encoding}'")
    return text.encode("latin1")


ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "tuple"): tuple,  # Paddle writes a tensor as (name, array)
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): Function(_encode),
}


def load_pickle(
    file: IO[bytes],
    admitted: Mapping[tuple[str, str], Any] = ADMITTED,
    outside: Callable[[Any], Any] | None = None,
) -> Any:
    """Reads one pickle from where the file stands, and leaves the file behind its end.

    Args:
        admitted: what stands for a (module, name) that the pickle asks for.
        outside: gives the object that a persistent id means; without it there may be none.

    Raises:
        Refused: naming what the pickle asks for.
        Damaged: it breaks off, or makes no sense.
    """
    try:
        return _Unpickler(file, admitted, outside).load()
    except Refused:
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
    ):
        super().__init__(file, encoding="utf-8")
        self._admitted, self._outside = admitted, outside

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._admitted[module, name]
        except KeyError:
            raise Refused(f"it asks to run '{module}.{name}'") from None

    def persistent_load(self, pid: Any) -> Any:
        if self._outside is None:
            raise Refused("it asks for an object from outside")
        return self._outside(pid)
