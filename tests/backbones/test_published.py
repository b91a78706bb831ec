"""Weights published by PaddleClas, torchvision and timm: they load, and mean the same here."""

from __future__ import annotations

import json

import published
import pytest

import ppcls

PADDLECLAS = published.figures()
TORCH = {path.stem: path for path in sorted((published.REFERENCE / "torch").glob("*.json"))}
LARGE, HUGE = 3_000_000_000, 10_000_000_000  # multiply-adds of an image
# Single precision decides nothing there: a millionth of the image moves the logits by more than
# their spread. test_efficientnet_v2.py compares in double precision.
CHAOTIC = {"EfficientNetV2_S"}
# Where single precision ends: the published code itself is 3e-4 from double precision.
TOLERANCES = {"GhostNet_x0_5": 1e-3, "GhostNet_x1_0": 1e-3}


def heavy(name, macs):
    return pytest.param(name, marks=[pytest.mark.slow] if macs > LARGE else [])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [heavy(n, f["conv_linear_macs"]) for n, f in PADDLECLAS.items()])
def test_paddleclas(name):
    expected = PADDLECLAS[name]
    net = ppcls.create_model(name)
    trainable = published.trainable(net)
    assert trainable == expected["trainable_params"]
    if name in CHAOTIC:
        report = ppcls.load_weights(net, published.formulas().state_dict(expected["state_dict"]))
    else:
        images = 1 if expected["conv_linear_macs"] > HUGE else 2
        report = published.check_logits(net, expected, TOLERANCES.get(name, 1e-4), images)
    assert report.library in ("PaddleClas", None)
    assert report.missing == report.unexpected == []
    assert report.mismatched == report.adopted == {}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fixture", TORCH)
def test_pytorch(fixture):
    expected = json.loads(TORCH[fixture].read_text())
    net = ppcls.create_model(expected["network"])
    report = published.check_logits(net, expected)
    assert report.library == expected["library"]
    assert report.missing == report.unexpected == []
    assert set(report.adopted) <= set(
        ppcls.registry.BACKBONES.entry(expected["network"]).arguments()
    )
