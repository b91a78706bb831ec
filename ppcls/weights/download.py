"""Weights from the web: fetched once, checked, and kept in the cache."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ppcls.cache import cache_folder, locked
from ppcls.errors import EnvironmentProblem, WeightsError
from ppcls.weights.manifest import describe_file

ATTEMPTS = 4
FIRST_PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 30.0  # seconds without an answer, or without a byte
BLOCK = 1 << 18
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
    kind, _, digest = fragment.partition("=")
    if kind == "sha256":
        sha256 = digest.lower()
    if not re.fullmatch(r"([0-9a-f]{8,64})?", sha256):
        raise WeightsError(f"{url}: expected 8 to 64 hexadecimal digits, received '{sha256}'")
    target = place_of(url)
    if not target.is_file():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.with_name(f"{target.name}.lock")):
                if not target.is_file():
                    _download(address or url, target, sha256)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {target}: {error.strerror}") from None
    _check_digest(target, url, sha256)
    return target


def place_of(url: str) -> Path:
    """Where a URL's file is kept: below the name of the host."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected http://host/file or https://host/file")
        host = f"{parts.hostname}_{parts.port}" if parts.port else parts.hostname
    except ValueError as error:
        raise WeightsError(f"{url}: is no address of a file: {error}") from None
    steps = [re.sub(r"[^\w.+-]", "_", step) for step in unquote(parts.path).split("/")]
    steps = [step for step in steps if step.strip(".")]
    if parts.query:
        name, asked = Path(steps.pop() if steps else "file"), re.sub(r"\W", "_", parts.query)
        steps.append(f"{name.stem}_{asked[:80]}{name.suffix}")
    return cache_folder("weights").joinpath(host, *steps)


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
    _check_digest(part, address, sha256)
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


def _check_digest(path: Path, url: str, sha256: str) -> None:
    """Removes a file that is another one than was meant."""
    if not sha256:
        return
    found = describe_file(path)["sha256"]
    if not found.startswith(sha256):
        path.unlink(missing_ok=True)
        message = f"its SHA-256 is {found}, expected {sha256}"
        raise WeightsError(f"{url}: is another file than was meant: {message}; {path} was removed")


def _tag_of(part: Path) -> Path:
    """What the server calls this version of the file, kept beside the part of it that we have."""
    return part.with_name(f"{part.name}.tag")


def _cannot(address: str, target: Path, reason: str) -> str:
    return (
        f"cannot download {address}: {reason}; where there is a network, fetch it by hand "
        f"and put it at {target}"
    )
