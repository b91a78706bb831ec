"""PP-LCNet: its table, its block, what timm's networks have besides."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F
import published
import pytest
from paddle import nn

import ppcls
from ppcls.backbones.pp_lcnet import STAGES, DepthwiseSeparable
from ppcls.errors import WeightsError

fill = published.formulas()


def test_the_table_is_the_papers():
    assert sum(n for _, _, n, _, _ in STAGES) == 13
    assert math.prod(s for _, _, _, s, _ in STAGES) * 2 == 32
    kernels = [k for k, _, n, _, _ in STAGES for _ in range(n)]
    assert kernels == [3] * 6 + [5] * 7
    assert [se for *_, n, _, se in STAGES for _ in range(n)] == [False] * 11 + [True] * 2


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("PPLCNet_x0_35", 1.6),  # millions, from the paper's Table 3
        ("PPLCNet_x2_0", 6.5),
        ("LCNet_075", 2.358288),  # timm's count
        ("LCNet_150", 4.501112),
    ],
)
def test_further_widths_have_the_published_size(name, size):
    digits = len(str(size).partition(".")[2])
    assert round(published.trainable(ppcls.create_model(name)) / 1e6, digits) == size


def test_a_block_is_its_formula():
    block = DepthwiseSeparable(16, 24, kernel=5, stride=2, squeeze=True)
    published.draw_state(block)
    block.eval()
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 16, 9, 7)).astype("float32"))

    def norm_act(y, norm):
        scale = norm.weight / (norm._variance + 1e-5).sqrt()
        y = (y - norm._mean.reshape([1, -1, 1, 1])) * scale.reshape([1, -1, 1, 1])
        y = y + norm.bias.reshape([1, -1, 1, 1])
        return y * (y + 3).clip(0, 6) / 6

    y = F.conv2d(x, block.depthwise.conv.weight, stride=2, padding=2, groups=16)
    y = norm_act(y, block.depthwise.norm)
    gate, squeeze = y.mean([2, 3], keepdim=True), block.squeeze
    gate = F.relu(F.conv2d(gate, squeeze.reduce.weight, squeeze.reduce.bias))
    gate = F.conv2d(gate, squeeze.expand.weight, squeeze.expand.bias)
    y = y * (gate / 6 + 0.5).clip(0, 1)
    y = norm_act(F.conv2d(y, block.pointwise.conv.weight), block.pointwise.norm)
    assert y.shape == [2, 24, 5, 4]
    assert squeeze.reduce.weight.shape == [4, 16, 1, 1]
    np.testing.assert_allclose(block(x).numpy(), y.numpy(), rtol=1e-4, atol=1e-5)


def test_the_published_dropout_makes_the_vector_smaller_in_evaluation():
    logits = []
    for mode in ("upscale_in_train", "downscale_in_infer"):
        net = ppcls.create_model("PPLCNet_x0_25", 5, dropout_mode=mode)
        published.draw_state(net)
        net.classifier.bias.set_value(paddle.zeros([5]))
        net.eval()
        logits.append(net(paddle.to_tensor(fill.images(32))).numpy())
    np.testing.assert_allclose(logits[1], 0.8 * logits[0], rtol=1e-5)


def test_weights_of_timm_need_the_bias_behind_the_pooling():
    source = ppcls.create_model("LCNet_050", 5)
    timm = next(n for n in source.namings() if n.library == "timm")
    weights = {timm.rename(k): v.numpy() for k, v in source.state_dict().items()}
    weights["classifier.weight"] = weights["classifier.weight"].T
    report = ppcls.load_weights(ppcls.create_model("LCNet_050", 5), weights)
    assert (report.library, report.unexpected) == ("timm", [])
    with pytest.raises(WeightsError, match="another architecture"):
        ppcls.load_weights(ppcls.create_model("PPLCNet_x0_5", 5), weights)


def test_norms_and_nothing_else_never_decay():
    net = ppcls.create_model("PPLCNet_x0_25", 5)
    norms = sum(isinstance(layer, nn.BatchNorm2D) for layer in net.sublayers())
    assert len(net.no_weight_decay()) == 2 * norms == 2 * 27
    assert net.no_weight_decay() <= {name for name, _ in net.named_parameters()}
