"""Files from the web: an address becomes a file, and a broken transfer is gone on with."""

from __future__ import annotations

import errno
import hashlib
import http.client
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ppcls.errors import PPClsError

T = TypeVar("T")

ATTEMPTS = 4
FIRST_PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 30.0  # seconds without an answer, or without a byte
BLOCK = 1 << 18
HOST = re.compile(r"[\w-]+(\.[\w-]+)*(:\d+)?", re.ASCII)
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # what a server answers when it may do better later
# What goes wrong on this side, where another attempt would not help.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


class TransferError(PPClsError):
    """A file on the web that cannot be had."""


class WholeFilesOnly(TransferError):
    """A part was asked for, of a server that gives whole files only."""


class _Failure(Exception):
    """Why a file did not come; ``hint`` says what may be wrong with its address."""

    def __init__(self, reason: str, hint: str = ""):
        super().__init__(reason)
        self.hint = hint


class _Refused(_Failure):
    """The file cannot be had; another attempt would not help."""


class _Interrupted(_Failure):
    """The transfer did not come to its end; another attempt may."""


def place_below(folder: Path, url: str) -> Path:
    """Where a URL's file is kept in a folder: below the name of the host.

    What cannot stand in a file's name is replaced; digits then tell apart what became the same.
    """
    parts = split(url)
    host = f"{parts.hostname}_{parts.port}" if parts.port else str(parts.hostname)
    steps = [re.sub(r"[^\w.+-]", "_", step) for step in unquote(parts.path).split("/")]
    steps = [step for step in steps if step.strip(".")] or ["file"]
    if parts.query or "/".join(steps) != parts.path.removeprefix("/"):
        name, asked = Path(steps.pop()), re.sub(r"\W", "_", parts.query)[:80]
        digits = hashlib.sha256(url.encode()).hexdigest()[:8]
        steps.append(f"{'_'.join(filter(None, (name.stem, asked, digits)))}{name.suffix}")
    return folder.joinpath(host, *steps)


def split(url: str) -> SplitResult:
    """The parts of an address that is one."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected http://host/file or https://host/file")
        host = parts.netloc.rpartition("@")[2]
        if not HOST.fullmatch(host) or any(len(label) > 63 for label in host.split(".")):
            raise ValueError(f"{host!r} is no name of a host")
        if parts.port == 0:
            raise ValueError("there is no port 0")
        url.encode()
    except ValueError as error:
        raise TransferError(f"{_shown(url)}: is no address of a file: {error}") from None
    return parts


def quoted(url: str) -> str:
    """An address as it goes over the wire; what is quoted already stays as it is."""
    parts = split(url)
    path, query = (quote(part, safe="/%:@!$&'()*+,;=~?") for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query, fragment="").geturl()


def _shown(url: str) -> str:
    return url if url.isprintable() else repr(url)


def download(
    address: str,
    target: Path,
    wrong: Callable[[Path], str],
    is_quiet: bool = False,
    size: int | None = None,
    is_published: bool = False,
) -> None:
    """Downloads a file; what a broken transfer has left is gone on with, if the server can.

    Args:
        address: as :func:`quoted` gives it.
        target: it is there as a whole or not at all; ``<target>.part`` is what we have of it.
        wrong: says of the whole file in which way it is another one than was meant.
        is_quiet: shows no progress.
        size: bytes that the file should have; of a larger one not much more is fetched.
        is_published: the address is known to be right: it is not one that a person has typed.

    Raises:
        TransferError: it cannot be had, or is the wrong one.
        OSError: it cannot be written.
    """
    if not is_quiet:
        sys.stderr.write(f"downloading {address} to {target}\n")
    part = target.with_name(f"{target.name}.part")
    try:
        _repeated(lambda: _transfer(address, part, is_quiet, size))
    except _Refused as error:
        hint = "" if is_published else error.hint
        hint = hint or f"where there is a network, fetch it by hand and put it at {target}"
        raise TransferError(f"cannot download {address}: {error}; {hint}") from None
    if found := wrong(part):
        part.unlink(missing_ok=True)
        raise TransferError(f"{address}: {found}; it was removed")
    part.replace(target)
    _tag_of(part).unlink(missing_ok=True)


def read_range(address: str, start: int, size: int) -> bytes:
    """A part of a file; shorter if the file ends before.

    Args:
        address: as :func:`quoted` gives it.

    Raises:
        TransferError: it cannot be had; WholeFilesOnly if the server gives no parts of it.
    """

    def read() -> bytes:
        with _opened(address, {"Range": f"bytes={start}-{start + size - 1}"}) as reply:
            if reply.status != 206:
                raise WholeFilesOnly(
                    f"cannot read {address}: the server gives whole files only, no parts of them"
                )
            if not reply.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise _Interrupted("the server sent another part than asked for")
            data: bytes = reply.read(size)
        length = reply.headers.get("Content-Length")
        if length and length.isdigit() and len(data) < min(size, int(length)):
            raise _Interrupted(f"broke off after {len(data)} of {length} bytes")
        return data

    try:
        return _repeated(read)
    except _Refused as error:
        hint = f"; {error.hint}" if error.hint else ""
        raise TransferError(f"cannot read {address}: {error}{hint}") from None
    except OSError as error:
        raise TransferError(f"cannot read {address}: {error.strerror or error}") from None


def _repeated(attempt: Callable[[], T]) -> T:
    """Tries again where that may help. Raises _Refused."""
    for number in range(ATTEMPTS):
        if number:
            time.sleep(FIRST_PAUSE * 2 ** (number - 1))
        try:
            return attempt()
        except _Interrupted as error:
            last = error
    raise _Refused(str(last), last.hint)


@contextmanager
def _opened(address: str, headers: dict[str, str]) -> Iterator[Any]:
    """The answer to a request. Raises _Interrupted, _Refused, or OSError for this side's disk."""
    headers = {"User-Agent": "ppcls", "Accept-Encoding": "identity", **headers}
    try:
        opener = urllib.request.build_opener(_Redirects)
        request = urllib.request.Request(address, headers=headers)
        with opener.open(request, timeout=TIMEOUT) as reply:
            yield reply
    except urllib.error.HTTPError as error:
        kind = _Interrupted if error.code in (416, *TRY_AGAIN) else _Refused
        hint = "is the address right?" if error.code in (404, 410) else ""
        raise kind(f"{error.code} {error.reason}", hint) from None
    except (ValueError, http.client.InvalidURL) as error:  # another attempt would say the same
        raise _Refused(str(error)) from None
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in DISK_ERRORS:
            raise
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME:
            raise _Refused(str(reason)) from None
        is_closed = isinstance(reason, ConnectionRefusedError)
        hint = "the server does not answer there: does it run, at this port?" if is_closed else ""
        raise _Interrupted(str(reason) or type(error).__name__, hint) from None


def _transfer(address: str, part: Path, is_quiet: bool, size: int | None) -> None:
    """Downloads to ``part``, or goes on where it ends."""
    headers = {}
    tag = _tag_of(part)
    if part.is_file() and tag.is_file():
        headers["Range"] = f"bytes={part.stat().st_size}-"
        headers["If-Range"] = tag.read_text(encoding="latin-1")
    try:
        with _opened(address, headers) as reply:
            _write(reply, part, is_quiet, size)
    except _Interrupted as error:
        if str(error).startswith("416 "):  # what we have is no beginning of the file
            part.unlink(missing_ok=True)
        raise


def _write(reply: Any, part: Path, is_quiet: bool, size: int | None) -> None:
    if reply.headers.get_content_type() == "text/html":
        raise _Refused("the server sent a web page")
    goes_on = reply.status == 206
    have = part.stat().st_size if goes_on and part.is_file() else 0
    if goes_on and not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        part.unlink(missing_ok=True)
        raise _Interrupted("the server sent another part than asked for")
    tag = reply.headers.get("ETag") or reply.headers.get("Last-Modified")
    if tag and not tag.startswith("W/"):
        _tag_of(part).write_text(tag, encoding="latin-1")
    else:
        _tag_of(part).unlink(missing_ok=True)
    length = reply.headers.get("Content-Length")
    total = have + int(length) if length and length.isdigit() else None
    with (
        part.open("ab" if goes_on else "wb") as file,
        _progress(part, have, total, is_quiet) as progress,
    ):
        while block := reply.read(BLOCK):
            file.write(block)
            have += len(block)
            progress.update(len(block))
            if size is not None and have > size:
                return  # it is another file, however much is still to come
    if total is not None and have != total:
        raise _Interrupted(f"broke off after {have} of {total} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only, and never from https to http."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, url: str
    ) -> Any:
        """The request to the new address."""
        schemes = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(url).scheme not in schemes:
            raise urllib.error.HTTPError(req.full_url, 403, f"leads to {url}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, url)


def _progress(part: Path, have: int, total: int | None, is_quiet: bool) -> Any:
    from tqdm import tqdm

    name = part.with_suffix("").name
    return tqdm(
        desc=name,
        initial=have,
        total=total,
        unit="B",
        unit_scale=True,
        disable=is_quiet or not sys.stderr.isatty(),
    )


def _tag_of(part: Path) -> Path:
    """What the server calls this version of the file, kept beside the part of it that we have."""
    return part.with_name(f"{part.name}.tag")
