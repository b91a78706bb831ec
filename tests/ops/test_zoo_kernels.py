"""Networks of the zoo on the kernels, beside the same networks on Paddle's layers.

A family whose convolutions the kernels are meant to do adds a small network to ``NETWORKS``.
"""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from test_network import convolutions, differences, outcome, pictures

import ppcls
from ppcls.ops import accelerate
from ppcls.registry import BACKBONES

NETWORKS = [
    "MobileNetV1_x0_25",
    "MobileNetV2_x0_25",
    "MobileNetV3_small_x0_35",
    "MobileNetV3_small_x0_5_paper",
    "MnasNet_x0_5",
    "MobileNeXt_x0_35",
    "EfficientNetB0",
    "EfficientNet_lite0",
    "ShuffleNetV1_g3_x0_25",
    "ShuffleNetV2_x0_25",
    "SqueezeNet1_1",
    "GhostNet_x0_5",
    "GhostNet_x1_0_timm",
    "PPLCNet_x0_25",
    "PPLCNetV2_small",
    "ResNet18_vd",
    "SE_ResNet18_vd",
]
WITH_DROP_PATH = [n for n in NETWORKS if "drop_path_rate" in BACKBONES.entry(n).arguments()]
NEARLY_ALL = 0.95  # of a network's convolutions
LESS = {"PPLCNetV2_small": 0.85}  # its parallel depthwise branches are summed by Paddle


def build(name, **arguments):
    paddle.seed(4)
    return ppcls.create_model(name, class_num=5, **arguments).to(dtype="float64")


def drawn_outcome(net, seed=7):
    """What dropout and drop path leave out depends on the seed only."""
    paddle.seed(seed)
    return outcome(net, pictures(count=4, side=64))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step(name):
    net = build(name)
    expected = drawn_outcome(net)
    assert accelerate(net) >= LESS.get(name, NEARLY_ALL) * convolutions(net)
    actual = drawn_outcome(net)
    assert differences(actual, expected) == []
    assert len([key for key in actual if "gradient" in key]) == len(
        [p for p in net.parameters() if not p.stop_gradient]
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation(name):
    net = build(name)
    net.eval()
    images = pictures(side=65)
    with paddle.no_grad():
        expected = net(images).numpy()
        accelerate(net)
        np.testing.assert_allclose(net(images).numpy(), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", WITH_DROP_PATH)
def test_paths_are_dropped_alike(name):
    net = build(name, drop_path_rate=0.5, dropout=0.0)
    expected = drawn_outcome(net)
    accelerate(net)
    assert differences(drawn_outcome(net), expected) == []
    assert differences(drawn_outcome(net, seed=8), expected), "the seed decides"
