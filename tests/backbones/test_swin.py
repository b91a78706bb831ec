"""Swin Transformer: windows, masks, tables of positions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import paddle
import published
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.swin import PositionTable, SwinTransformer, resize_table
from ppcls.backbones.windows import WindowAttention, WindowGrid, relative_index
from ppcls.errors import ArgumentError

TINY = {"width": 16, "depths": [2, 2], "heads": [2, 4], "class_num": 5}


def tiny(**arguments):
    paddle.seed(0)
    return SwinTransformer(**TINY | {"image_size": 64} | arguments)


def pictures(height=64, width=64):
    pixels = np.random.RandomState(0).standard_normal((2, 3, height, width))
    return paddle.to_tensor(pixels.astype("float32"))


def logits(net, images):
    net.eval()
    with paddle.no_grad():
        return net(images).numpy()


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (9, 5), (3, 14)])
def test_windows_are_cut_and_joined_again(size, shifted):
    x = paddle.randn([2, *size, 3])
    grid = WindowGrid(*size, window=4, shifted=shifted)
    windows = grid.split(x)
    assert windows.shape == [2, math.ceil(size[0] / 4) * math.ceil(size[1] / 4), 16, 3]
    np.testing.assert_array_equal(grid.join(windows).numpy(), x.numpy())


def test_tokens_that_only_the_shift_made_neighbours_are_apart():
    side, window = 12, 4
    cells = np.stack(np.divmod(np.arange(side**2), side), axis=-1)
    grid = WindowGrid(side, side, window, shifted=True)
    image = paddle.to_tensor(cells.reshape([1, side, side, 2]).astype("float32"))
    for windows, apart in zip(grid.split(image)[0].numpy(), grid.apart.numpy(), strict=True):
        distance = np.abs(windows[:, None] - windows[None]).max(-1)
        np.testing.assert_array_equal(apart, distance >= window)


def test_a_single_window_is_shifted_only_on_demand():
    assert WindowGrid(7, 7, 7, shifted=True).apart is None
    assert WindowGrid(7, 14, 7, shifted=True).shifts == [0, 3]
    single = WindowGrid(7, 7, 7, shifted=True, shift_single=True)
    assert single.shifts == [3, 3]
    assert single.apart.shape == [1, 49, 49]
    together = ~single.apart.numpy()[0]
    assert sorted(set(together.sum(-1))) == [9, 12, 16], "the map is cut in four"


def test_the_index_tells_offsets_apart():
    window = 3
    index = relative_index(window)
    cells = list(itertools.product(range(window), repeat=2))
    rows = {}
    for i, a in enumerate(cells):
        for j, b in enumerate(cells):
            rows.setdefault((a[0] - b[0], a[1] - b[1]), set()).add(index[i, j])
    assert all(len(found) == 1 for found in rows.values())
    assert sorted(row for found in rows.values() for row in found) == list(range(25))


def test_attention_against_the_formula():
    paddle.seed(3)
    window, heads, channels = 2, 2, 6
    attention = WindowAttention(channels, heads, PositionTable(window, heads), 0.0, 0.0)
    attention.position.table.set_value(paddle.randn([9, heads]))
    attention.eval()
    x = paddle.randn([1, 1, 4, channels])
    qkv = attention.qkv(x).numpy()[0, 0].reshape(4, 3, heads, channels // heads)
    bias = attention.position.table.numpy()[relative_index(window)]
    out = np.zeros([4, heads, channels // heads])
    for head in range(heads):
        q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
        weights = np.exp(q @ k.T / math.sqrt(channels // heads) + bias[:, :, head])
        out[:, head] = weights / weights.sum(-1, keepdims=True) @ v
    expected = attention.proj(paddle.to_tensor(out.reshape(4, channels).astype("float32")))
    np.testing.assert_allclose(attention(x).numpy()[0, 0], expected.numpy(), atol=1e-5)


def test_parameters_of_the_size_without_published_figures():
    net = ppcls.create_model("SwinTransformer_small_patch4_window7_224")
    assert published.trainable(net) == 49_606_258  # timm, torchvision


def test_windows_are_no_larger_than_the_maps_of_the_images_it_is_made_for():
    assert [stage.window for stage in tiny(image_size=32).stages] == [7, 4]
    assert [stage.window for stage in tiny(image_size=64).stages] == [7, 7]


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (150, 64)])
def test_any_size(size):
    net = tiny()
    assert np.isfinite(logits(net, pictures(*size))).all()
    maps = net.features(pictures(*size))
    cells = [[math.ceil(side / 4) for side in size], [math.ceil(side / 8) for side in size]]
    assert [list(x.shape) for x in maps] == [[2, 16, *cells[0]], [2, 32, *cells[1]]]
    mean = maps[-1].mean([2, 3])
    np.testing.assert_allclose(
        net.classifier(mean).numpy(), logits(net, pictures(*size)), atol=1e-5
    )


def test_shifting_single_windows_is_a_setting_that_weights_of_timm_change():
    net = tiny(image_size=56)
    before = logits(net, pictures(56, 56))
    assert net.settings["shift_single"]
    timm = next(naming for naming in net.namings() if naming.library == "timm")
    weights = {timm.rename(name): value.numpy() for name, value in net.state_dict().items()}
    linear = {n for n, layer in net.named_sublayers() if isinstance(layer, nn.Linear)}
    for name in net.state_dict():
        if name.removesuffix(".weight") in linear:
            weights[timm.rename(name)] = weights[timm.rename(name)].T
    report = ppcls.load_weights(net, weights)
    assert report.library == "timm"
    assert report.adopted == {"shift_single": False}
    after = logits(net, pictures(56, 56))
    assert np.abs(after - before).max() > 1e-5
    twin = tiny(image_size=56, shift_single=False)
    ppcls.load_weights(twin, net.state_dict())
    np.testing.assert_array_equal(logits(twin, pictures(56, 56)), after)


def test_what_a_network_computes_itself_is_neither_stored_nor_needed():
    net = tiny()
    paddleclas = net.namings()[0]
    weights = {paddleclas.rename(name): value.numpy() for name, value in net.state_dict().items()}
    assert not [name for name in weights if name.endswith(("index", "mask"))]
    prefix = "layers.0.blocks.1.attn"
    weights[f"{prefix}.relative_position_index"] = np.zeros([49, 49], dtype="int64")
    weights[f"{prefix}.relative_position_bias"] = np.zeros([1, 2, 49, 49], dtype="float32")
    weights["layers.0.blocks.1.attn_mask"] = np.zeros([9, 49, 49], dtype="float32")
    report = ppcls.load_weights(net, weights)
    assert report.library == "PaddleClas"
    assert report.unexpected == []


def test_tables_are_resized_for_another_window():
    net = tiny(window=5)
    slope = np.linspace(-1, 1, 13, dtype="float32")
    plane = (slope[:, None] + 2 * slope).reshape(-1)
    resized = resize_table(np.stack([plane, -plane], axis=1), 81).reshape(9, 9, 2)
    at = (np.arange(9) - 4) * (13 / 9) * (slope[1] - slope[0])
    expected = (at[:, None] + 2 * at)[2:-2, 2:-2]
    np.testing.assert_allclose(resized[2:-2, 2:-2, 0], expected, atol=0.03)
    np.testing.assert_allclose(resized[2:-2, 2:-2, 1], -expected, atol=0.03)
    report = ppcls.load_weights(net, tiny().state_dict())
    assert report.mismatched == {}


def test_drop_path_works_in_training_only():
    net = tiny(drop_path_rate=0.9)
    images = pictures()
    steady = [logits(net, images) for _ in range(2)]
    np.testing.assert_array_equal(steady[0], steady[1])
    net.train()
    assert np.abs(net(images).numpy() - net(images).numpy()).max() > 1e-4


def test_norms_biases_and_tables_do_not_decay():
    net = tiny()
    names = net.no_weight_decay()
    assert "stages.0.blocks.1.attention.position.table" in names
    assert "stages.1.merge.norm.weight" in names
    assert "stages.0.blocks.0.attention.qkv.bias" in names
    assert "stages.0.blocks.0.attention.qkv.weight" not in names


@pytest.mark.parametrize("wrong", [{"heads": [2]}, {"heads": [3, 4]}])
def test_heads_that_cannot_be(wrong):
    with pytest.raises(ArgumentError) as caught:
        tiny(**wrong)
    assert caught.value.argument == "heads"
