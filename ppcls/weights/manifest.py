"""Sizes and checksums of files, so that damage is found before a file is used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppcls.errors import WeightsError


def describe_file(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def verify_files(folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares files with what ``describe_file`` said of them.

    Raises:
        WeightsError: naming the first file that is missing, cut off or altered.
    """
    for name, wanted in expected.items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path}: is missing")
        found = describe_file(path)
        for key, value in wanted.items():
            if found[key] != value:
                message = f"is damaged: {key} is {found[key]}, expected {value}"
                raise WeightsError(f"{path}: {message}")
