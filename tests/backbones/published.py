"""Figures of the published networks, and what tests of a family do with them."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import paddle

import ppcls

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


@cache
def figures() -> dict[str, Any]:
    """Network -> names and shapes, trainable parameters, MACs, logits, as PaddleClas has them."""
    return json.loads(gzip.decompress((REFERENCE / "published.json.gz").read_bytes()))


@cache
def formulas() -> ModuleType:
    """The weights and inputs that the published logits belong to."""
    spec = importlib.util.spec_from_file_location("reference_fill", REFERENCE / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_logits(
    net: Any, expected: dict[str, Any], tolerance: float = 1e-4, images: int = 2
) -> ppcls.WeightReport:
    """Loads the weights that ``expected`` names, and compares the logits with those it holds.

    Args:
        tolerance: of the logits, as a share of their standard deviation.
        images: how many of the two are looked at.
    """
    fill = formulas()
    report = ppcls.load_weights(net, fill.state_dict(expected["state_dict"]))
    net.eval()
    with paddle.no_grad():
        logits = net(paddle.to_tensor(fill.images(expected["image_size"])[:images])).numpy()
    known = np.array(expected["logits"])[:images]
    atol = tolerance * expected["logits_std"]
    np.testing.assert_allclose(logits[:, : known.shape[1]], known, rtol=0, atol=atol)
    if images == len(expected["logits"]):
        assert abs(logits.std() / expected["logits_std"] - 1) < 1e-3
    return report


def trainable(net: Any) -> int:
    """How many numbers training changes."""
    return sum(math.prod(p.shape) for p in net.parameters() if not p.stop_gradient)


@cache
def _pool() -> np.ndarray:
    return np.random.RandomState(0).standard_normal(1 << 20).astype("float32")


def draw_quickly(net: Any) -> None:
    """Gives a large network weights that leave nothing at zero or one, in no time."""
    for name, value in net.state_dict().items():
        noise = np.resize(_pool(), value.shape)
        if value.ndim > 1:
            scale = math.prod(value.shape[1:] if value.ndim == 4 else value.shape[:1]) ** -0.5
            value.set_value(noise * scale)
        else:
            value.set_value(0.1 * noise + (0.0 if name.endswith(("_mean", "bias")) else 1.0))


def draw_state(layer: Any) -> None:
    """Gives a layer weights and running statistics that leave nothing at zero or one."""
    state = layer.state_dict()
    shapes = {name: list(value.shape) for name, value in state.items()}
    for name, value in formulas().state_dict(shapes).items():
        state[name].set_value(value)
