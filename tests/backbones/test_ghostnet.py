"""GhostNet: its blocks, and where PaddleClas differs from the authors, whose weights timm has."""

from __future__ import annotations

import json

import numpy as np
import paddle
import paddle.nn.functional as F
import published
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.ghostnet import STAGES, GhostBottleneck, GhostModule, HardSigmoid
from ppcls.errors import WeightsError

TIMM = json.loads((published.REFERENCE / "torch" / "timm-ghostnet_100.json").read_text())


def pixels(channels, side=5):
    return paddle.to_tensor(
        np.random.RandomState(0).randn(2, channels, side, side).astype("float32")
    )


def test_the_table_is_the_papers():
    rows = [row for stage in STAGES for row in stage]
    assert len(rows) == 16
    assert [stage[0][4] for stage in STAGES] == [1, 2, 2, 2, 2]
    assert all(s == 1 for stage in STAGES for *_, s in stage[1:])


def test_width_1_3_has_the_published_size():
    net = ppcls.create_model("GhostNet_x1_3")
    assert round(published.trainable(net) / 1e6, 3) == 7.353
    assert abs(ppcls.count_macs(net, 224) / 1e6 - 226) < 2  # the paper's figure


def test_the_network_for_timms_weights_is_as_large_as_timms():
    # timm's head has one bias where this one has a factor and an offset of a normalisation.
    assert published.trainable(ppcls.create_model("GhostNet_x1_0_timm")) == 5_182_508 + 1280


def test_squeezed_widths():
    def widths(name):
        net = ppcls.create_model(name, class_num=2)
        return [w.shape[0] for k, w in net.state_dict().items() if "squeeze.reduce.weight" in k]

    assert widths("GhostNet_x1_0") == [18, 30, 120, 168, 168, 240, 240]
    assert widths("GhostNet_x1_0_timm") == [20, 32, 120, 168, 168, 240, 240]


def test_timms_weights_do_not_fit_the_published_network():
    weights = published.formulas().state_dict(TIMM["state_dict"])
    with pytest.raises(WeightsError, match=r"squeeze\.reduce\.weight: source \[20, 72, 1, 1\]"):
        ppcls.load_weights(ppcls.create_model("GhostNet_x1_0"), weights)


@pytest.mark.parametrize("act", [None, nn.ReLU])
def test_half_of_a_map_is_a_depthwise_convolution_of_the_other_half(act):
    paddle.seed(2)
    module, x = GhostModule(6, 10, act), pixels(6)
    module.eval()
    out = module(x).numpy()
    rectify = F.relu if act else lambda y: y
    primary = rectify(module.primary.norm(module.primary.conv(x)))
    cheap = rectify(module.cheap.norm(module.cheap.conv(primary)))
    np.testing.assert_allclose(out[:, :5], primary.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out[:, 5:], cheap.numpy(), rtol=1e-5, atol=1e-6)
    assert module.cheap.conv.weight.shape == [5, 1, 3, 3]
    assert (out.min() < 0) == (act is None)


@pytest.mark.parametrize(
    ("stride", "channels_out", "parts"),
    [
        (1, 8, ["ghost1", "squeeze", "ghost2"]),
        (1, 12, ["ghost1", "squeeze", "ghost2"]),
        (2, 8, ["ghost1", "depthwise", "squeeze", "ghost2"]),
    ],
)
def test_a_bottleneck_adds_its_path_to_the_shortcut(stride, channels_out, parts):
    paddle.seed(2)
    block, x = GhostBottleneck(8, 16, channels_out, 5, stride, 4, HardSigmoid, 0.0), pixels(8)
    block.eval()
    assert list(block.path._sub_layers) == parts
    plain = stride == 1 and channels_out == 8
    shortcut = x if plain else block.shortcut(x)
    assert hasattr(block, "shortcut") != plain
    np.testing.assert_array_equal(block(x).numpy(), (block.path(x) + shortcut).numpy())


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("GhostNet_x0_5", lambda x: x.clip(0, 1)),
        ("GhostNet_x1_0_timm", lambda x: (x / 6 + 0.5).clip(0, 1)),
    ],
)
def test_gates(name, gate):
    net = ppcls.create_model(name, class_num=2)
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    squeeze = net.stages[2][0].path.squeeze
    np.testing.assert_allclose(squeeze.gate(paddle.to_tensor(x)).numpy(), gate(x), atol=1e-6)


def test_normalisations_do_not_decay():
    net = ppcls.create_model("GhostNet_x0_5", class_num=2)
    norms = sum(isinstance(layer, nn.BatchNorm2D) for layer in net.sublayers())
    assert len(net.no_weight_decay()) == 2 * norms
    assert all(".norm." in name for name in net.no_weight_decay())
