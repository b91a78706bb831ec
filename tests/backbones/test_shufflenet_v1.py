"""ShuffleNet: the paper's and the authors' figures, and its unit."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import published
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.shufflenet_v1 import ALIASES, ShuffleUnit

# https://github.com/megvii-model/ShuffleNet-Series: millions of parameters and multiply-adds
AUTHORS = {
    "ShuffleNetV1_g3_x0_5": (0.7, 38),
    "ShuffleNetV1_g3_x1_0": (1.9, 138),
    "ShuffleNetV1_g3_x1_5": (3.4, 292),
    "ShuffleNetV1_g3_x2_0": (5.4, 524),
    "ShuffleNetV1_g8_x0_5": (1.0, 40),
    "ShuffleNetV1_g8_x1_0": (2.4, 138),
    "ShuffleNetV1_g8_x1_5": (4.3, 290),
    "ShuffleNetV1_g8_x2_0": (6.5, 522),
}
# Table 1 of the paper: millions of multiply-adds at width 1.0
PAPER = {1: 143, 2: 140, 3: 137, 4: 133, 8: 137}


def unit(groups=3, stride=1, channels_in=24, channels_out=24, first_groups=None):
    """A unit that has seen some data, in evaluation mode."""
    paddle.seed(3)
    first = groups if first_groups is None else first_groups
    layer = ShuffleUnit(channels_in, channels_out, stride, groups, first, drop_path=0.0)
    for norm in layer.sublayers():
        if isinstance(norm, nn.BatchNorm2D):
            norm._mean.set_value(paddle.randn(norm._mean.shape))
            norm._variance.set_value(paddle.rand(norm._variance.shape) + 0.5)
    layer.eval()
    return layer


def pixels(channels=24, side=5):
    return paddle.to_tensor(
        np.random.RandomState(0).randn(2, channels, side, side).astype("float32")
    )


@pytest.mark.parametrize(("name", "figures"), AUTHORS.items())
def test_sizes_are_the_authors(name, figures):
    net = ppcls.create_model(name)
    millions, macs = figures
    size = published.trainable(net) / 1e6
    assert abs(size - millions) < 0.06  # the figure is rounded, and theirs has no last bias
    assert abs(ppcls.count_macs(net, 224) / 1e6 - macs) < 0.6


@pytest.mark.parametrize(("groups", "macs"), PAPER.items())
def test_the_cost_is_the_papers_for_any_number_of_groups(groups, macs):
    net = ppcls.create_model(f"ShuffleNetV1_g{groups}_x1_0")
    assert abs(ppcls.count_macs(net, 224) / 1e6 / macs - 1) < 0.011


def test_three_groups_are_what_a_name_without_groups_means():
    assert {
        f"ShuffleNetV1_x{width}": f"ShuffleNetV1_g3_x{width}"
        for width in ("0_25", "0_5", "1_0", "1_5", "2_0")
    } == ALIASES


def test_all_pointwise_convolutions_but_the_first_are_grouped():
    net = ppcls.create_model("ShuffleNetV1_g4_x0_25")
    groups = [
        layer._groups
        for name, layer in net.named_sublayers()
        if name.endswith(("reduce.conv", "expand.conv"))
    ]
    assert groups == [1] + [4] * 31


def test_shuffling_may_take_place_on_either_side_of_the_depthwise_convolution():
    layer, x = unit(), pixels()
    reduce, depthwise, shuffle, expand = layer.path
    order = paddle.arange(6).reshape([3, 2]).transpose([1, 0]).flatten()
    shuffled = F.channel_shuffle(reduce(x), 3)
    np.testing.assert_array_equal(shuffled.numpy(), reduce(x).numpy()[:, order.numpy()])
    for value in depthwise.state_dict().values():
        value.set_value(value.numpy()[order.numpy()])
    as_in_the_paper = F.relu(expand(depthwise(shuffled)) + x).numpy()
    for value in depthwise.state_dict().values():
        value.set_value(value.numpy()[np.argsort(order.numpy())])
    np.testing.assert_allclose(layer(x).numpy(), as_in_the_paper, rtol=1e-5, atol=1e-6)
    assert isinstance(shuffle, nn.ChannelShuffle)


@pytest.mark.parametrize("shuffle", ["paper", "authors"])
def test_every_channel_sees_every_group(shuffle):
    layer, x = unit(groups=3, channels_in=108, channels_out=108), pixels(108)
    layer.set_shuffle(shuffle)
    x.stop_gradient = False
    for channel in (0, 40, 107):
        layer.path(x)[:, channel].sum().backward()
        seen = np.abs(x.grad.numpy()).reshape(2, 3, 36, -1).max(axis=(0, 2, 3))
        assert (seen > 0).all()
        x.clear_grad()


def test_the_authors_shuffle_undoes_the_papers():
    layer, x = unit(groups=4, channels_in=48, channels_out=48), pixels(12)
    shuffled = layer.path.shuffle(x)
    layer.set_shuffle("authors")
    np.testing.assert_array_equal(layer.path.shuffle(shuffled).numpy(), x.numpy())
    assert not np.array_equal(shuffled.numpy(), x.numpy())


def test_with_stride_2_the_averaged_shortcut_comes_first():
    layer, x = unit(stride=2, channels_in=24, channels_out=48), pixels()
    out = layer(x)
    assert out.shape == [2, 48, 3, 3]
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), (1, 1), (1, 1)])
    np.testing.assert_allclose(  # zeros around the map count
        out.numpy()[:, :24, 0, 1], padded[:, :, 0:3, 2:5].mean(axis=(2, 3)), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(out[:, 24:].numpy(), F.relu(layer.path(x)).numpy())


def test_the_setting_is_taken_over_once_and_kept():
    net = ppcls.create_model("ShuffleNetV1_g2_x0_25", class_num=4)
    other = ppcls.create_model("ShuffleNetV1_g2_x0_25", class_num=4, shuffle="authors")
    other.set_state_dict(net.state_dict())
    net.eval()
    other.eval()
    images = pixels(3, 33)
    assert not np.allclose(net(images).numpy(), other(images).numpy())
    assert net.adopt(shuffle="authors") == {"shuffle": "authors"}
    assert net.adopt(shuffle="authors") == {}
    np.testing.assert_array_equal(net(images).numpy(), other(images).numpy())
