"""Weights from the web: fetched once, checked, and kept in the cache."""

from __future__ import annotations

import re
from pathlib import Path

from ppcls.cache import cache_folder, locked
from ppcls.errors import EnvironmentProblem, WeightsError
from ppcls.transfer import TransferError, download, place_below, quoted
from ppcls.weights.manifest import describe_file


def fetch(url: str, sha256: str = "", address: str = "", is_published: bool = False) -> Path:
    """The file behind a URL, downloaded unless it is in the cache.

    Several processes may ask at once: one downloads, the others wait for it. What a broken
    transfer has left is gone on with, if the server can do that.

    Args:
        url: http or https; may end in ``#sha256=<digits>``.
        sha256: the file's digest, or its first digits.
        address: where to download from instead of ``url``, such as a mirror.
        is_published: nobody has typed the URL: where it fails, the file has to come another way.

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
    try:
        source = quoted(address or url)
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.with_name(f"{target.name}.lock")):
                if not target.is_file():
                    download(
                        source,
                        target,
                        lambda path: _wrong_digest(path, sha256),
                        is_published=is_published,
                    )
    except TransferError as error:
        raise WeightsError(str(error)) from None
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {target}: {error.strerror}") from None
    wrong = _wrong_digest(target, sha256)
    if wrong:  # the digits may be at fault, so that the file stays
        raise WeightsError(f"{url}: {wrong}; removing {target} would download it again")
    return target


def place_of(url: str) -> Path:
    """Where a URL's file is kept. Raises WeightsError if it is no URL."""
    try:
        return place_below(cache_folder("weights"), url)
    except TransferError as error:
        raise WeightsError(str(error)) from None


def _wrong_digest(path: Path, sha256: str) -> str:
    """In which way a file is another one than was meant; empty if it is the one."""
    found = describe_file(path)["sha256"] if sha256 else ""
    if found.startswith(sha256):
        return ""
    return f"is another file than was meant: its SHA-256 is {found}, expected {sha256}"
