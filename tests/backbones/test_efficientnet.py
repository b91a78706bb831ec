"""EfficientNet: the scaling rule, its two paddings, the Lite variants, names."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import paddle
import paddle.nn.functional as F
import published
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.efficientnet import MBConv
from ppcls.backbones.layers import SqueezeExcitation

# Trainable parameters and input sizes, of timm and torchvision and of the authors' tables.
PUBLISHED = {
    "EfficientNetB0": (5_288_548, 224),
    "EfficientNetB1": (7_794_184, 240),
    "EfficientNetB2": (9_109_994, 260),
    "EfficientNetB3": (12_233_232, 300),
    "EfficientNetB4": (19_341_616, 380),
    "EfficientNetB5": (30_389_784, 456),
    "EfficientNetB6": (43_040_704, 528),
    "EfficientNetB7": (66_347_960, 600),
    "EfficientNet_lite0": (4_652_008, 224),
    "EfficientNet_lite1": (5_416_680, 240),
    "EfficientNet_lite2": (6_092_072, 260),
    "EfficientNet_lite3": (8_197_096, 280),
    "EfficientNet_lite4": (13_006_568, 300),
}


def pictures(side, seed=0):
    pixels = np.random.default_rng(seed).standard_normal((2, 3, side, side))
    return paddle.to_tensor(pixels.astype("float32"))


def logits_of(net, images):
    net.eval()
    with paddle.no_grad():
        return net(images).numpy()


@pytest.mark.parametrize("name", PUBLISHED)
def test_size(name):
    net = ppcls.create_model(name)
    assert (published.trainable(net), net.image_size) == PUBLISHED[name]


def test_lite_grows_between_stem_and_head_only():
    small, large = (ppcls.create_model(f"EfficientNet_lite{i}", class_num=2) for i in (0, 4))
    assert [len(stage) for stage in small.stages] == [1, 2, 2, 3, 3, 4, 1]
    assert [len(stage) for stage in large.stages] == [1, 4, 4, 6, 6, 8, 1]
    assert [small.stem.conv._out_channels, small.num_features] == [32, 1280]
    assert [large.stem.conv._out_channels, large.num_features] == [32, 1280]
    kinds = {type(layer) for layer in large.sublayers()}
    assert nn.ReLU6 in kinds
    assert not kinds & {nn.Silu, SqueezeExcitation}


def test_the_squeezed_width_is_a_quarter_of_the_blocks_input():
    net = ppcls.create_model("EfficientNetB0", class_num=2)
    gates = [layer for layer in net.sublayers() if isinstance(layer, SqueezeExcitation)]
    # Table 1: the widths that enter the blocks are 32, 16, 24, 24, 40, 40, 80, ...
    assert [gate.reduce._out_channels for gate in gates[:7]] == [8, 4, 6, 6, 10, 10, 20]


def test_drop_path_rises_as_in_the_authors_code():
    net = ppcls.create_model("EfficientNetB0", class_num=2)
    rates = [block.path.drop_path for stage in net.stages for block in stage]
    np.testing.assert_allclose(rates, [0.2 * i / 16 for i in range(16)])


def test_mbconv_by_hand():
    paddle.seed(3)
    block = MBConv(8, 8, 5, 1, 6)
    block.eval()
    p = {}
    for name, value in block.state_dict().items():
        value.set_value(paddle.rand(value.shape) + (0.5 if name.endswith("_variance") else -0.5))
        p[name.removeprefix("path.")] = value

    def conv_norm(x, name, **options):
        y = F.conv2d(x, p[f"{name}.conv.weight"], **options)
        kinds = ("_mean", "_variance", "weight", "bias")
        mean, variance, scale, shift = (
            p[f"{name}.norm.{kind}"].reshape([-1, 1, 1]) for kind in kinds
        )
        return (y - mean) / (variance + 1e-5).sqrt() * scale + shift

    def sigmoid(x):
        return 1 / (1 + (-x).exp())

    with paddle.no_grad():
        x = paddle.randn([2, 8, 9, 7])
        y = conv_norm(x, "expand")
        y = conv_norm(y * sigmoid(y), "depthwise", padding=2, groups=48)
        y = y * sigmoid(y)
        gate = y.mean([2, 3]) @ p["squeeze.reduce.weight"].flatten(1).T + p["squeeze.reduce.bias"]
        gate = gate * sigmoid(gate)
        gate = gate @ p["squeeze.expand.weight"].flatten(1).T + p["squeeze.expand.bias"]
        expected = conv_norm(y * sigmoid(gate).reshape([2, 48, 1, 1]), "project") + x
        np.testing.assert_allclose(block(x).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


# Padding -----------------------------------------------------------------------------------------


def narrow(**arguments):
    """Made for images of 50 pixels, whose maps have 25, 13, 7, 4 and 2."""
    paddle.seed(1)
    return ppcls.create_model("EfficientNetB0", class_num=5, width=0.25, image_size=50, **arguments)


def distance(logits, others):
    """The largest difference, measured by the largest logit."""
    return np.abs(logits - others).max() / np.abs(others).max()


def test_the_published_padding_is_tensorflows_at_the_size_the_network_was_made_for():
    net, other = narrow(), narrow(padding="SAME")
    assert distance(logits_of(net, pictures(50)), logits_of(other, pictures(50))) < 1e-5
    assert distance(logits_of(net, pictures(52)), logits_of(other, pictures(52))) > 0.1


def test_the_published_padding_at_other_sizes():
    """It is written there as too many zeros around, and one row and column of the result less."""
    rows = [50, 25, 13, 7, 4]
    convolutions = [
        x for x in narrow().sublayers() if isinstance(x, nn.Conv2D) and x._stride == [2, 2]
    ]
    for side in (20, 21):
        for conv, nominal in zip(convolutions, rows, strict=True):
            x = paddle.randn([1, conv._in_channels, side, side])
            half, later = conv._kernel_size[0] // 2, nominal % 2 == 0
            expected = F.conv2d(
                x, conv.weight, stride=2, padding=half + later, groups=conv._groups
            )[:, :, int(later) :, int(later) :]
            np.testing.assert_allclose(conv(x).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_network_takes_over_another_padding_and_goes_back():
    net, symmetric = narrow(), narrow(padding="symmetric")
    images = pictures(50)
    before = logits_of(net, images)
    assert net.adopt(padding="nominal", epsilon=1e-3) == {}
    assert net.adopt(padding="symmetric", epsilon=1e-3) == {"padding": "symmetric"}
    np.testing.assert_array_equal(logits_of(net, images), logits_of(symmetric, images))
    assert distance(logits_of(net, images), before) > 0.1
    assert net.adopt(padding="nominal") == {"padding": "nominal"}
    np.testing.assert_array_equal(logits_of(net, images), before)


# Names -------------------------------------------------------------------------------------------


def naming(net, library):
    (found,) = (naming for naming in net.namings() if naming.library == library)
    return found


def test_paddleclas_calls_the_first_block_of_a_stage_otherwise():
    net = ppcls.create_model("EfficientNetB3", class_num=2)
    names = map(naming(net, "PaddleClas").rename, net.state_dict())
    blocks = dict.fromkeys(name.split("..")[0] for name in names if ".." in name)
    # 1, 2, 2, 3, 3, 4 and 1 blocks, times 1.4, rounded up
    firsts = list(accumulate([2, 3, 3, 5, 5, 6], initial=0))
    assert list(blocks) == [
        f"_ef._blocks.{i}" if i in firsts else f"_ef.block.{i}" for i in range(26)
    ]


def test_what_each_library_needs():
    b4, b5, lite = (
        ppcls.create_model(name, class_num=2, depth=0.1)
        for name in ("EfficientNetB4", "EfficientNetB5", "EfficientNet_lite0")
    )
    assert naming(b4, "torchvision").settings == {"padding": "symmetric", "epsilon": 1e-5}
    assert naming(b5, "torchvision").settings == {"padding": "symmetric", "epsilon": 1e-3}
    assert naming(b5, "timm").settings == {"padding": "symmetric", "epsilon": 1e-5}
    assert naming(lite, "timm").settings == {}
    assert lite.settings["padding"] == "SAME"
    assert lite.settings["epsilon"] == 1e-3


@pytest.mark.parametrize(
    ("network", "library"),
    [
        ("EfficientNetB0", "EfficientNet-PyTorch"),
        ("EfficientNet_lite0", "EfficientNet-Lite-PyTorch"),
    ],
)
def test_names_of_efficientnet_pytorch(network, library):
    net = ppcls.create_model(network, class_num=2)
    names = {
        "stem.conv.weight": "_conv_stem.weight",
        "stem.norm.bias": "_bn0.bias",
        "stages.0.0.path.depthwise.conv.weight": "_blocks.0._depthwise_conv.weight",
        "stages.0.0.path.depthwise.norm._mean": "_blocks.0._bn1.running_mean",
        "stages.1.1.path.expand.conv.weight": "_blocks.2._expand_conv.weight",
        "stages.1.1.path.expand.norm._variance": "_blocks.2._bn0.running_var",
        "stages.6.0.path.project.conv.weight": "_blocks.15._project_conv.weight",
        "stages.6.0.path.project.norm.weight": "_blocks.15._bn2.weight",
        "head.conv.conv.weight": "_conv_head.weight",
        "head.conv.norm.weight": "_bn1.weight",
        "classifier.bias": "_fc.bias",
    }
    if network == "EfficientNetB0":
        names["stages.2.0.path.squeeze.reduce.bias"] = "_blocks.3._se_reduce.bias"
        names["stages.2.0.path.squeeze.expand.weight"] = "_blocks.3._se_expand.weight"
    assert names.keys() <= net.state_dict().keys()
    assert {ours: naming(net, library).rename(ours) for ours in names} == names
