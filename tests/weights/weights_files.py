"""Pickles that do something when they are loaded by ``pickle.load``."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Call:
    """Pickled, it becomes the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], Sequence[Any]]:
        return self._call


def touch(canary: Path) -> Call:
    return Call(os.system, f"touch '{canary}'")


def text_pickle(canary: Path) -> bytes:
    """Protocol 0, as a person would type it."""
    return f"cposix\nsystem\n(Vtouch '{canary}'\ntR.".encode()


ARRAY = np.ones(3, "float32")

# Every one of them makes the canary appear when ``pickle.loads`` reads it.
DANGEROUS: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda c: pickle.dumps(touch(c), 4),
    "protocol 2": lambda c: pickle.dumps(touch(c), 2),
    "protocol 5": lambda c: pickle.dumps(touch(c), 5),
    "protocol 0": lambda c: pickle.dumps(touch(c), 0),
    "typed text": text_pickle,
    "text behind a binary start": lambda c: b"\x80\x02" + text_pickle(c),
    "builtins.eval": lambda c: pickle.dumps(Call(eval, f"open({str(c)!r}, 'w')"), 4),
    "builtins.exec": lambda c: pickle.dumps(Call(exec, f"open({str(c)!r}, 'w')"), 4),
    "builtins.open": lambda c: pickle.dumps(Call(open, str(c), "w"), 4),
    "Path.touch": lambda c: pickle.dumps(Call(Path.touch, c), 4),
    "shutil": lambda c: pickle.dumps(Call(shutil.copy, __file__, str(c)), 4),
    "value of a table": lambda c: pickle.dumps({"a": ARRAY, "b": touch(c)}, 4),
    "inside a table": lambda c: pickle.dumps({"a": ARRAY, "b": {"c": [1, (2, touch(c))]}}, 4),
    "key of a table": lambda c: pickle.dumps({"a": ARRAY, Call(os.system, f"touch '{c}'"): 1}, 4),
    "name table": lambda c: pickle.dumps(
        {"a": ARRAY, "StructuredToParameterName@@": {"a": touch(c)}}, 4
    ),
    "named array": lambda c: pickle.dumps({"a": ("a", touch(c))}, 4),
    "object array": lambda c: pickle.dumps({"a": np.array([touch(c), 1], dtype=object)}, 4),
    "object array, protocol 2": lambda c: pickle.dumps(
        {"a": np.array([touch(c), 1], dtype=object)}, 2
    ),
    "numpy scalar": lambda c: pickle.dumps({"a": [np.float32(1), touch(c)]}, 4),
    "behind the end of another": lambda c: pickle.dumps([{"a": ARRAY}, touch(c)], 4),
}
