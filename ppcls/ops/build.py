"""Compiling the kernels: when the package is installed, or once at first use, into a cache.

One library for each instruction set; which one a machine gets is decided as it is loaded. Needs
neither Paddle nor numpy, so that ``setup.py`` can use it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCES = Path(__file__).parent / "csrc"
UNITS = ("chain.cc", "layout.cc", "optimizer.cc")
PREBUILT = Path(__file__).parent / "prebuilt"
COMPILE_TIMEOUT = 600  # seconds

# Width of a vector in bytes and the compiler's options, best first. A machine can use a set if
# its processor has all the features named.
INSTRUCTION_SETS: dict[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "avx512": (
        64,
        ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mavx2"),
        ("avx512f", "avx512bw", "avx512dq", "avx512vl", "fma", "avx2"),
    ),
    "avx2": (32, ("-mavx2", "-mfma"), ("avx2", "fma")),
    "portable": (16, (), ()),
}


class BuildError(Exception):
    """The kernels cannot be compiled here; the message is one line that says why."""


def instruction_set() -> str:
    """The best set of this processor, or what ``PPCLS_CPU_ISA`` says (for tests and doubts)."""
    wanted = os.environ.get("PPCLS_CPU_ISA")
    if wanted:
        if wanted not in INSTRUCTION_SETS:
            known = ", ".join(INSTRUCTION_SETS)
            raise BuildError(f"PPCLS_CPU_ISA is {wanted!r}; it can be {known}")
        return wanted
    features = processor_features()
    return next(name for name, (_, _, needed) in INSTRUCTION_SETS.items() if features >= {*needed})


def usable_sets() -> list[str]:
    """Those that a compiler for this kind of machine knows."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return list(INSTRUCTION_SETS) if x86 else ["portable"]


def processor_features() -> set[str]:
    """Names of the processor's features that the operating system lets programs use."""
    if len(usable_sets()) == 1:
        return set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("flags"):
                return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()


def find_library(announce: Callable[[str], None]) -> Path:
    """The library for this machine, compiled now if need be.

    Args:
        announce: told, in one line, before a compilation starts.

    Raises:
        BuildError: there is none and none can be made.
    """
    wanted = instruction_set()
    prebuilt = PREBUILT / fingerprint() / library_name(wanted)
    if prebuilt.is_file():
        return prebuilt
    folder = cache_folder()
    library = folder / library_name(wanted)
    if library.is_file():
        return library
    compiler()  # before a folder is made for nothing
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            if not library.is_file():  # another process may have made it in the meantime
                announce("compiling the CPU kernels, once (about ten seconds) ...")
                compile_library(wanted, library)
    except OSError as error:
        raise BuildError(f"cannot write to {folder}: {error.strerror}") from None
    return library


def cache_folder() -> Path:
    """Where libraries of just these sources, made with just these options, are kept."""
    from ppcls import cache  # not above: `setup.py` uses this module without its package

    return cache.cache_folder("ops") / fingerprint()


def fingerprint() -> str:
    """Changes with the sources, the options and the kind of machine."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update(repr((INSTRUCTION_SETS, OPTIONS, sys.platform, platform.machine())).encode())
    return digest.hexdigest()[:16]


def library_name(isa: str) -> str:
    """File name of the library of one instruction set."""
    return f"libppcls_ops_{isa}.so"


def compiler() -> str:
    """The C++ compiler: ``$CXX``, or the first usual one found.

    Raises:
        BuildError: there is none.
    """
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and shutil.which(name):
            return name
    raise BuildError("no C++ compiler found (apt-get install g++)")


OPTIONS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
)


def compile_library(isa: str, target: Path) -> None:
    """Compiles the library of one instruction set; ``target`` appears whole or not at all.

    Raises:
        BuildError: the compiler fails; the message ends with what it said.
    """
    with tempfile.TemporaryDirectory(prefix="ppcls-build-", dir=target.parent) as scratch:
        _compile(isa, Path(scratch)).replace(target)


def _compile(isa: str, folder: Path) -> Path:
    width, options, _ = INSTRUCTION_SETS[isa]
    command = [compiler(), *OPTIONS, *options, f"-DVECTOR_BYTES={width}"]
    if isa == "avx512" and "clang" not in compiler():
        command.append("-mprefer-vector-width=512")
    jobs = []
    for unit in UNITS:
        for scalar, suffix in (("float", "_f32"), ("double", "_f64")):
            output = folder / f"{unit}{suffix}.o"
            defined = [f"-DSCALAR={scalar}", f"-DSUFFIX={suffix}"]
            jobs.append(
                (output, [*command, *defined, "-c", str(SOURCES / unit), "-o", str(output)])
            )
    _run_all([job for _, job in jobs])
    library = folder / library_name(isa)
    _run_all([[compiler(), "-shared", "-pthread", *[str(o) for o, _ in jobs], "-o", str(library)]])
    return library


def _run_all(commands: list[list[str]]) -> None:
    """Runs some commands at once; the first failure ends them all."""
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        for command in commands
    ]
    try:
        for process in processes:
            _wait(process)
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the compiler's own processes, too
                process.communicate()


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        _, said = process.communicate(timeout=COMPILE_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise BuildError(f"the compiler took longer than {COMPILE_TIMEOUT} s") from None
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        wrong = next((line for line in lines if "error" in line), lines[-1] if lines else "")
        raise BuildError(f"{compiler()} failed: {wrong}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
