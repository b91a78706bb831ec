"""ShuffleNetV2: sizes that are not among the reference figures, and its unit."""

from __future__ import annotations

import numpy as np
import paddle
import published
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.shufflenet_v2 import ShuffleUnit


def unit(stride, channels_out=12):
    paddle.seed(3)
    layer = ShuffleUnit(8 if stride == 2 else channels_out, channels_out, stride, nn.ReLU)
    layer.eval()
    return layer


def pixels(channels, side=5):
    return paddle.to_tensor(
        np.random.RandomState(0).randn(2, channels, side, side).astype("float32")
    )


def test_width_1_5_has_the_size_of_torchvisions():
    net = ppcls.create_model("ShuffleNetV2_x1_5")
    assert published.trainable(net) == 3_503_624
    assert abs(ppcls.count_macs(net, 224) / 1e6 - 296) < 1


def test_width_0_33_is_as_deep_as_the_others():
    net = ppcls.create_model("ShuffleNetV2_x0_33")
    assert [info.channels for info in net.feature_info] == [24, 24, 32, 64, 128]
    assert [info.stride for info in net.feature_info] == [2, 4, 8, 16, 32]
    assert net.num_features == 512
    assert [len(stage) for stage in list(net.stages)[1:]] == [4, 8, 4]


def test_half_of_the_channels_pass_untouched_and_alternate_with_the_others():
    layer, x = unit(stride=1), pixels(12)
    out = layer(x).numpy()
    np.testing.assert_array_equal(out[:, 0::2], x.numpy()[:, :6])
    np.testing.assert_array_equal(out[:, 1::2], layer.path(x[:, 6:]).numpy())


def test_with_stride_2_both_branches_see_all_channels():
    layer, x = unit(stride=2), pixels(8)
    out = layer(x).numpy()
    assert out.shape == (2, 12, 3, 3)
    np.testing.assert_array_equal(out[:, 0::2], layer.shortcut(x).numpy())
    np.testing.assert_array_equal(out[:, 1::2], layer.path(x).numpy())


def test_the_units_also_work_channels_last():
    for stride, channels in ((1, 12), (2, 8)):
        layer, x = unit(stride), pixels(channels)
        out = layer(x).numpy()
        ppcls.backbones.layers.change_settings(layer, data_format="NHWC")
        last = layer(x.transpose([0, 2, 3, 1])).numpy().transpose(0, 3, 1, 2)
        np.testing.assert_allclose(last, out, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "act"), [("x1_0", nn.ReLU), ("swish", nn.Swish)])
def test_only_depthwise_convolutions_have_no_activation(name, act):
    net = ppcls.create_model(f"ShuffleNetV2_{name}", class_num=3)
    followed = {
        key: [type(layer) for layer in sequence.children()]
        for key, sequence in net.named_sublayers()
        if hasattr(sequence, "norm")
    }
    assert len(followed) == 56
    for key, types in followed.items():
        linear = key.endswith("depthwise")
        assert types == [nn.Conv2D, nn.BatchNorm2D, *([] if linear else [act])], key
