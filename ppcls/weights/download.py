"""Weights from the web: fetched once, checked, and kept in the cache."""

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
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ppcls.cache import cache_folder, locked
from ppcls.errors import EnvironmentProblem, WeightsError
from ppcls.weights.manifest import describe_file

ATTEMPTS = 4
FIRST_PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 30.0  # seconds without an answer, or without a byte
BLOCK = 1 << 18
HOST = re.compile(r"[\w-]+(\.[\w-]+)*(:\d+)?", re.ASCII)
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # what a server answers when it may do better later
# What goes wrong on this side, where another attempt would not help.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


class _Interrupted(Exception):
    """The transfer did not come to its end; another attempt may."""


def fetch(url: str, sha256: str = "", address: str = "") -> Path:
    """The file behind a URL, downloaded unless it is in the cache.

    Several processes may ask at once: one downloads, the others wait for it. What a broken
    transfer has left is gone on with, if the server can do that.

    Args:
        url: http or https; may end in ``#sha256=<digits>``.
        sha256: the file's digest, or its first digits.
        address: where to download from instead of ``url``, such as a mirror.

    Raises:
        WeightsError: it cannot be had, or is another file than ``sha256`` says.
        EnvironmentProblem: the cache cannot be written.
    """
    url, _, fragment = url.partition("#")
    if fragment:
        if not fragment.startswith("sha256="):
            raise WeightsError(f"{url}: expected #sha256=<digits> behind it, received #{fragment}")
        sha256 = fragment.removeprefix("sha256=").lower()
    if not re.fullmatch(r"([0-9a-f]{8,64})?", sha256):
        raise WeightsError(f"{url}: expected 8 to 64 hexadecimal digits, received '{sha256}'")
    target = place_of(url)
    source = _quoted(address or url)
    if not target.is_file():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.with_name(f"{target.name}.lock")):
                if not target.is_file():
                    _download(source, target, sha256)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {target}: {error.strerror}") from None
    wrong = _wrong_digest(target, sha256)
    if wrong:  # the digits may be at fault, so that the file stays
        raise WeightsError(f"{url}: {wrong}; removing {target} would download it again")
    return target


def place_of(url: str) -> Path:
    """Where a URL's file is kept: below the name of the host.

    What cannot stand in a file's name is replaced; digits then tell apart what became the same.
    """
    parts = _split(url)
    host = f"{parts.hostname}_{parts.port}" if parts.port else str(parts.hostname)
    steps = [re.sub(r"[^\w.+-]", "_", step) for step in unquote(parts.path).split("/")]
    steps = [step for step in steps if step.strip(".")] or ["file"]
    if parts.query or "/".join(steps) != parts.path.removeprefix("/"):
        name, asked = Path(steps.pop()), re.sub(r"\W", "_", parts.query)[:80]
        digits = hashlib.sha256(url.encode()).hexdigest()[:8]
        steps.append(f"{'_'.join(filter(None, (name.stem, asked, digits)))}{name.suffix}")
    return cache_folder("weights").joinpath(host, *steps)


def _split(url: str) -> SplitResult:
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
        raise WeightsError(f"{_shown(url)}: is no address of a file: {error}") from None
    return parts


def _quoted(url: str) -> str:
    """An address as it goes over the wire; what is quoted already stays as it is."""
    parts = _split(url)
    path, query = (quote(part, safe="/%:@!$&'()*+,;=~?") for part in (parts.path, parts.query))
    return parts._replace(path=path, query=query, fragment="").geturl()


def _shown(url: str) -> str:
    return url if url.isprintable() else repr(url)


def _download(address: str, target: Path, sha256: str) -> None:
    sys.stderr.write(f"downloading {address} to {target}\n")
    part = target.with_name(f"{target.name}.part")
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        try:
            _transfer(address, part)
            break
        except _Interrupted as error:
            reason = str(error)
    else:
        raise WeightsError(_cannot(address, target, reason))
    wrong = _wrong_digest(part, sha256)
    if wrong:
        part.unlink(missing_ok=True)
        raise WeightsError(f"{address}: {wrong}; it was removed")
    part.replace(target)
    _tag_of(part).unlink(missing_ok=True)


def _transfer(address: str, part: Path) -> None:
    """Downloads to ``part``, or goes on where it ends."""
    headers = {"User-Agent": "ppcls", "Accept-Encoding": "identity"}
    tag = _tag_of(part)
    if part.is_file() and tag.is_file():
        headers["Range"] = f"bytes={part.stat().st_size}-"
        headers["If-Range"] = tag.read_text(encoding="latin-1")
    try:
        opener = urllib.request.build_opener(_Redirects)
        with opener.open(
            urllib.request.Request(address, headers=headers), timeout=TIMEOUT
        ) as reply:
            _write(address, reply, part)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what we have is no beginning of the file
            part.unlink(missing_ok=True)
        elif error.code not in TRY_AGAIN:
            where = part.with_suffix("")
            raise WeightsError(_cannot(address, where, f"{error.code} {error.reason}")) from None
        raise _Interrupted(f"{error.code} {error.reason}") from None
    except (ValueError, http.client.InvalidURL) as error:  # another attempt would say the same
        raise WeightsError(_cannot(address, part.with_suffix(""), str(error))) from None
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in DISK_ERRORS:
            raise
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME:
            raise WeightsError(_cannot(address, part.with_suffix(""), str(reason))) from None
        raise _Interrupted(str(reason) or type(error).__name__) from None


def _write(address: str, reply: Any, part: Path) -> None:
    if reply.headers.get_content_type() == "text/html":
        where = part.with_suffix("")
        raise WeightsError(_cannot(address, where, "the server sent a web page"))
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
    with part.open("ab" if goes_on else "wb") as file, _progress(part, have, total) as progress:
        while block := reply.read(BLOCK):
            file.write(block)
            have += len(block)
            progress.update(len(block))
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


def _progress(part: Path, have: int, total: int | None) -> Any:
    from tqdm import tqdm

    name = part.with_suffix("").name
    return tqdm(
        desc=name,
        initial=have,
        total=total,
        unit="B",
        unit_scale=True,
        disable=not sys.stderr.isatty(),
    )


def _wrong_digest(path: Path, sha256: str) -> str:
    """In which way a file is another one than was meant; empty if it is the one."""
    found = describe_file(path)["sha256"] if sha256 else ""
    if found.startswith(sha256):
        return ""
    return f"is another file than was meant: its SHA-256 is {found}, expected {sha256}"


def _tag_of(part: Path) -> Path:
    """What the server calls this version of the file, kept beside the part of it that we have."""
    return part.with_name(f"{part.name}.tag")


def _cannot(address: str, target: Path, reason: str) -> str:
    return (
        f"cannot download {address}: {reason}; where there is a network, fetch it by hand "
        f"and put it at {target}"
    )
