"""Swin Transformer V2: positions by an MLP, cosine attention, normalisation behind."""

from __future__ import annotations

import math

import numpy as np
import paddle
import published
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.swin_v2 import (
    ContinuousPosition,
    CosineAttention,
    PostNormBlock,
    SwinTransformerV2,
    log_offsets,
)
from ppcls.backbones.windows import WindowGrid, relative_index
from ppcls.errors import ArgumentError

TINY = {"width": 16, "depths": [2, 2], "heads": [2, 4], "class_num": 5, "image_size": 64}


def attention(heads=2, channels=8, window=3):
    paddle.seed(1)
    layer = CosineAttention(channels, heads, ContinuousPosition(window, window, heads), 0.0, 0.0)
    layer.eval()
    return layer


def test_offsets_are_logarithmic_and_stretch_to_a_larger_window():
    own = log_offsets(8, 8)
    assert own.shape == (225, 2)
    np.testing.assert_allclose(own[-1], math.log2(9) / 3, rtol=1e-6)
    np.testing.assert_array_equal(own[::-1], -own)
    larger = log_offsets(24, 12).reshape(47, 47, 2)
    smaller = log_offsets(12, 12).reshape(23, 23, 2)
    np.testing.assert_allclose(larger[12:-12, 12:-12], smaller, rtol=1e-6)
    np.testing.assert_array_equal(log_offsets(1, 1), [[0, 0]])


def test_attention_against_the_formula():
    heads, channels, window = 2, 8, 3
    layer = attention(heads, channels, window)
    layer.logit_scale.set_value(paddle.to_tensor([[[1.0]], [[9.0]]]))  # the second is clipped
    layer.qkv.q_bias.set_value(paddle.randn([channels]))
    layer.qkv.v_bias.set_value(paddle.randn([channels]))
    x = paddle.randn([1, 1, 9, channels])
    qkv = (x.numpy()[0, 0] @ layer.qkv.linear.weight.numpy()).reshape(9, 3, channels)
    qkv[:, 0] += layer.qkv.q_bias.numpy()
    qkv[:, 2] += layer.qkv.v_bias.numpy()
    first, second = layer.position.mlp[0], layer.position.mlp[2]
    hidden = np.maximum(log_offsets(window, window) @ first.weight.numpy() + first.bias.numpy(), 0)
    table = 16 / (1 + np.exp(-hidden @ second.weight.numpy()))
    out = np.zeros([9, channels])
    for head, scale in enumerate([math.e, 100.0]):
        part = slice(4 * head, 4 * head + 4)
        q, k = (qkv[:, i, part] / np.linalg.norm(qkv[:, i, part], axis=-1)[:, None] for i in (0, 1))
        logits = scale * q @ k.T + table[relative_index(window)][:, :, head]
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        out[:, part] = weights / weights.sum(-1, keepdims=True) @ qkv[:, 2, part]
    expected = layer.proj(paddle.to_tensor(out.astype("float32"))).numpy()
    np.testing.assert_allclose(layer(x).numpy()[0, 0], expected, atol=1e-5)


def test_a_fresh_block_is_the_identity_and_still_learns():
    block = PostNormBlock(8, attention(), 16, 0.0, 0.0)
    x = paddle.randn([1, 6, 6, 8])
    out = block(x, WindowGrid(6, 6, 3, shifted=True))
    np.testing.assert_array_equal(out.numpy(), x.numpy())
    (out**2).sum().backward()
    assert np.abs(block.norm1.weight.grad.numpy()).max() > 0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("SwinTransformerV2_tiny_patch4_window8_256", 28_347_154),
        ("SwinTransformerV2_small_patch4_window16_256", 49_728_418),
    ],
)
def test_parameters_are_those_of_timm(name, parameters):
    net = ppcls.create_model(name)
    assert published.trainable(net) == parameters


def test_windows_of_the_published_networks():
    net = SwinTransformerV2(
        window=24,
        image_size=384,
        pretrained_windows=[12, 12, 12, 6],
        width=4,
        depths=[1, 1, 1, 1],
        heads=[1, 1, 1, 1],
    )
    assert [stage.window for stage in net.stages] == [24, 24, 24, 12]
    farthest = [float(stage.blocks[0].attention.position.offsets.max()) for stage in net.stages]
    expected = [math.log2(1 + 8 * 23 / 11) / 3] * 3 + [math.log2(1 + 8 * 11 / 5) / 3]
    np.testing.assert_allclose(farthest, expected, rtol=1e-6)


def test_biases_of_torchvision_are_taken_apart():
    net = SwinTransformerV2(**TINY)
    naming = next(naming for naming in net.namings() if naming.library == "torchvision")
    own = {name: value.numpy() for name, value in net.state_dict().items()}
    linear = {n for n, layer in net.named_sublayers() if isinstance(layer, nn.Linear)}
    weights = {
        naming.rename(name): value.T if name.removesuffix(".weight") in linear else value
        for name, value in own.items()
        if not name.endswith((".q_bias", ".v_bias"))
    }
    for name, value in own.items():
        if name.endswith(".q_bias"):
            joint = np.arange(3 * len(value), dtype="float32")
            weights[naming.rename(name)] = joint
            weights[naming.rename(name).replace("qkv.bias", "relative_coords_table")] = joint
    report = ppcls.load_weights(net, weights)
    assert report.library == "torchvision"
    assert report.unexpected == []
    projection = net.stages[0].blocks[0].attention.qkv
    np.testing.assert_array_equal(projection.q_bias.numpy(), np.arange(16))
    np.testing.assert_array_equal(projection.v_bias.numpy(), np.arange(32, 48))


def test_what_tells_positions_and_scales_does_not_decay():
    names = SwinTransformerV2(**TINY).no_weight_decay()
    block = "stages.0.blocks.1.attention"
    assert {f"{block}.position.mlp.0.weight", f"{block}.position.mlp.2.weight"} <= names
    assert f"{block}.logit_scale" in names
    assert f"{block}.qkv.linear.weight" not in names


def test_pretrained_windows_are_one_a_stage():
    with pytest.raises(ArgumentError) as caught:
        SwinTransformerV2(**TINY, pretrained_windows=[12])
    assert caught.value.argument == "pretrained_windows"
