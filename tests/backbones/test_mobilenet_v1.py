"""MobileNetV1: its table, its block, and the activation that its weights need."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import published
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.mobilenet_v1 import STAGES, DepthwiseSeparable

fill = published.formulas()


def filled(layer):
    """The layer in evaluation mode, with weights unlike those of an initialisation."""
    for name, value in layer.state_dict().items():
        value.set_value(fill.tensor(name, tuple(value.shape)))
    layer.eval()
    return layer


def images(channels=3, side=32, scale=1.0):
    values = np.random.RandomState(3).randn(2, channels, side, side) * scale
    return paddle.to_tensor(values.astype("float32"))


def test_the_table_is_the_papers():
    widths = [c for c, n, _ in STAGES for _ in range(n)]
    assert widths == [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    assert [s for _, _, s in STAGES] == [1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("MobileNetV1_x0_25", 0.5, 41),
        ("MobileNetV1_x0_5", 1.3, 149),
        ("MobileNetV1_x0_75", 2.6, 325),
    ],
)
def test_narrow_networks_have_the_size_that_the_paper_gives(name, parameters, macs):
    """Table 6, millions."""
    net = ppcls.create_model(name)
    trainable = sum(p.size for p in net.parameters() if not p.stop_gradient)
    assert round(trainable / 1e6, 1) == parameters
    assert ppcls.count_macs(net, 224) / 1e6 == pytest.approx(macs, rel=0.005)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_block_does_what_the_paper_says(stride):
    block = filled(DepthwiseSeparable(6, 10, stride, nn.ReLU))
    x = images(6, 9)
    expected = x
    for part, groups, padding, step in (("depthwise", 6, 1, stride), ("pointwise", 1, 0, 1)):
        conv, norm = block[part].conv, block[part].norm
        expected = F.conv2d(expected, conv.weight, None, step, padding, groups=groups)
        mean, variance, factor, offset = (
            value.reshape([1, -1, 1, 1])
            for value in (norm._mean, norm._variance, norm.weight, norm.bias)
        )
        expected = (expected - mean) / (variance + 1e-5).sqrt() * factor + offset
        expected = expected.clip(min=0)
    assert block(x).shape == [2, 10, -(-9 // stride), -(-9 // stride)]
    np.testing.assert_allclose(block(x).numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_relu6_can_be_configured_and_adopted():
    nets = {}
    for act in ("relu", "relu6"):
        paddle.seed(3)
        nets[act] = filled(ppcls.create_model("MobileNetV1_x0_25", class_num=5, act=act))
    x = images(scale=50.0)
    plain, clipped = (net(x).numpy() for net in nets.values())
    assert not np.allclose(plain, clipped)
    assert nets["relu"].adopt(act="relu6") == {"act": "relu6"}
    np.testing.assert_array_equal(nets["relu"](x).numpy(), clipped)
    assert nets["relu"].adopt(act="relu6") == {}
    assert nets["relu"].adopt(act="relu", epsilon=1e-5) == {"act": "relu", "epsilon": 1e-5}
    np.testing.assert_array_equal(nets["relu"](x).numpy(), plain)
