"""PP-LCNetV2: depthwise convolutions of several sizes, and their fusion."""

from __future__ import annotations

import math

import numpy as np
import paddle
import published
import pytest

import ppcls
from ppcls.backbones.pp_lcnet_v2 import STAGES, MultiSizeDepthwise
from ppcls.errors import WeightsError

fill = published.formulas()


def small(class_num=5):
    net = ppcls.create_model("PPLCNetV2_small", class_num)
    published.draw_state(net)
    net.eval()
    return net


def images(side=64):
    return paddle.to_tensor(fill.images(side))


def fused_names(net):
    return {name for name, _ in net.named_parameters() if ".fused." in name}


def test_the_table_is_the_published_one():
    assert [row[0] for row in STAGES] == [128, 256, 512, 1024]
    net = ppcls.create_model("PPLCNetV2_large")
    blocks = [[block.path.depthwise for block in stage] for stage in net.stages]
    sizes = [[len(getattr(x, "branches", "-")) for x in stage] for stage in blocks]
    assert sizes == [[1, 1], [1, 1], [2] + [3] * 7, [2, 3]]
    shortcuts = [[block.has_shortcut for block in stage] for stage in net.stages]
    assert shortcuts == [[False, False], [False, False], [False] * 8, [False, True]]
    assert published.trainable(net) == 10_716_840  # as published: with the fused convolutions


@pytest.mark.parametrize(("stride", "sizes"), [(1, [5, 3, 1]), (2, [5, 3])])
def test_all_sizes_are_summed(stride, sizes):
    layer = MultiSizeDepthwise(4, 5, stride)
    published.draw_state(layer)
    layer.eval()
    assert [branch.conv.weight.shape[-1] for branch in layer.branches] == sizes
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 4, 9, 8)).astype("float32"))
    expected = sum(branch.norm(branch.conv(x)) for branch in layer.branches)
    np.testing.assert_allclose(layer(x).numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.fuse()(x).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [64, 33])
def test_a_fused_network_answers_as_before(side):
    net = small()
    logits, before = net(images(side)).numpy(), published.trainable(net)
    branches = sum(
        math.prod(p.shape)
        for layer in net.sublayers()
        if isinstance(layer, MultiSizeDepthwise)
        for p in layer.branches.parameters()
        if not p.stop_gradient
    )
    macs = ppcls.count_macs(net, side)
    net.fuse()
    np.testing.assert_allclose(net(images(side)).numpy(), logits, rtol=0, atol=1e-5 * logits.std())
    assert published.trainable(net) == before - branches
    assert ppcls.count_macs(net, side) < macs
    assert not any(isinstance(layer, MultiSizeDepthwise) for layer in net.sublayers())
    net.fuse()
    np.testing.assert_allclose(net(images(side)).numpy(), logits, rtol=0, atol=1e-5 * logits.std())


def test_a_fused_network_can_be_trained_and_exported(tmp_path):
    net = small()
    net.fuse()
    net.train()
    net(images(32)).sum().backward()
    assert all(p.grad is not None for p in net.parameters() if not p.stop_gradient)
    net.eval()
    expected = net(images()).numpy()
    spec = paddle.static.InputSpec([None, 3, 64, 64], "float32")
    static = paddle.jit.to_static(net, input_spec=[spec], full_graph=True)
    paddle.jit.save(static, str(tmp_path / "net"))
    loaded = paddle.jit.load(str(tmp_path / "net"))
    np.testing.assert_allclose(
        loaded(images()).numpy(), expected, rtol=0, atol=1e-5 * expected.std()
    )


def test_published_weights_do_not_load_once_the_network_is_fused():
    net = small()
    naming = net.namings()[0]
    weights = {naming.rename(k): v.numpy() for k, v in net.state_dict().items()}
    assert "stages.2.0.dw_conv.bias" in weights
    net.fuse()
    with pytest.raises(WeightsError):
        ppcls.load_weights(net, weights)
    assert ppcls.load_weights(small(), weights).library == "PaddleClas"


def test_the_fused_convolutions_are_idle_until_then():
    net = small()
    names = fused_names(net)
    assert len(names) == 2 * 6
    logits = net(images()).numpy()
    for name, parameter in net.named_parameters():
        if name in names:
            parameter.set_value(parameter + 1.0)
    np.testing.assert_array_equal(net(images()).numpy(), logits)
    net.train()
    (net(images()) * paddle.to_tensor([1.0, -1.0, 2.0, 0.0, 3.0])).sum().backward()
    zero = {name for name, p in net.named_parameters() if p.grad is not None and not p.grad.any()}
    assert zero & names == names
    assert not any(".branches." in name for name in zero)
