"""``ppcls.count_macs``: closed forms, the published networks, and that nothing is left behind."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from zero_weights import zero_weights

import ppcls
from ppcls.backbones.layers import AttentionProduct
from ppcls.ops import network as kernels
from ppcls.ops.library import BuildError
from ppcls.registry import BACKBONES

REFERENCE = Path(__file__).parents[1] / "reference" / "published.json.gz"
PUBLISHED = json.loads(gzip.decompress(REFERENCE.read_bytes()))
LARGE = 40_000_000  # parameters; building such a network takes seconds


class Tokens(nn.Layer):
    """Rows of pixels as tokens, which attend to each other with four heads."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.attend = AttentionProduct()

    def forward(self, x):
        tokens = x.flatten(2).transpose([0, 2, 1])
        n, length, channels = tokens.shape
        parts = self.qkv(tokens).reshape([n, length, 3, self.heads, channels // self.heads])
        q, k, v = parts.transpose([2, 0, 3, 1, 4])
        return self.attend(q, k, v, scale=0.5)


@pytest.mark.parametrize(
    ("layer", "channels", "expected"),
    [
        (nn.Conv2D(3, 8, 3, stride=2, padding=1), 3, 12 * 10 * 8 * 3 * 9),
        (nn.Conv2D(6, 8, 3, padding=1, groups=2), 6, 24 * 20 * 8 * 3 * 9),
        (nn.Conv2D(6, 6, 5, padding=2, groups=6), 6, 24 * 20 * 6 * 25),
        (nn.Conv2D(6, 6, (1, 3), padding="SAME", dilation=2), 6, 24 * 20 * 6 * 6 * 3),
        (nn.Conv2D(3, 8, 4, stride=4, padding="VALID"), 3, 6 * 5 * 8 * 3 * 16),
        (nn.Sequential(nn.Flatten(), nn.Linear(480 * 2, 7)), 2, 480 * 2 * 7),
        (nn.Sequential(nn.Flatten(2), nn.Linear(480, 7)), 2, 2 * 480 * 7),
        (nn.Sequential(nn.BatchNorm2D(2), nn.ReLU(), nn.AvgPool2D(2)), 2, 0),
    ],
)
def test_single_layers(layer, channels, expected):
    assert ppcls.count_macs(layer, (24, 20), channels) == expected


def test_attention():
    net = Tokens(channels=8, heads=4)
    linear = 48 * 8 * 24
    assert ppcls.count_macs(net, (6, 8), 8, attention=False) == linear
    assert ppcls.count_macs(net, (6, 8), 8) == linear + 2 * 4 * 48 * 48 * 2


def test_a_convolution_of_maps_whose_channels_come_last():
    class Last(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(4, 6, 3, padding=1, data_format="NHWC")

        def forward(self, x):
            return self.conv(x.transpose([0, 2, 3, 1]))

    assert ppcls.count_macs(Last(), 10, 4) == 100 * 6 * 4 * 9


def test_a_layer_that_is_called_twice_counts_twice():
    conv = nn.Conv2D(3, 3, 1)
    assert ppcls.count_macs(nn.Sequential(conv, nn.ReLU(), conv), 5) == 2 * 25 * 9


def outputs(net, size, kinds):
    """Layers of some kinds, each with the shape of its output for one image."""
    seen = []
    for layer in net.sublayers():
        if isinstance(layer, kinds):
            layer.register_forward_post_hook(lambda x, _, out: seen.append((x, out.shape)))
    net.eval()
    with paddle.no_grad():
        net(paddle.zeros([1, 3, size, size]))
    return seen


def cut_off(net, size):
    """EfficientNets: published ones compute a row and a column more than needed, and cut it off."""
    strided = [
        (conv, shape)
        for conv, shape in outputs(net, size, nn.Conv2D)
        if conv._stride[0] == 2 and len(set(conv._padding)) > 1
    ]
    return sum((2 * shape[-1] + 1) * math.prod(conv.weight.shape) for conv, shape in strided)


def of_other_windows(net, size):
    """Swin: a batch of windows counted as one of images, so that only one window was counted."""
    arguments = BACKBONES.entry(net.arch_name).arguments()
    depths, width, window = (arguments[name].default for name in ("depths", "width", "window"))
    total = 0
    rows = size // 4
    for stage, depth in enumerate(depths):
        channels, window = width * 2**stage, min(window, rows)
        # Queries, keys, values and the projection behind them are linear layers of windows.
        total += depth * 4 * channels**2 * (rows**2 - window**2)
        rows //= 2
    return total


def of_other_patches(net, size):
    """MobileViT: the same, for the places within a patch of 2 x 2."""
    linear = outputs(net, size, nn.Linear)
    return sum(
        math.prod(shape[1:]) * (shape[0] - 1) * layer.weight.shape[0] for layer, shape in linear
    )


# Where the reference counts otherwise: what it counts more, what it counts less.
OTHERWISE = {
    "EfficientNet": (cut_off, None),
    "SwinTransformer": (None, of_other_windows),
    "MobileViT": (None, of_other_patches),
}


def published(name):
    large = PUBLISHED[name]["trainable_params"] > LARGE
    return pytest.param(name, marks=[pytest.mark.slow] if large else [])


@pytest.mark.parametrize("name", [published(name) for name in PUBLISHED])
def test_published_networks(name):
    expected = PUBLISHED[name]["conv_linear_macs"]
    size = PUBLISHED[name]["image_size"]
    with zero_weights():
        net = ppcls.create_model(name)
    counted = ppcls.count_macs(net, size, attention=False)
    ways = (ways for start, ways in OTHERWISE.items() if name.startswith(start))
    more, less = next(ways, (None, None))
    expected -= more(net, size) if more else 0
    expected += less(net, size) if less else 0
    assert counted == expected


def test_the_network_is_left_as_it_was():
    net = ppcls.create_model("MobileNeXt_x0_1", class_num=3)
    net.train()
    net.blocks[2].eval()
    modes = [layer.training for layer in net.sublayers(include_self=True)]
    state = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    paddle.seed(5)
    drawn = paddle.rand([1]).item()
    paddle.seed(5)
    ppcls.count_macs(net, 32)
    assert paddle.rand([1]).item() == drawn
    assert [layer.training for layer in net.sublayers(include_self=True)] == modes
    assert not any(layer._forward_post_hooks for layer in net.sublayers(include_self=True))
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name], name)


def test_a_network_that_fails_is_left_as_it_was_too():
    net = nn.Sequential(nn.Conv2D(3, 4, 3), nn.Linear(7, 2))
    with pytest.raises(ValueError):
        ppcls.count_macs(net, 5)
    assert all(layer.training for layer in net.sublayers(include_self=True))
    assert not any(layer._forward_post_hooks for layer in net.sublayers(include_self=True))


def test_kernels_stay_in_and_do_not_change_the_count():
    net = ppcls.create_model("MobileNeXt_x0_1", class_num=3)
    before = ppcls.count_macs(net, 64)
    try:
        served = kernels.accelerate(net)
    except BuildError as error:
        pytest.skip(str(error))
    assert served
    ways = [layer.__dict__.get("forward") for layer in net.sublayers(include_self=True)]
    assert ppcls.count_macs(net, 64) == before
    assert [layer.__dict__.get("forward") for layer in net.sublayers(include_self=True)] == ways
