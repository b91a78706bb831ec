"""ConvNeXt: what is special about it, beyond the published figures."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import numpy as np
import paddle
import paddle.nn.functional as F
import published
import pytest

import ppcls
from ppcls.backbones.convnext import VARIANTS, Block
from ppcls.errors import ArgumentError
from ppcls.ops import accelerate

TOY = {"class_num": 5, "depths": [1, 2, 1, 1], "widths": [8, 16, 24, 32]}


def create(**arguments):
    paddle.seed(3)
    net = ppcls.create_model("ConvNeXt_tiny", **TOY | arguments)
    net.eval()
    return net


def batch(height=64, width=None, channels=3):
    shape = (2, channels, height, width or height)
    return paddle.to_tensor(np.random.RandomState(0).standard_normal(shape).astype("float32"))


def randomise(net):
    """Weights that make every layer count; a block's factors start at 1e-6."""
    rng = np.random.RandomState(7)
    for value in net.state_dict().values():
        value.set_value(rng.standard_normal(value.shape).astype("float32") * 0.3)


def formula(depths, widths, classes=1000):
    """Parameters, counted from Figure 4 and Table 9 of the paper."""
    total = 3 * 16 * widths[0] + widths[0] + 2 * widths[0]
    for before, after in pairwise(widths):
        total += 2 * before + 4 * before * after + after
    for depth, c in zip(depths, widths, strict=True):
        total += depth * (49 * c + c + 2 * c + 4 * c * c + 4 * c + 4 * c * c + c + c)
    return total + 2 * widths[-1] + (widths[-1] + 1) * classes


@pytest.mark.parametrize(
    ("name", "parameters"),  # timm's and torchvision's figures
    [
        ("ConvNeXt_atto", 3_695_520),
        ("ConvNeXt_femto", 5_217_784),
        ("ConvNeXt_pico", 9_045_672),
        ("ConvNeXt_nano", 15_593_560),
        ("ConvNeXt_small", 50_223_688),
        ("ConvNeXt_xlarge_224", 350_196_968),
    ],
)
def test_sizes(name, parameters):
    assert formula(**VARIANTS[name]) == parameters
    if parameters < 10e6:
        net = ppcls.create_model(name)
        assert published.trainable(net) == parameters


def test_the_table_is_the_papers():
    for preset in VARIANTS.values():
        first = preset["widths"][0]
        assert preset["widths"] == [first, 2 * first, 4 * first, 8 * first]
        assert preset["depths"][2] >= 3 * preset["depths"][0]


def block_formula(block, x):
    """The block in the other of the paper's two forms: linear layers on the last axis."""
    path = block.path
    y = F.conv2d(x, path.depthwise.weight, path.depthwise.bias, padding=3, groups=x.shape[1])
    y = y.numpy().transpose(0, 2, 3, 1)
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
    y = y * path.norm.weight.numpy() + path.norm.bias.numpy()
    y = y @ path.expand.weight.numpy()[:, :, 0, 0].T + path.expand.bias.numpy()
    y = np.vectorize(lambda t: t * (1 + math.erf(t / math.sqrt(2))) / 2)(y)
    y = y @ path.project.weight.numpy()[:, :, 0, 0].T + path.project.bias.numpy()
    if hasattr(path, "scale"):
        y = y * path.scale.weight.numpy()
    return x.numpy() + y.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("initial", [1e-6, 0.0])
@pytest.mark.parametrize("kernels", [False, True])
def test_a_block_is_the_papers_formula(initial, kernels):
    block = Block(16, initial, 0.0)
    randomise(block)
    block.eval()
    x = batch(9, 7, 16)
    expected = block_formula(block, x)
    if kernels:
        assert accelerate(block) == 3
    np.testing.assert_allclose(block(x).numpy(), expected, atol=1e-4)


def test_kernels_change_neither_logits_nor_gradients():
    net = create()
    randomise(net)
    other = copy.deepcopy(net)
    assert accelerate(other) == 5 * 3 + 4  # all convolutions
    images = batch()
    for each in (net, other):
        each(images).square().sum().backward()
    expected, found = net(images).numpy(), other(images).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    gradients = {name: p.grad.numpy() for name, p in net.named_parameters()}
    for name, p in other.named_parameters():
        size = np.abs(gradients[name]).max()
        np.testing.assert_allclose(p.grad.numpy(), gradients[name], atol=2e-3 * size, err_msg=name)


@pytest.mark.parametrize("initial", [1e-6, 0.5, 0.0])
def test_layer_scale_starts_as_asked(initial):
    net = create(layer_scale_init_value=initial)
    factors = [p.numpy() for name, p in net.named_parameters() if name.endswith("scale.weight")]
    assert len(factors) == (5 if initial else 0)
    for factor in factors:
        np.testing.assert_allclose(factor, initial)


def test_the_classifier_starts_scaled():
    weights = [create(head_init_scale=scale).classifier.weight.numpy() for scale in (1.0, 0.001)]
    np.testing.assert_allclose(weights[1], weights[0] * 0.001, rtol=1e-6)
    assert 0.01 < weights[0].std() < 0.03
    net = create(head_init_scale=0.0)
    net.reset_classifier(3)
    assert not net.classifier.weight.numpy().any()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 33), (65, 47), (255, 33)])
def test_maps_lose_what_a_downsampling_does_not_divide(height, width):
    maps = create().features(batch(height, width))
    expected = [[height // s, width // s] for s in (4, 8, 16, 32)]
    assert [m.shape[2:] for m in maps] == expected


def test_small_images_are_filled_up_with_zeros():
    net = create()
    randomise(net)
    small = batch(20, 40)
    filled = paddle.zeros([2, 3, 32, 40])
    filled[:, :, :20] = small
    np.testing.assert_array_equal(net(small).numpy(), net(filled).numpy())


def test_linear_layers_of_either_layout_load():
    """PaddleClas's [in, out], and the authors', whose names are the same, [out, in]."""
    net = create()
    randomise(net)
    ours = {name: value.numpy() for name, value in net.state_dict().items()}
    namings = {naming.library: naming for naming in net.namings()}
    published = {}
    for name, array in ours.items():
        if name.endswith(("expand.weight", "project.weight")):
            array = array[:, :, 0, 0].T
        published[namings["PaddleClas"].rename(name)] = array
    authors = {k: v.T if v.ndim == 2 else v for k, v in published.items()}
    for library, weights in {"PaddleClas": published, "the authors": authors}.items():
        other = create()
        report = ppcls.load_weights(other, weights)
        assert report.library == library
        assert report.missing == report.unexpected == []
        np.testing.assert_array_equal(other(batch()).numpy(), net(batch()).numpy())


def test_drop_path_leaves_out_blocks_in_training_only():
    net = create(drop_path_rate=0.9, layer_scale_init_value=1.0)
    blocks = [layer for layer in net.sublayers() if isinstance(layer, Block)]
    np.testing.assert_allclose([b.path.drop_path for b in blocks], [0, 0.225, 0.45, 0.675, 0.9])
    images = batch()
    evaluated = net(images).numpy()
    np.testing.assert_array_equal(net(images).numpy(), evaluated)
    net.train()
    paddle.seed(0)
    trained = [net(images).numpy() for _ in range(4)]
    assert any(np.abs(logits - evaluated).max() > 1e-4 for logits in trained)


def test_other_channels_and_lists_that_do_not_fit():
    assert create(in_channels=1)(batch(channels=1)).shape == [2, 5]
    with pytest.raises(ArgumentError, match="3 depths, but 4 widths"):
        create(depths=[1, 1, 1])


def test_the_traced_program_gives_the_same_logits():
    net = create()
    randomise(net)
    images = batch(65)
    expected = net(images).numpy()
    spec = [paddle.static.InputSpec([None, 3, 65, 65])]
    traced = paddle.jit.to_static(net, input_spec=spec, full_graph=True)
    found = traced(images).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
