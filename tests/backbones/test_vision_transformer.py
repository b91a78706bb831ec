"""ViT and DeiT: what is special about them, beyond the published figures."""

from __future__ import annotations

import math

import numpy as np
import paddle
import published
import pytest

import ppcls
from ppcls.backbones.vision_transformer import VARIANTS, SelfAttention, resize_positions
from ppcls.errors import ArgumentError

MILLION = 1e6


def create(name="DeiT_tiny_patch16_224", **arguments):
    paddle.seed(3)
    net = ppcls.create_model(name, **{"class_num": 5, "depth": 2, **arguments})
    net.eval()
    return net


def batch(height=32, width=None, channels=3):
    shape = (2, channels, height, width or height)
    return paddle.to_tensor(np.random.RandomState(0).standard_normal(shape).astype("float32"))


def formula(depth, width, patches, mlp_ratio=4.0, qkv_bias=True, tokens=1, classes=1000, patch=16):
    """Parameters, counted from the papers' equations."""
    hidden = int(width * mlp_ratio)
    attention = 3 * width * width + 3 * width * qkv_bias + width * width + width
    mlp = width * hidden + hidden + hidden * width + width
    block = 2 * 2 * width + attention + mlp
    embedding = 3 * patch**2 * width + width + (tokens + patches) * width + tokens * width
    return embedding + depth * block + 2 * width + tokens * (width + 1) * classes


@pytest.mark.parametrize(
    ("name", "expected", "millions"),
    [
        ("DeiT_tiny_patch16_224", formula(12, 192, 196), 5.7),
        ("DeiT_tiny_distilled_patch16_224", formula(12, 192, 196, tokens=2), 5.9),
        ("DeiT_small_patch16_224", formula(12, 384, 196), 22.1),
        ("DeiT_small_distilled_patch16_224", formula(12, 384, 196, tokens=2), 22.4),
        ("ViT_small_patch16_224", formula(8, 768, 196, 3.0, qkv_bias=False), 48.8),
    ],
)
def test_sizes_are_the_papers(name, expected, millions):
    net = ppcls.create_model(name)
    assert published.trainable(net) == expected
    assert round(expected / MILLION, 1) == millions


def test_names_say_what_the_table_presets():
    for name, preset in VARIANTS.items():
        assert name.endswith(f"patch{preset.get('patch_size', 16)}_{preset.get('image_size', 224)}")
        assert preset.get("distilled", False) == ("distilled" in name)


@pytest.mark.parametrize("scale", [None, 0.1])
def test_attention_is_the_formula_of_the_paper(scale):
    width, heads, tokens = 12, 3, 5
    used = (width // heads) ** -0.5 if scale is None else scale
    layer = SelfAttention(width, heads, True, used, 0.0, 0.0)
    x = np.random.RandomState(1).randn(2, tokens, width).astype("float32")
    qkv = x @ layer.qkv.weight.numpy() + layer.qkv.bias.numpy()
    mixed = np.empty_like(x)
    for head in range(heads):
        part = slice(4 * head, 4 * head + 4)
        q, k, v = (qkv[..., i * width : (i + 1) * width][..., part] for i in range(3))
        weights = np.exp(used * q @ k.transpose(0, 2, 1))
        mixed[..., part] = weights / weights.sum(-1, keepdims=True) @ v
    expected = mixed @ layer.proj.weight.numpy() + layer.proj.bias.numpy()
    np.testing.assert_allclose(layer(paddle.to_tensor(x)).numpy(), expected, atol=1e-5)


def test_the_published_small_network_scales_by_its_whole_width():
    blocks = ppcls.create_model("ViT_small_patch16_224").blocks
    assert [block.attention.scale for block in blocks] == [768**-0.5] * 8
    assert create(heads=3).blocks[0].attention.scale == 64**-0.5


def test_distilled_logits_are_the_mean_of_two_classifiers():
    net = create("DeiT_tiny_distilled_patch16_224")
    images = batch()
    by_labels, by_teacher = net.both_logits(images)
    assert by_labels.shape == by_teacher.shape == [2, 5]
    assert np.abs((by_labels - by_teacher).numpy()).max() > 1e-3
    np.testing.assert_allclose(net(images).numpy(), ((by_labels + by_teacher) / 2).numpy())
    net.reset_classifier(3)
    assert [logits.shape[1] for logits in net.both_logits(images)] == [3, 3]
    assert len(net.classifier_names()) == 4


def test_edges_that_are_no_whole_patch_are_padded_with_zeros():
    net = create()
    images = batch(33, 47)
    padded = paddle.zeros([2, 3, 48, 48])
    padded[:, :, :33, :47] = images
    np.testing.assert_array_equal(net(images).numpy(), net(padded).numpy())
    assert net.features(images)[0].shape == [2, 192, 3, 3]


def test_features_are_the_encoded_patches_in_their_places():
    net = create(drop_path_rate=0.5, dropout=0.5)
    net.class_token.set_value(net.class_token * 0)
    for block in net.blocks:  # nothing mixes: every patch sees itself only
        for layer in (block.attention.proj, block.mlp.fc2):
            layer.weight.set_value(layer.weight * 0)
    images = batch(32, 48)
    (found,) = net.features(images)
    changed = images.clone()
    changed[:, :, 16:, 32:] = 1.0  # the last of 2 x 3 patches
    (other,) = net.features(changed)
    differs = np.abs((found - other).numpy()).max(axis=(0, 1)) > 1e-6
    np.testing.assert_array_equal(differs, [[False, False, False], [False, False, True]])


def cubic(old, new):
    """Cubic convolution (Keys, 1981, with a = -3/4) as a matrix [new, old]; edges repeat."""
    matrix = np.zeros((new, old))
    for i in range(new):
        at = (i + 0.5) * old / new - 0.5
        for j in range(math.floor(at) - 1, math.floor(at) + 3):
            t = abs(at - j)
            near = (1.25 * t - 2.25) * t * t + 1
            weight = near if t <= 1 else ((-0.75 * t + 3.75) * t - 6) * t + 3
            matrix[i, min(max(j, 0), old - 1)] += weight
    return matrix


def test_position_embeddings_are_resized_and_those_of_tokens_kept():
    positions = np.random.RandomState(2).randn(1, 50, 3).astype("float32")
    resized = resize_positions(paddle.to_tensor(positions), 1, 7, (14, 10)).numpy()
    assert resized.shape == (1, 141, 3)
    np.testing.assert_array_equal(resized[:, 0], positions[:, 0])
    square = positions[0, 1:].reshape(7, 7, 3)
    expected = np.einsum("ri,cj,ijk->rck", cubic(7, 14), cubic(7, 10), square)
    np.testing.assert_allclose(resized[0, 1:].reshape(14, 10, 3), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_for_another_image_size_load(dtype):
    small, large = create(image_size=64), create(image_size=96)
    state = {name: value.astype(dtype) for name, value in small.state_dict().items()}
    report = ppcls.load_weights(large, state)
    assert report.missing == report.unexpected == []
    expected = resize_positions(small.position_embedding, 1, 4, (6, 6)).numpy()
    np.testing.assert_allclose(large.position_embedding.numpy(), expected, atol=1e-3)
    images = batch(96)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(large(images).numpy(), small(images).numpy(), atol=tolerance)


def test_weights_of_another_width_are_refused_with_their_shapes():
    with pytest.raises(ppcls.errors.WeightsError, match="another architecture"):
        ppcls.load_weights(create(), create(width=96).state_dict())


def test_tokens_and_positions_never_decay():
    assert create().no_weight_decay() == {"position_embedding", "class_token"}
    distilled = create("DeiT_tiny_distilled_patch16_224").no_weight_decay()
    assert distilled == {"position_embedding", "class_token", "distillation_token"}


def test_drop_path_leaves_out_blocks_in_training_only():
    net = create(drop_path_rate=0.9, depth=2)
    assert [block.drop_path.rate for block in net.blocks] == [0.0, 0.9]
    images = batch()
    np.testing.assert_array_equal(net(images).numpy(), net(images).numpy())
    evaluated = net(images).numpy()
    net.train()
    paddle.seed(0)
    trained = [net(images).numpy() for _ in range(4)]
    assert any(np.abs(logits - evaluated).max() > 1e-3 for logits in trained)


def test_other_channels_and_heads_that_do_not_divide_the_width():
    assert create(in_channels=1)(batch(channels=1)).shape == [2, 5]
    with pytest.raises(ArgumentError, match="5 heads cannot share a width of 192"):
        create(heads=5)


@pytest.mark.parametrize("name", ["DeiT_tiny_patch16_224", "DeiT_tiny_distilled_patch16_224"])
def test_the_traced_program_gives_the_same_logits(name):
    net = create(name)
    images = batch(80)
    expected = net(images).numpy()
    spec = [paddle.static.InputSpec([None, 3, 80, 80])]
    traced = paddle.jit.to_static(net, input_spec=spec, full_graph=True)
    np.testing.assert_allclose(traced(images).numpy(), expected, atol=1e-5)
