"""SqueezeNet: its two versions, and where PaddleClas and torchvision differ."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import published
import pytest
from paddle.static import InputSpec

import ppcls
from ppcls.backbones.squeezenet import Fire

TORCHVISION = {"stem_padding": 0, "ceil_pool": True, "dropout_mode": "upscale_in_train"}


def pixels(side=33, channels=3):
    return paddle.to_tensor(
        np.random.RandomState(0).randn(2, channels, side, side).astype("float32")
    )


# Parameters: torchvision's. Multiply-adds: 1.0 is the reference's of PaddleClas, 1.1 torchvision's
# published 0.349 G, which it owes to a stem without padding.
@pytest.mark.parametrize(
    ("name", "arguments", "size", "macs"),
    [
        ("SqueezeNet1_0", {}, 1_248_424, 777_221_152),
        ("SqueezeNet1_0", TORCHVISION, 1_248_424, 818_924_576),
        ("SqueezeNet1_1", {}, 1_235_496, 349_537_280),
        ("SqueezeNet1_1", TORCHVISION, 1_235_496, 349_151_936),
    ],
)
def test_sizes_are_the_published_ones(name, arguments, size, macs):
    net = ppcls.create_model(name, **arguments)
    assert published.trainable(net) == size
    assert ppcls.count_macs(net, 224) == macs


@pytest.mark.parametrize(
    ("name", "arguments", "cells"),
    [
        ("SqueezeNet1_0", {}, [109, 54, 26, 12]),
        ("SqueezeNet1_0", TORCHVISION, [109, 54, 27, 13]),
        ("SqueezeNet1_1", {}, [112, 55, 27, 13]),
        ("SqueezeNet1_1", TORCHVISION, [111, 55, 27, 13]),
    ],
)
def test_maps_have_the_published_sizes(name, arguments, cells):
    net = ppcls.create_model(name, class_num=2, **arguments)
    net.eval()
    assert [m.shape[2] for m in net.features(pixels(224))] == cells


def test_a_fire_module_joins_two_windows_on_the_squeezed_map():
    paddle.seed(1)
    fire, x = Fire(6, 3, 10), pixels(5, 6)
    squeezed = F.relu(fire.squeeze.conv(x))
    assert squeezed.shape == [2, 3, 5, 5]
    out = fire(x).numpy()
    np.testing.assert_array_equal(out[:, :5], F.relu(fire.expand1x1.conv(squeezed)).numpy())
    np.testing.assert_array_equal(out[:, 5:], F.relu(fire.expand3x3.conv(squeezed)).numpy())


@pytest.mark.parametrize("mode", ["downscale_in_infer", "upscale_in_train"])
def test_logits_are_means_of_the_rectified_map(mode):
    net = ppcls.create_model("SqueezeNet1_1", class_num=5, dropout=0.25, dropout_mode=mode)
    net.eval()
    images = pixels(65)
    features = net.features(images)[-1] * (0.75 if mode == "downscale_in_infer" else 1.0)
    expected = F.relu(net.classifier.conv(features)).mean(axis=[2, 3])
    np.testing.assert_allclose(net(images).numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)
    assert expected.numpy().max() > 0


@pytest.mark.parametrize("name", ["SqueezeNet1_0", "SqueezeNet1_1"])
def test_what_torchvisions_weights_need_can_be_given_as_arguments(name):
    net = ppcls.create_model(name, class_num=4)
    other = ppcls.create_model(name, class_num=4, **TORCHVISION)
    settings = next(n.settings for n in net.namings() if n.library == "torchvision")
    assert settings == TORCHVISION
    other.set_state_dict(net.state_dict())
    net.eval()
    other.eval()
    images = pixels(47)
    before = net(images).numpy()
    changed = net.adopt(**TORCHVISION)
    assert changed.keys() == {k for k in TORCHVISION if name == "SqueezeNet1_1"} | {
        "ceil_pool",
        "dropout_mode",
    }
    assert net.adopt(**TORCHVISION) == {}
    assert not np.allclose(net(images).numpy(), before)
    np.testing.assert_array_equal(net(images).numpy(), other(images).numpy())


@pytest.mark.parametrize("ceil_pool", [False, True])
def test_small_pictures_work(ceil_pool):
    net = ppcls.create_model("SqueezeNet1_0", class_num=4, ceil_pool=ceil_pool)
    net.eval()
    for side in (7, 9, 16, 32, 34):
        images = pixels(side)
        assert net.features(images)[-1].shape[2:] == [1, 1]
        assert net(images).shape == [2, 4]


def test_pooling_is_the_ordinary_one_where_the_window_fits():
    pool = ppcls.create_model("SqueezeNet1_1", class_num=2).stages[0].pool
    for side in (3, 4, 8):
        x = pixels(side)
        np.testing.assert_array_equal(pool(x).numpy(), F.max_pool2d(x, 3, 2).numpy())
    np.testing.assert_array_equal(pool(pixels(2)).numpy()[..., 0, 0], pixels(2).max([2, 3]).numpy())


def test_a_new_classifier_takes_over_the_layout():
    net = ppcls.create_model("SqueezeNet1_1", class_num=4, data_format="NHWC")
    net.reset_classifier(6)
    net.eval()
    assert net(pixels()).shape == [2, 6]


def test_an_export_may_leave_the_size_of_pictures_open(tmp_path):
    net = ppcls.create_model("SqueezeNet1_0", class_num=4)
    net.eval()
    expected = {side: net(pixels(side)).numpy() for side in (47, 65)}
    spec = [InputSpec([None, 3, None, None], "float32")]
    paddle.jit.save(
        paddle.jit.to_static(net, input_spec=spec, full_graph=True), str(tmp_path / "net")
    )
    loaded = paddle.jit.load(str(tmp_path / "net"))
    loaded.eval()
    for side, logits in expected.items():
        np.testing.assert_allclose(loaded(pixels(side)).numpy(), logits, rtol=1e-4, atol=1e-6)
