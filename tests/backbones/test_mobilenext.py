"""MobileNeXt: the published networks, and its block."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import paddle
import paddle.nn.functional as F
import published
import pytest

import ppcls
from ppcls.backbones.layers import make_divisible
from ppcls.backbones.mobilenext import ALIASES, STAGES, SandglassBlock

FIGURES = {k: v for k, v in published.figures().items() if k.startswith("MobileNeXt")}
fill = published.formulas()


@pytest.fixture(scope="module", params=sorted(FIGURES))
def network(request):
    return ppcls.create_model(request.param), FIGURES[request.param]


def test_names_shapes_and_order_are_the_published_ones(network):
    net, figures = network
    shapes = {name: list(value.shape) for name, value in net.state_dict().items()}
    assert shapes == figures["state_dict"]
    assert list(shapes) == list(figures["state_dict"])


@pytest.mark.parametrize(
    ("name", "millions"), [("MobileNeXt_x0_5", 2.152), ("MobileNeXt_x1_4", 6.126)]
)
def test_further_widths_have_the_published_size(name, millions):
    assert round(published.trainable(ppcls.create_model(name)) / 1e6, 3) == millions


def test_the_table_is_the_papers():
    assert sum(n for _, _, n, _ in STAGES) == 20
    assert math.prod(s for _, _, _, s in STAGES) * 2 == 32
    assert [c for _, c, _, _ in STAGES] == [96, 144, 192, 288, 384, 576, 960, 1280]


def test_published_aliases_are_the_same_networks():
    assert ALIASES["MobileNeXt_100"] == "MobileNeXt_x1_0"
    for alias, name in ALIASES.items():
        assert ppcls.registry.BACKBONES.entry(alias).preset == (
            ppcls.registry.BACKBONES.entry(name).preset
        )


@pytest.mark.parametrize(
    ("width", "divisor", "expected"),
    [
        (32, 8, 32),
        (33.6, 8, 32),
        (36, 8, 40),
        (3.2, 4, 4),
        (11.2, 8, 16),
        (0.1, 8, 8),
        (96 * 0.35, 8, 32),
    ],
)
def test_widths_are_rounded_as_published(width, divisor, expected):
    assert make_divisible(width, divisor) == expected


# The block ---------------------------------------------------------------------------------------


def filled(layer):
    """The layer in evaluation mode, with weights unlike those of an initialisation."""
    for name, value in layer.state_dict().items():
        value.set_value(fill.tensor(name, tuple(value.shape)))
    layer.eval()
    return layer


def images(channels, side=7):
    return paddle.to_tensor(
        np.random.RandomState(3).randn(2, channels, side, side).astype("float32")
    )


def normalised(x, weights, name):
    shape = (1, -1, 1, 1)
    scale = weights[f"{name}.weight"] / np.sqrt(weights[f"{name}._variance"] + 1e-5)
    shift = weights[f"{name}.bias"] - weights[f"{name}._mean"] * scale
    return x * paddle.to_tensor(scale.reshape(shape)) + paddle.to_tensor(shift.reshape(shape))


def by_hand(block, x, stride=1):
    """Depthwise, reduce, expand, depthwise: Figure 3(c) of the paper, without the shortcut."""
    w = {name: value.numpy() for name, value in block.conv.state_dict().items()}
    kernel = {name: paddle.to_tensor(value) for name, value in w.items()}
    out = F.conv2d(x, kernel["0.weight"], padding=1, groups=x.shape[1])
    out = F.relu6(normalised(out, w, "1"))
    out = normalised(F.conv2d(out, kernel["3.weight"]), w, "4")
    out = F.relu6(normalised(F.conv2d(out, kernel["5.weight"]), w, "6"))
    out = F.conv2d(out, kernel["8.weight"], stride=stride, padding=1, groups=out.shape[1])
    return normalised(out, w, "9").numpy()


@pytest.mark.parametrize("share", ["1", "1/2", "1/3", "1/4", "1/6"])
@pytest.mark.parametrize("channels", [96, 100])
def test_the_shortcut_carries_its_share_of_the_channels(share, channels):
    share = Fraction(share)
    block = filled(SandglassBlock(channels, channels, 1, 6, False, float(share)))
    x = images(channels)
    carried = channels * share.numerator // share.denominator
    expected = by_hand(block, x)
    expected[:, :carried] += x.numpy()[:, :carried]
    np.testing.assert_allclose(block(x).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", ["1/2", "1/3", "1/4", "1/6"])
def test_every_block_of_a_network_carries_its_share(share):
    share = Fraction(share)
    net = ppcls.create_model("MobileNeXt_x0_35", identity_tensor_multiplier=float(share))
    blocks = [block for block in net.blocks if isinstance(block, SandglassBlock)]
    assert len(blocks) == 20
    shortcuts = 0
    for block in blocks:
        widths = [p.shape[0] for p in block.parameters() if p.ndim == 4]
        x = images(input_width(block), 4)
        out = filled(block)(x)
        if out.shape != x.shape:
            continue
        difference = (out - block.conv(x)).numpy()
        changed = np.abs(difference).reshape(2, widths[-1], -1).max(axis=(0, 2)) > 0
        carried = changed.sum()
        if carried:
            shortcuts += 1
            assert carried == widths[-1] * share.numerator // share.denominator
            assert changed[:carried].all()
    assert shortcuts == 12


def input_width(block):
    first = block.conv[0].weight.shape
    return first[0] if first[1] == 1 else first[1]


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "stride", "keep"),
    [
        (96, 96, 2, False),
        (96, 144, 1, False),
        (96, 144, 1, True),
        (96, 144, 2, False),
        (144, 96, 1, True),
    ],
)
def test_there_is_no_shortcut_where_the_shape_changes(channels_in, channels_out, stride, keep):
    block = filled(SandglassBlock(channels_in, channels_out, stride, 6, keep, 1.0))
    x = images(channels_in)
    side = math.ceil(7 / stride)
    assert block(x).shape == [2, channels_out, side, side]
    np.testing.assert_array_equal(block(x).numpy(), block.conv(x).numpy())
    if len(block.conv) == 10:
        np.testing.assert_allclose(
            block(x).numpy(), by_hand(block, x, stride), rtol=1e-4, atol=1e-4
        )


def test_initial_weights_are_those_of_the_authors():
    paddle.seed(3)
    net = ppcls.create_model("MobileNeXt_x1_0")
    for name, p in net.named_parameters():
        value = p.numpy()
        if p.ndim == 4 and value.size > 4000:
            fan_out = value.shape[0] * math.prod(value.shape[2:])
            assert value.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1), name
        elif p.ndim == 1:
            assert set(np.unique(value)) <= {0.0, 1.0}, name
    assert net.classifier[1].weight.numpy().std() == pytest.approx(0.01, rel=0.02)


def test_dropout_acts_in_training_only():
    net = ppcls.create_model("MobileNeXt_x0_1", dropout=0.5)
    pooled = paddle.ones([1, net.num_features])
    net.eval()
    assert paddle.equal_all(net.classifier[0](pooled), pooled)
    net.train()
    assert (net.classifier[0](pooled).numpy() == 0).any()


def test_a_share_of_the_channels_is_carried_in_either_layout():
    nets = [
        ppcls.create_model(
            "MobileNeXt_x0_1", 5, identity_tensor_multiplier=0.5, data_format=data_format
        )
        for data_format in ("NCHW", "NHWC")
    ]
    logits = []
    for net in nets:
        published.draw_state(net)
        net.eval()
        logits.append(net(images(3, 33)).numpy())
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-4, atol=1e-4 * logits[0].std())
