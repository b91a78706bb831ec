"""Sizes and checksums of files, so that damage is found before a file is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppcls.errors import WeightsError

MANIFEST_FILE = "manifest.json"  # of a checkpoint folder


def describe_file(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def verify_files(
    folder: Path, manifest: Any, required: Sequence[str], record: str = MANIFEST_FILE
) -> None:
    """Compares files with what ``describe_file`` said of them.

    Args:
        manifest: file name -> description.
        required: files that it has to vouch for.
        record: name of the file that the manifest was read from.

    Raises:
        WeightsError: naming the first file that is missing, cut off, altered or not described.
    """
    described = manifest if isinstance(manifest, dict) else {}
    for name in dict.fromkeys((*required, *described)):
        path, wanted = folder / name, described.get(name)
        if not isinstance(wanted, dict) or wanted.keys() != {"bytes", "sha256"}:
            raise WeightsError(f"{path}: {record} does not tell its size and checksum")
        if not path.is_file():
            raise WeightsError(f"{path}: is missing")
        for key, value in describe_file(path).items():
            if value != wanted[key]:
                message = f"is damaged: {key} is {value}, expected {wanted[key]}"
                raise WeightsError(f"{path}: {message}")


def read_manifest(folder: Path) -> Any:
    """What ``manifest.json`` of a checkpoint folder says. Raises WeightsError."""
    path = folder / MANIFEST_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from None
