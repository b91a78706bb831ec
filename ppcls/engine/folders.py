"""Folders that are either whole or not there, and whether something can be written."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ppcls.errors import EnvironmentProblem

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yields an empty folder; it takes the place of ``folder`` when the block ends without error.

    Everything is on the disk before the one rename that commits it (an exchange of names where an
    older folder stands), so a process killed at any moment leaves the old one or the new one.

    Raises:
        EnvironmentProblem: it cannot be written: a file in the way, a full disk, no permission.
    """
    folder = folder.absolute()
    new = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way")
        _sweep(folder)
        new.mkdir(parents=True)
        yield new
        for path in (*new.iterdir(), new):
            _sync(path)
        _commit(new, folder)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        message = f"cannot write {folder}: {error.strerror}{place}"
        raise EnvironmentProblem(message) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def require_writable(file: str | Path) -> None:
    """Refuses a file before the work is done whose result it could not hold.

    Raises:
        EnvironmentProblem: a folder is in its place, a file in that of its folder, no permission.
    """
    path = Path(file).absolute()
    folder = next(parent for parent in path.parents if os.path.lexists(parent))
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"{folder} is no folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"no permission to write in {folder}"
    else:
        return
    raise EnvironmentProblem(f"cannot write {file}: {reason}")


def _sweep(folder: Path) -> None:
    """Removes what killed processes have left half written."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.new"):
        pid = left.name.split(".")[-2]
        if not Path(f"/proc/{pid}").exists() or pid == str(os.getpid()):
            shutil.rmtree(left, ignore_errors=True)


def _commit(new: Path, folder: Path) -> None:
    """Makes ``new`` stand at ``folder``; afterwards ``new`` is the old one, or gone."""
    if not folder.exists():
        new.rename(folder)
    elif not _exchange(new, folder):
        # A file system without an exchange of names: the old one steps aside for a moment.
        aside = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        try:
            new.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync(folder.parent)


def _exchange(a: Path, b: Path) -> bool:
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
