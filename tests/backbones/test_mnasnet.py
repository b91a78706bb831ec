"""MnasNet-B1: its table, its size, and what training it needs to know."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.mnasnet import STAGES


# torchvision's networks, parameters and multiply-adds of convolutions and linear layers.
@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("MnasNet_x0_5", 2218512, 104455968),
        ("MnasNet_x0_75", 3170208, 215493104),
        ("MnasNet_x1_0", 4383312, 314415872),
        ("MnasNet_x1_3", 6282256, 526362432),
    ],
)
def test_the_networks_have_torchvisions_size(name, parameters, macs):
    net = ppcls.create_model(name)
    assert sum(p.size for p in net.parameters() if not p.stop_gradient) == parameters
    assert ppcls.count_macs(net, 224) == macs


def test_the_table_is_the_authors():
    assert sum(n for _, _, n, _, _ in STAGES) == 17
    assert [(t, k) for t, _, _, _, k in STAGES] == [
        (1, 3), (3, 3), (3, 5), (6, 5), (6, 3), (6, 5), (6, 3)
    ]  # fmt: skip


def test_only_blocks_that_expand_have_a_shortcut():
    # At this width the separable convolution at the start keeps its 8 channels.
    net = ppcls.create_model("MnasNet_x0_5", width=0.25, class_num=5)
    assert list(net.stages[0][0].path._sub_layers) == ["depthwise", "project"]
    has_shortcut = [[block.has_shortcut for block in stage] for stage in net.stages]
    assert not has_shortcut[0][0]
    assert [sum(stage) for stage in has_shortcut[1:]] == [2, 2, 2, 2, 3, 0]


def test_running_statistics_move_as_in_the_paper():
    """By a hundredth at each step (Section 5), not by torchvision's 0.0003."""
    net = ppcls.create_model("MnasNet_x0_5", class_num=5)
    norm = net.stem.norm
    net.train()
    x = paddle.to_tensor(np.random.RandomState(3).randn(4, 3, 32, 32).astype("float32"))
    mean = net.stem.conv(x).mean([0, 2, 3]).numpy()
    net(x)
    np.testing.assert_allclose(norm._mean.numpy(), 0.01 * mean, rtol=1e-3, atol=1e-6)
    norms = [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    assert len(norms) == 52
    assert {norm._momentum for norm in norms} == {0.99}


def test_initial_weights_are_those_of_the_authors():
    paddle.seed(3)
    net = ppcls.create_model("MnasNet_x1_0")
    depthwise = net.stages[5][1].path.depthwise.conv.weight.numpy()
    assert depthwise.shape == (1152, 1, 5, 5)
    assert depthwise.std() == pytest.approx((2 / 25) ** 0.5, rel=0.05)
    pointwise = net.stages[5][1].path.project.conv.weight.numpy()
    assert pointwise.std() == pytest.approx((2 / 192) ** 0.5, rel=0.05)
