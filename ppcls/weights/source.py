"""What a user calls a weights source -> the file that holds the weights."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from ppcls.errors import WeightsError
from ppcls.weights.download import fetch
from ppcls.weights.torch_file import SUFFIXES as TORCH_SUFFIXES

MODEL_FILE = "model.pdparams"
FILE_SUFFIXES = (".pdparams", ".safetensors", *TORCH_SUFFIXES)


def find_weights(source: str | Path) -> Path:
    """The weights file that ``source`` means.

    Args:
        source: a checkpoint folder (``output/Net/best_model``), a weights file, or a published
            prefix (``best_model`` for ``best_model.pdparams``), or the URL of a file, which may
            end in ``#sha256=<digits>``.

    Raises:
        WeightsError: there is nothing there; the message lists what was tried.
    """
    text = str(source)
    if "://" in text:
        suffix = Path(urlsplit(text).path).suffix
        if suffix not in FILE_SUFFIXES:
            expected = ", ".join(FILE_SUFFIXES)
            raise WeightsError(f"{text}: expected a file ending in {expected}")
        return fetch(text)
    try:
        return _existing(text)
    except (OSError, RuntimeError, ValueError) as error:  # a name that no file can have
        raise WeightsError(f"{text[:100]}: is no path: {error}") from None


def _existing(text: str) -> Path:
    path = Path(text).expanduser()
    candidates = [path / MODEL_FILE, *(Path(f"{path}{suffix}") for suffix in FILE_SUFFIXES)]
    if path.suffix in FILE_SUFFIXES:
        candidates = [path]
    elif path.is_file():
        expected = ", ".join(FILE_SUFFIXES)
        raise WeightsError(f"{path}: expected a checkpoint folder or a file ending in {expected}")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = ", ".join(str(candidate) for candidate in candidates)
    raise WeightsError(f"{text}: no weights there; looked for {tried}")
