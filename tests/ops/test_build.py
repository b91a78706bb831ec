"""Compiling the kernels once, whoever asks and whatever is in the way."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from pathlib import Path

import paddle
import pytest
import support
from paddle import nn

from ppcls.ops import BuildError, accelerate, build, library

# Writes something to where a compiler would, and a line to $LOG.
WORKING = """
echo "$*" >> "$LOG"
while [ $# -gt 0 ]; do
  if [ "$1" = -o ]; then echo made > "$2"; fi
  shift
done
"""


@pytest.fixture
def lines():
    return []


@pytest.fixture
def compiler_says(cache, tmp_path, monkeypatch):
    """Makes a shell script the compiler."""

    def make(script):
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        monkeypatch.setenv("LOG", str(tmp_path / "log"))
        return path

    return make


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture
def no_children_left():
    """Fails if a test leaves processes behind, and ends them."""
    before = set(support.children(os.getpid()))
    yield
    left = set(support.children(os.getpid())) - before
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert left == set()


def files(cache: Path) -> set[str]:
    """Names of all that is in the cache but the lock."""
    return {path.name for path in cache.rglob("*") if path.is_file()} - {"lock"}


def folders(cache: Path) -> set[str]:
    return {path.name for path in cache.rglob("*") if path.is_dir()}


# Once --------------------------------------------------------------------------------------------


def test_two_processes_at_once_compile_once(race):
    announced = [line for lines in race.lines for line in lines if line.startswith("announced")]
    assert len(announced) == 1
    assert "compiling" in announced[0]
    loaded = {lines[-1] for lines in race.lines}
    assert len(loaded) == 1
    assert loaded.pop().startswith("loaded: ")
    assert files(race.cache) == {"libppcls_ops_portable.so"}
    assert not [name for name in folders(race.cache) if name.startswith("ppcls-build")]


def test_what_is_compiled_is_found_again(race, cache, lines, monkeypatch):
    monkeypatch.setenv("PPCLS_CACHE", str(race.cache))
    found = build.find_library(lines.append)
    assert found.is_file()
    assert race.cache in found.parents
    assert lines == []


def test_it_is_compiled_once(cache, compiler_says, lines, tmp_path):
    compiler_says(WORKING)
    first = build.find_library(lines.append)
    assert first.read_text() == "made\n"
    assert len(lines) == 1
    log = (tmp_path / "log").read_text()
    assert build.find_library(lines.append) == first
    assert len(lines) == 1
    assert (tmp_path / "log").read_text() == log
    assert files(cache) == {first.name}
    assert not [name for name in folders(cache) if name.startswith("ppcls-build")]


def test_every_instruction_set_has_its_own_library(compiler_says, lines, tmp_path, monkeypatch):
    compiler_says(WORKING)
    found = set()
    for isa, (width, options, _) in build.INSTRUCTION_SETS.items():
        (tmp_path / "log").write_text("")
        monkeypatch.setenv("PPCLS_CPU_ISA", isa)
        found.add(build.find_library(lines.append))
        compilations = [c for c in (tmp_path / "log").read_text().splitlines() if " -c " in c]
        assert len(compilations) == 2 * len(build.UNITS)
        for command in compilations:
            assert f"-DVECTOR_BYTES={width}" in command
            assert set(options) <= set(command.split())
            assert ("-mavx2" in command) == ("-mavx2" in options)
    assert len(found) == len(lines) == len(build.INSTRUCTION_SETS)


def test_a_library_that_came_with_the_package_is_taken(cache, no_compiler, lines):
    folder = build.PREBUILT / build.fingerprint()
    folder.mkdir(parents=True)
    shipped = folder / build.library_name("portable")
    shipped.write_text("made")
    assert build.find_library(lines.append) == shipped
    assert lines == []
    assert not cache.exists()


def test_one_that_was_shipped_for_other_sources_is_not(cache, no_compiler, lines):
    folder = build.PREBUILT / ("0" * 16)
    folder.mkdir(parents=True)
    (folder / build.library_name("portable")).write_text("made")
    with pytest.raises(BuildError):
        build.find_library(lines.append)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("PPCLS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert tmp_path / "home/.cache/ppcls" in build.cache_folder().parents
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tmp_path / "xdg/ppcls" in build.cache_folder().parents
    monkeypatch.setenv("PPCLS_CACHE", "~/own")
    assert tmp_path / "home/own/ppcls" in build.cache_folder().parents


# The fingerprint ---------------------------------------------------------------------------------


def test_the_fingerprint_is_of_sources_and_options(monkeypatch, tmp_path):
    before, seen = build.fingerprint(), set()
    copy = shutil.copytree(build.SOURCES, tmp_path / "csrc")
    monkeypatch.setattr(build, "SOURCES", copy)
    assert build.fingerprint() == before
    changed = next(copy.glob("*.h"))
    changed.write_text(changed.read_text() + "\n// edited\n")
    seen.add(build.fingerprint())
    (copy / "new.h").write_text("")
    seen.add(build.fingerprint())
    (copy / "new.h").rename(copy / "newer.h")
    seen.add(build.fingerprint())
    monkeypatch.setattr(build, "OPTIONS", (*build.OPTIONS, "-g"))
    seen.add(build.fingerprint())
    assert len(seen | {before}) == 5


def test_edited_sources_are_compiled_anew(cache, compiler_says, lines, monkeypatch, tmp_path):
    compiler_says(WORKING)
    first = build.find_library(lines.append)
    copy = shutil.copytree(build.SOURCES, tmp_path / "csrc")
    (copy / "layer.h").write_text("// edited\n")
    monkeypatch.setattr(build, "SOURCES", copy)
    second = build.find_library(lines.append)
    assert first != second
    assert first.is_file()
    assert len(lines) == 2
    assert str(copy / "chain.cc") in (tmp_path / "log").read_text()


# Trouble -----------------------------------------------------------------------------------------


def test_without_a_compiler_it_is_said_how_to_get_one(cache, no_compiler, lines):
    with pytest.raises(BuildError, match=r"no C\+\+ compiler found \(apt-get install g\+\+\)"):
        build.find_library(lines.append)
    assert lines == []
    assert not cache.exists()


def test_without_a_compiler_what_is_in_the_cache_serves(compiler_says, lines, monkeypatch):
    path = compiler_says(WORKING)
    first = build.find_library(lines.append)
    path.unlink()
    monkeypatch.setenv("PATH", "")
    assert build.find_library(lines.append) == first


BOOM = 'echo "In file included from somewhere" >&2; echo "chain.cc:1: error: boom" >&2; exit 1'


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (BOOM, "chain.cc:1: error: boom"),
        ("echo one >&2; echo last >&2; exit 3", "last"),
        ("exit 1", ""),
        (f'case "$*" in *-shared*) {BOOM};; esac\n{WORKING}', "error: boom"),
        (f'case "$*" in *optimizer.cc*_f64*) {BOOM};; esac\n{WORKING}', "error: boom"),
        ("printf 'error: \\377\\n' >&2; exit 1", "error: \N{REPLACEMENT CHARACTER}"),
    ],
    ids=["boom", "last line", "silent", "linking", "one unit", "no text"],
)
def test_what_a_failing_compiler_says(script, said, cache, compiler_says, lines):
    path = compiler_says(script)
    with pytest.raises(BuildError) as caught:
        build.find_library(lines.append)
    assert str(caught.value).startswith(f"{path} failed: ")
    assert str(caught.value).endswith(said)
    assert "\n" not in str(caught.value)
    assert files(cache) == set()
    assert not [name for name in folders(cache) if name.startswith("ppcls-build")]


def test_after_a_failure_it_is_tried_again(cache, compiler_says, lines):
    compiler_says(BOOM)
    for _ in range(2):
        with pytest.raises(BuildError):
            build.find_library(lines.append)
    compiler_says(WORKING)
    assert build.find_library(lines.append).is_file()
    assert len(lines) == 3


SLOW_BUT_ONE = f'case "$*" in *chain.cc*_f32*) {BOOM};; *) exec sleep 60;; esac'


def test_a_failure_leaves_no_compiler_running(compiler_says, lines, no_children_left):
    """The other units are compiled at the same time."""
    compiler_says(SLOW_BUT_ONE)
    with pytest.raises(BuildError, match="error: boom"):
        build.find_library(lines.append)


def test_a_compiler_that_does_not_end(cache, compiler_says, lines, monkeypatch, no_children_left):
    compiler_says("exec sleep 60")
    monkeypatch.setattr(build, "COMPILE_TIMEOUT", 0.2)
    with pytest.raises(BuildError, match=r"took longer than 0\.2 s"):
        build.find_library(lines.append)
    assert files(cache) == set()


def test_a_cache_that_cannot_be_written(cache, compiler_says, lines, tmp_path, monkeypatch):
    compiler_says(WORKING)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(BuildError, match=r"cannot write to .*: Not a directory") as caught:
        build.find_library(lines.append)
    assert str(tmp_path / "file") in str(caught.value)
    assert lines == []


@pytest.mark.parametrize("wanted", ["avx", "AVX2", "avx512 "])
def test_an_unknown_instruction_set(wanted, cache, lines, monkeypatch):
    monkeypatch.setenv("PPCLS_CPU_ISA", wanted)
    with pytest.raises(BuildError) as caught:
        build.find_library(lines.append)
    assert str(caught.value) == f"PPCLS_CPU_ISA is {wanted!r}; it can be avx512, avx2, portable"


# Loading -----------------------------------------------------------------------------------------


@pytest.fixture
def unloaded(monkeypatch):
    """As in a process that has used no kernel yet."""
    monkeypatch.setattr(library, "_loaded", None)


def test_a_library_that_is_none(cache, compiler_says, unloaded, lines):
    compiler_says(WORKING)
    with pytest.raises(BuildError, match="cannot be loaded"):
        library.load(lines.append)
    assert len(lines) == 1


def test_a_network_stays_as_it_is_if_the_kernels_cannot_be_had(cache, no_compiler, unloaded):
    net = nn.Sequential(nn.Conv2D(3, 4, 1), nn.ReLU())
    with pytest.raises(BuildError):
        accelerate(net)
    assert "forward" not in vars(net)
    assert net(paddle.ones([1, 3, 2, 2])).shape == [1, 4, 2, 2]


def test_who_waits_for_the_compiler_is_told(compiler_says, unloaded, lines, monkeypatch):
    net = nn.Sequential(nn.Conv2D(3, 4, 1), nn.ReLU())
    compiler_says(BOOM)
    with pytest.raises(BuildError):
        accelerate(net, lines.append)
    assert "compiling" in lines[0]
    records, handler, logger = [], logging.Handler(), logging.getLogger("ppcls")
    handler.emit = records.append
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", logging.INFO)
    with pytest.raises(BuildError):
        accelerate(net)
    assert [record.getMessage() for record in records] == lines
