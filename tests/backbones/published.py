"""Figures of the published networks: see ``tests/reference``."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def figures() -> dict[str, Any]:
    """Network -> names and shapes, trainable parameters, logits."""
    return json.loads((REFERENCE / "mobilenext.json").read_text())


def formulas() -> ModuleType:
    """The weights and inputs that the published logits belong to."""
    spec = importlib.util.spec_from_file_location("reference_fill", REFERENCE / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
