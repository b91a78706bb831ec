"""ResNet and its descendants: tables, sizes, blocks, shortcuts, names."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import published
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.resnet import DEPTHS, VARIANTS, ResidualBlock, projection
from ppcls.errors import ArgumentError, WeightsError

fill = published.formulas()


def drawn(name, **arguments):
    net = ppcls.create_model(name, 5, **arguments)
    published.draw_state(net)
    net.eval()
    return net


def maps(channels, side=9, seed=0):
    shape = (2, channels, side, side)
    return paddle.to_tensor(np.random.default_rng(seed).normal(size=shape).astype("float32"))


def conv_norm(x, layer, **options):
    """Convolution and normalisation, written out."""
    y = F.conv2d(x, layer.conv.weight, **options)
    norm = layer.norm
    scale = norm.weight / (norm._variance + 1e-5).sqrt()
    shift = norm.bias - norm._mean * scale
    return y * scale.reshape([1, -1, 1, 1]) + shift.reshape([1, -1, 1, 1])


# Sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152, 200])
def test_the_depth_counts_layers_with_weights(depth):
    convolutions = 2 if depth < 50 else 3
    assert sum(DEPTHS[depth]) * convolutions + 2 == depth


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ResNet34_vd", 21816904 + 64 * 64 + 2 * 64),  # timm's resnet34d, and a first 1x1
        ("SE_ResNet50", 28088024),  # timm's seresnet50
        ("ResNeXt101_32x4d", 44177704),  # timm's
        ("ResNeXt50_64x4d", 45192488),
        pytest.param("ResNet152", 60192808, marks=pytest.mark.slow),  # torchvision's
        pytest.param("ResNet152_vd", 60212040, marks=pytest.mark.slow),  # timm's resnet152d
        pytest.param("ResNeXt101_32x8d", 88791336, marks=pytest.mark.slow),  # torchvision's
        pytest.param("ResNeXt101_64x4d", 83455272, marks=pytest.mark.slow),  # torchvision's
    ],
)
def test_further_networks_have_the_published_size(name, size):
    net = ppcls.create_model(name)
    assert published.trainable(net) == size


def test_names_say_what_is_built():
    for name, arguments in VARIANTS.items():
        depth = arguments["depth"]
        assert str(depth) in name
        assert arguments.get("squeeze", False) == name.startswith("SE_")
        assert arguments.get("deep_stem", False) == ("_vd" in name or "_vc" in name)
        assert arguments.get("pooled_shortcut", False) == ("_vd" in name)
        groups, width = arguments.get("groups", 1), arguments.get("group_width", 64)
        assert name.endswith(f"_{groups}x{width}d") or (groups, width) == (1, 64)


@pytest.mark.parametrize("argument", ["groups", "group_width"])
def test_basic_blocks_have_no_groups(argument):
    with pytest.raises(ArgumentError, match="with depth 18, received 32") as caught:
        ppcls.create_model("ResNet18", **{argument: 32})
    assert caught.value.argument == argument


# Blocks ------------------------------------------------------------------------------------------


def test_a_basic_block_is_its_formula():
    block = ResidualBlock(8, 12, 12, 2, None, False, projection(8, 12, 2, False), 0.0)
    published.draw_state(block)
    block.eval()
    x = maps(8)
    y = F.relu(conv_norm(x, block.path.conv1, stride=2, padding=1))
    y = conv_norm(y, block.path.conv2, padding=1)
    y = F.relu(y + conv_norm(x, block.shortcut.conv, stride=2))
    assert (y == 0).any()
    np.testing.assert_allclose(block(x).numpy(), y.numpy(), rtol=1e-4, atol=1e-5)


def test_a_bottleneck_with_groups_and_gate_is_its_formula():
    block = ResidualBlock(32, 16, 32, 1, 4, True, nn.Identity(), 0.0)
    published.draw_state(block)
    block.eval()
    x, path = maps(32), block.path
    y = F.relu(conv_norm(x, path.conv1))
    assert path.conv2.conv.weight.shape == [16, 4, 3, 3]
    y = F.relu(conv_norm(y, path.conv2, padding=1, groups=4))
    y = conv_norm(y, path.conv3)
    gate = y.mean([2, 3], keepdim=True)
    gate = F.relu(F.conv2d(gate, path.squeeze.reduce.weight, path.squeeze.reduce.bias))
    gate = F.sigmoid(F.conv2d(gate, path.squeeze.expand.weight, path.squeeze.expand.bias))
    assert path.squeeze.reduce.weight.shape[0] == 32 // 16
    np.testing.assert_allclose(block(x).numpy(), F.relu(x + y * gate).numpy(), rtol=1e-4, atol=1e-5)


def test_a_pooled_shortcut_averages_what_there_is():
    layer = projection(1, 1, 2, pooled=True)
    layer.conv = nn.Identity()
    x = paddle.arange(9, dtype="float32").reshape([1, 1, 3, 3])
    # 0 1 | 2
    # 3 4 | 5    averages of the pixels that exist, not of the padding
    # -------
    # 6 7 | 8
    assert layer(x).tolist() == [[[[2.0, 3.5], [6.5, 8.0]]]]


@pytest.mark.parametrize(
    ("name", "pooled", "strides"),
    [
        ("ResNet18", [False] * 4, [1, 2, 2, 2]),
        ("ResNet18_vd", [False, True, True, True], [1, 1, 1, 1]),
    ],
)
def test_only_shrinking_shortcuts_are_pooled(name, pooled, strides):
    net = ppcls.create_model(name, 5)
    shortcuts = [stage["0"].shortcut for stage in net.stages]
    assert [hasattr(shortcut, "pool") for shortcut in shortcuts] == pooled
    assert [shortcut.conv.conv._stride[0] for shortcut in shortcuts] == strides


def test_a_dropped_path_leaves_the_shortcut():
    block = ResidualBlock(8, 4, 8, 1, 1, False, nn.Identity(), drop_path=0.5)
    published.draw_state(block)
    x = maps(8)
    for norm in (layer for layer in block.sublayers() if isinstance(layer, nn.BatchNorm2D)):
        norm._use_global_stats = True
    block.eval()
    y = block.path(x)
    block.train()
    paddle.seed(0)
    seen = set()
    for _ in range(20):
        for i, out in enumerate(block(x)):
            dropped = np.allclose(out, F.relu(x[i]), atol=1e-6)
            assert dropped or np.allclose(out, F.relu(x[i] + 2 * y[i]), rtol=1e-4, atol=1e-4)
            seen.add(dropped)
    assert seen == {True, False}


def test_features_begin_before_the_pooling():
    net = drawn("ResNet18")
    assert [(i.stride, i.channels) for i in net.feature_info] == [
        (2, 64), (4, 64), (8, 128), (16, 256), (32, 512),
    ]  # fmt: skip


# Names -------------------------------------------------------------------------------------------


def test_published_gates_are_linear_layers():
    net = drawn("SE_ResNet18_vd")
    naming = net.namings()[1]
    weights = {naming.rename(name): value.numpy() for name, value in net.state_dict().items()}
    assert {"conv1_3._batch_norm._mean", "bb_3_1.scale.excitation.bias", "out.bias"} <= set(weights)
    for name, value in weights.items():
        if ".scale." in name and value.ndim == 4:
            weights[name] = value[:, :, 0, 0].T
    assert weights["bb_3_0.scale.squeeze.weight"].shape == (512, 32)
    other = ppcls.create_model("SE_ResNet18_vd", 5)
    report = ppcls.load_weights(other, weights)
    assert (report.library, report.unexpected) == ("PaddleClas", [])
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), value.numpy(), name)


def test_the_first_shortcut_that_torchvision_lacks_does_nothing():
    net = ppcls.create_model("ResNet18", 5)
    torch = net.namings()[2]
    state = {name: value.numpy() for name, value in drawn("ResNet18").state_dict().items()}
    weights = {torch.rename(name): value for name, value in state.items()}
    weights["fc.weight"] = weights["fc.weight"].T
    lacked = [name for name in weights if name.startswith("layer1.0.downsample.")]
    assert len(lacked) == 5
    for name in lacked:
        del weights[name]
    assert ppcls.load_weights(net, weights).library == "torchvision"
    net.eval()
    x = maps(64)
    np.testing.assert_allclose(net.stages[0]["0"].shortcut(x).numpy(), x.numpy(), rtol=1e-6)
    del weights["layer2.0.downsample.0.weight"]
    with pytest.raises(WeightsError, match=r"stages\.1\.0\.shortcut"):
        ppcls.load_weights(net, weights)


def test_bottlenecks_need_their_first_shortcut():
    net = ppcls.create_model("ResNet50", 5)
    torch = net.namings()[2]
    weights = {torch.rename(name): value.numpy() for name, value in net.state_dict().items()}
    weights["fc.weight"] = weights["fc.weight"].T
    del weights["layer1.0.downsample.0.weight"]
    with pytest.raises(WeightsError, match=r"stages\.0\.0\.shortcut"):
        ppcls.load_weights(net, weights)
