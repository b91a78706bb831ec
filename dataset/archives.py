"""What the scripts of this folder share: archives fetched, checked and unpacked, with restart."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout, too

from ppcls.errors import PPClsError
from ppcls.transfer import download, quoted

BLOCK = 1 << 20
CHECKED = ".checked.json"  # in the data set's folder: which archives have had their digest compared


class LayoutError(Exception):
    """What the user has to mend, in one line."""


@dataclass(frozen=True)
class Archive:
    """A file as its publisher offers it.

    Attributes:
        name: of the file.
        md5: the digest that the publisher or common use names; the file's size is not enough.
        url: where it can be fetched; empty if only registered persons may.
    """

    name: str
    md5: str
    url: str = ""


def say(message: str) -> None:
    """Prints a line of the report."""
    sys.stdout.write(f"{message}\n")
    sys.stdout.flush()


def warn(message: str) -> None:
    """Prints something that may be meant, but often is not."""
    sys.stderr.write(f"warning: {message}\n")


def progress(name: str, total: int, unit: str = "B") -> Any:
    """A bar on a terminal, silent elsewhere."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty()
    return tqdm(desc=name, total=total, unit=unit, unit_scale=unit == "B", disable=hidden)


# Fetching and checking ---------------------------------------------------------------------------


def obtained(archive: Archive, given: Path | None, folder: Path) -> Path:
    """The checked file: the one that is given, or else the one in ``folder``, fetched if need be.

    Args:
        given: a file, or a folder that holds it.

    Raises:
        LayoutError: it is not there, cannot be fetched, or is another file.
    """
    if given is not None:
        path = given / archive.name if given.is_dir() else given
        if not path.is_file():
            raise LayoutError(
                f"{path} is missing; expected {archive.name}, or a folder that holds it"
            )
    else:
        path = folder / archive.name
        if not path.is_file():
            _fetch(archive, path)
    check(path, archive, folder)
    return path


def _fetch(archive: Archive, path: Path) -> None:
    if not archive.url:
        raise LayoutError(f"{path} is missing; --help says where it comes from")
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download(
            quoted(archive.url), path, lambda part: _difference(part, archive), is_published=True
        )
    except BaseException:
        if is_new:
            with suppress(OSError):  # unless it holds a part that the next call goes on with
                path.parent.rmdir()
        raise
    _note(path, archive, path.parent)


def _difference(path: Path, archive: Archive) -> str:
    """In which way a file is another one than was meant; empty if it is the one."""
    if (found := md5_of(path)) == archive.md5:
        return ""
    return (
        f"is not the {archive.name} that was meant, but damaged, cut off or another one: its MD5 "
        f"is {found}, expected {archive.md5}"
    )


def check(path: Path, archive: Archive, folder: Path) -> None:
    """Compares the digest, unless ``folder`` notes that this very file was compared before.

    Raises:
        LayoutError: it is another file.
    """
    size = path.stat().st_size
    if _notes(folder).get(str(path.resolve())) == _mark(path, archive):
        return
    say(f"checking {path} ({size / 1e6:.0f} MB)")
    if wrong := _difference(path, archive):
        raise LayoutError(f"{path} {wrong}")
    _note(path, archive, folder)


def _mark(path: Path, archive: Archive) -> list[Any]:
    """What tells whether a file is still the one that was compared."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, archive.md5]


def _note(path: Path, archive: Archive, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    notes = {**_notes(folder), str(path.resolve()): _mark(path, archive)}
    written(folder / CHECKED, json.dumps(notes, indent=1))


def _notes(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / CHECKED).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def md5_of(path: Path) -> str:
    """The digest of a file, in hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, progress(f"MD5 of {path.name}", path.stat().st_size) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


# Unpacking ---------------------------------------------------------------------------------------


def opened(file: Path | IO[bytes], name: str) -> tarfile.TarFile:
    """An archive of any compression.

    Raises:
        LayoutError: it is none.
    """
    try:
        if isinstance(file, Path):
            return tarfile.open(file)
        return tarfile.open(fileobj=file)
    except tarfile.TarError as error:
        raise LayoutError(f"{name} is not a tar archive: {error}") from error


def unpack(
    archive: tarfile.TarFile,
    members: Iterable[tarfile.TarInfo],
    place: Callable[[str], Path | None],
    tick: Callable[[int], Any] = lambda size: None,
) -> int:
    """Writes members where ``place`` says; what is there with the right size is kept.

    A file gets its name when it is whole, so that an unpacking that was broken off goes on.

    Args:
        place: called with the last part of a member's name, which cannot lead anywhere else;
            None leaves the member out.
        tick: called with the size of each member.

    Returns:
        How many files were written.
    """
    count = 0
    for member in members:
        path = place(Path(member.name).name) if member.isfile() else None
        if path is not None and not is_there(path, member.size):
            _write(archive, member, path)
            count += 1
        tick(member.size)
    return count


def is_there(path: Path, size: int) -> bool:
    """Whether there is a file of this size."""
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise LayoutError(f"{member.name} of the archive is no file")
    scratch = path.with_name(f".{path.name}.part")
    with content, scratch.open("wb") as file:
        shutil.copyfileobj(content, file, BLOCK)
    scratch.replace(path)


def need_space(folder: Path, size: int) -> None:
    """Raises LayoutError unless the disk has this many bytes free, and a little more."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size * 1.02 > free:
        raise LayoutError(f"{folder}: {size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")


def written(path: Path, text: str) -> None:
    """Writes a text file; an interrupted run leaves the old one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def add_places(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds ``--output`` and ``--archives``."""
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help=f"folder to write (default: {default})"
    )
    parser.add_argument(
        "--archives",
        type=Path,
        metavar="PATH",
        help="the folder that holds what would be fetched, or the file if it is one",
    )


def run_script(run: Callable[[], None], *mistakes: type[Exception]) -> int:
    """Runs the body of a script; returns its exit code, and says in one line what went wrong.

    Args:
        mistakes: further errors that a user can mend.
    """
    known: tuple[type[Exception], ...] = (LayoutError, PPClsError, tarfile.TarError, EOFError)
    known += (OSError, *mistakes)
    try:
        run()
    except known as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on\n")
        return 130
    return 0
