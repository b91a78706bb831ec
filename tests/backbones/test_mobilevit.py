"""MobileViT: patches, resizing, layouts."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.mobilevit import MobileViT, MobileViTBlock
from ppcls.errors import ArgumentError

TINY = {"widths": [8, 8, 8, 8, 8], "transformer_widths": [8, 8, 8], "class_num": 5}


def logits(net, images):
    net.eval()
    with paddle.no_grad():
        return net(images).numpy()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("MobileViT_XXS", 1_272_024), ("MobileViT_XS", 2_317_848), ("MobileViT_S", 5_578_632)],
)
def test_parameters(name, parameters):
    net = ppcls.create_model(name)
    trainable = [p for p in net.parameters() if not p.stop_gradient]
    assert sum(math.prod(p.shape) for p in trainable) == parameters


def test_cells_of_the_same_place_in_their_patch_attend_to_each_other():
    rows, columns = 2, 3
    x = paddle.arange(24, dtype="float32").reshape([1, 4, 6, 1])
    tokens = MobileViTBlock.unfold(x, rows, columns)
    assert tokens.shape == [4, 6, 1]
    np.testing.assert_array_equal(tokens[1, :, 0].numpy(), [1, 3, 5, 13, 15, 17])
    np.testing.assert_array_equal(tokens[2, :, 0].numpy(), [6, 8, 10, 18, 20, 22])
    np.testing.assert_array_equal(MobileViTBlock.fold(tokens, rows, columns).numpy(), x.numpy())


def test_a_map_that_patches_do_not_cover_is_resized_and_back():
    block = MobileViTBlock(4, 6, [])
    block.norm = nn.Identity()
    x = paddle.randn([2, 6, 5, 8])
    larger = F.interpolate(x, size=[6, 8], mode="bilinear")
    expected = F.interpolate(larger, size=[5, 8], mode="bilinear").transpose([0, 2, 3, 1])
    mixed = block.mix(x.transpose([0, 2, 3, 1]))
    np.testing.assert_allclose(mixed.numpy(), expected.numpy(), atol=1e-6)
    assert np.abs(mixed.numpy() - x.transpose([0, 2, 3, 1]).numpy()).max() > 1e-3


@pytest.mark.parametrize("size", [(64, 64), (50, 71)])
def test_layouts_agree(size):
    net = MobileViT(**TINY)
    last = MobileViT(**TINY, data_format="NHWC")
    last.set_state_dict(net.state_dict())
    images = paddle.randn([2, 3, *size])
    np.testing.assert_allclose(logits(net, images), logits(last, images), atol=1e-5)


def test_the_epsilon_behind_a_transformer_is_a_setting():
    net = MobileViT(**TINY)
    norms = [x for x in net.sublayers() if isinstance(x, nn.LayerNorm)]
    assert sorted({norm._epsilon for norm in norms}) == [1e-6, 1e-5]
    assert net.adopt(norm_epsilon=1e-5) == {"norm_epsilon": 1e-5}
    assert {norm._epsilon for norm in norms} == {1e-5}
    assert net.adopt(norm_epsilon=1e-5) == {}


def test_drop_path_rises_through_inverted_residuals_and_transformers():
    net = MobileViT(**TINY, drop_path_rate=0.15, depths=[2, 4, 3])
    rates = [net.stages[4][1].layers[i].drop_path.rate for i in range(3)]
    np.testing.assert_allclose(rates, [0.15 * i / 15 for i in (13, 14, 15)])
    assert net.stages[1][1].path.drop_path == pytest.approx(0.15 * 2 / 15)


def test_attention_counts_among_the_multiply_adds():
    net = MobileViT(**TINY, depths=[1, 1, 1])
    attention = ppcls.count_macs(net, 64) - ppcls.count_macs(net, 64, attention=False)
    patches = [16, 4, 1]  # of maps of side 8, 4, 2
    assert attention == sum(4 * 2 * n * n * 8 for n in patches)


def test_heads_must_divide_the_transformers():
    with pytest.raises(ArgumentError) as caught:
        MobileViT(**TINY, heads=3)
    assert caught.value.argument == "heads"
