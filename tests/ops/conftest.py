"""Libraries made for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apart
import pytest

from ppcls.ops import build

COMPILE = """
import ctypes, importlib.util, pathlib
spec = importlib.util.spec_from_file_location("build", {path!r})
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
build.PREBUILT = pathlib.Path("nowhere")
library = build.find_library(lambda line: print("announced:", line))
ctypes.CDLL(str(library)).ppcls_chain_forward_f32
print("loaded:", library)
"""


@dataclass
class Race:
    """Two processes that wanted the same library at once: the cache, and what they printed."""

    cache: Path
    lines: list[list[str]]


@pytest.fixture(scope="session")
def race(tmp_path_factory: pytest.TempPathFactory) -> Race:
    """Compiles the portable library, without optimisation: that is fast."""
    folder = tmp_path_factory.mktemp("race")
    cache, compiler = folder / "cache", folder / "compiler"
    compiler.write_text(f'#!/bin/sh\nexec {build.compiler()} "$@" -O0\n')
    compiler.chmod(0o755)
    code = COMPILE.format(path=build.__file__)
    variables = {"PPCLS_CACHE": cache, "PPCLS_CPU_ISA": "portable", "CXX": compiler}
    processes = [apart.start(code, **variables) for _ in range(2)]
    return Race(cache, [apart.finish(process).splitlines() for process in processes])


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache for this process, which wants the portable library."""
    for name in ("CXX", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PPCLS_CPU_ISA", "portable")
    monkeypatch.setattr("ppcls.ops.build.PREBUILT", tmp_path / "prebuilt")
    yield tmp_path / "cache"
