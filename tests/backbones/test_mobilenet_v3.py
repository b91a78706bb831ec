"""MobileNetV3: its tables, its two designs, and its blocks."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import published
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.layers import SqueezeExcitation
from ppcls.backbones.mobilenet_v3 import TABLES, InvertedResidual, Row

fill = published.formulas()


def build(name, **arguments):
    paddle.seed(3)
    return ppcls.create_model(name, class_num=5, **arguments)


def test_the_tables_are_the_papers():
    assert [row.stride for row in TABLES["large"]] == [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1]
    assert [row.stride for row in TABLES["small"]] == [2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1]
    squeezed = {table: [row.squeezed for row in rows] for table, rows in TABLES.items()}
    assert squeezed == {
        "large": [False] * 3 + [True] * 3 + [False] * 4 + [True] * 5,
        "small": [True, False, False] + [True] * 8,
    }
    hard_swish = {t: [row.act is nn.Hardswish for row in rows] for t, rows in TABLES.items()}
    assert hard_swish == {"large": [False] * 6 + [True] * 9, "small": [False] * 3 + [True] * 8}


@pytest.mark.parametrize(
    ("name", "millions"), [("MobileNetV3_small_x1_25", 3.62), ("MobileNetV3_large_x0_35", 2.10)]
)
def test_further_widths_have_the_size_that_paddleclas_gives(name, millions):
    assert published.trainable(ppcls.create_model(name)) / 1e6 == pytest.approx(millions, abs=0.01)


# torchvision's and timm's sizes.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("MobileNetV3_small_x0_5_paper", 1593224),
        ("MobileNetV3_small_x0_75_paper", 2041872),
        ("MobileNetV3_small_x1_0_paper", 2542856),
        ("MobileNetV3_large_x0_75_paper", 3993528),
        ("MobileNetV3_large_x1_0_paper", 5483032),
    ],
)
def test_the_papers_networks_have_the_known_size(name, parameters):
    assert published.trainable(ppcls.create_model(name)) == parameters


def test_the_papers_networks_cost_what_the_paper_says():
    """Table 3: millions of multiply-adds."""
    for name, macs in (("small", 56), ("large", 219)):
        net = ppcls.create_model(f"MobileNetV3_{name}_x1_0_paper")
        assert ppcls.count_macs(net, 224) / 1e6 == pytest.approx(macs, rel=0.015)


def squeezed_widths(net):
    return [
        (layer.reduce.weight.shape[1], layer.reduce.weight.shape[0])
        for layer in net.sublayers()
        if isinstance(layer, SqueezeExcitation)
    ]


def test_where_the_designs_differ():
    ours, papers = build("MobileNetV3_small_x1_0"), build("MobileNetV3_small_x1_0_paper")
    assert ours.num_features == 1280
    assert papers.num_features == 1024
    assert ours.head.last.bias is None
    assert papers.head.last.bias is not None
    assert list(ours.stages[0][0].path._sub_layers) == ["expand", "depthwise", "squeeze", "project"]
    assert list(papers.stages[0][0].path._sub_layers) == ["depthwise", "squeeze", "project"]
    middles = [16, 96, 240, 240, 120, 144, 288, 576, 576]
    assert squeezed_widths(ours) == [(c, c // 4) for c in middles]
    rounded = [8, 24, 64, 64, 32, 40, 72, 144, 144]
    assert squeezed_widths(papers) == list(zip(middles, rounded, strict=True))
    assert [naming.library for naming in ours.namings()] == ["PaddleClas"]
    assert [naming.library for naming in papers.namings()] == ["torchvision", "timm"]


def test_a_narrow_middle_keeps_its_ratio_in_the_papers_design():
    for name, hidden in (("MobileNetV3_small_x0_75", 64), ("MobileNetV3_small_x0_75_paper", 88)):
        assert build(name).stages[1][1].path.depthwise.conv.weight.shape[0] == hidden


@pytest.mark.parametrize(
    ("name", "factor"), [("MobileNetV3_small_x0_5", 0.75), ("MobileNetV3_small_x0_5_paper", 1.0)]
)
def test_published_weights_expect_dropout_to_scale_in_evaluation(name, factor):
    net = build(name, dropout=0.25)
    net.eval()
    vector = paddle.to_tensor([[1.0, -2.0, 4.0]])
    np.testing.assert_allclose(net.dropout(vector).numpy(), vector.numpy() * factor)


# The block ---------------------------------------------------------------------------------------


def by_hand(path, x, kernel, stride, slope, epsilon=1e-5):
    def conv_norm(layer, x, stride=1, padding=0, groups=1):
        x = F.conv2d(x, layer.conv.weight, None, stride, padding, groups=groups)
        norm = layer.norm
        mean, variance, factor, offset = (
            value.reshape([1, -1, 1, 1])
            for value in (norm._mean, norm._variance, norm.weight, norm.bias)
        )
        return (x - mean) / (variance + epsilon).sqrt() * factor + offset

    def hard_swish(x):
        return x * (x + 3).clip(0, 6) / 6

    x = hard_swish(conv_norm(path.expand, x))
    x = hard_swish(conv_norm(path.depthwise, x, stride, kernel // 2, x.shape[1]))
    squeeze = path.squeeze
    means = x.mean([2, 3], keepdim=True)
    inner = F.conv2d(means, squeeze.reduce.weight, squeeze.reduce.bias).clip(min=0)
    gate = (F.conv2d(inner, squeeze.expand.weight, squeeze.expand.bias) * slope + 0.5).clip(0, 1)
    return conv_norm(path.project, x * gate)


@pytest.mark.parametrize(("kernel", "stride", "channels_out"), [(3, 1, 8), (5, 2, 8), (5, 1, 16)])
def test_the_block_does_what_the_paper_says(kernel, stride, channels_out):
    row = Row(kernel, 24, channels_out, True, nn.Hardswish, stride)
    block = InvertedResidual(8, 24, channels_out, row, 6, True, 0.0)
    for name, value in block.state_dict().items():
        value.set_value(fill.tensor(name, tuple(value.shape)))
    block.eval()
    x = paddle.to_tensor(np.random.RandomState(3).randn(2, 8, 9, 9).astype("float32"))
    expected = by_hand(block.path, x, kernel, stride, 1 / 6).numpy()
    if (stride, channels_out) == (1, 8):
        expected = expected + x.numpy()
    np.testing.assert_allclose(block(x).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_settings_reach_every_layer():
    net = build("MobileNetV3_small_x0_35", gate_slope=0.3, epsilon=0.01, momentum=0.5)
    gates = [layer.slope for layer in net.sublayers() if hasattr(layer, "slope")]
    assert len(gates) == 9
    assert set(gates) == {0.3}
    norms = [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    assert {(norm._epsilon, norm._momentum) for norm in norms} == {(0.01, 0.5)}
    defaults = build("MobileNetV3_small_x0_35").settings
    assert (defaults["gate_slope"], defaults["epsilon"], defaults["momentum"]) == (0.2, 1e-5, 0.9)


def test_only_normalisations_never_decay():
    net = build("MobileNetV3_small_x0_35")
    undecayed = net.no_weight_decay()
    assert undecayed == {
        name for name, p in net.named_parameters() if name.endswith((".norm.weight", ".norm.bias"))
    }
    assert len(undecayed) == 2 * 35
