"""EfficientNetV2: its tables, the fused block, and that it is PaddleClas's network."""

from __future__ import annotations

import math

import numpy as np
import paddle
import published
import pytest

import ppcls
from ppcls.backbones.efficientnet import MBConv
from ppcls.backbones.efficientnet_v2 import FusedMBConv
from ppcls.errors import ArgumentError

# Trainable parameters of timm, and the sizes of the images in training and evaluation.
PUBLISHED = {
    "EfficientNetV2_S": (21_458_488, 300, 384),
    "EfficientNetV2_M": (54_139_356, 384, 480),
    "EfficientNetV2_L": (118_515_272, 384, 480),
    "EfficientNetV2_XL": (208_119_808, 384, 512),
}


def small(**arguments):
    paddle.seed(1)
    widths, depths = [8, 16, 16, 24, 24], [1, 2, 1, 1, 2]
    return ppcls.create_model(
        "EfficientNetV2_S", class_num=5, widths=widths, depths=depths, **arguments
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PUBLISHED)
def test_size(name):
    net = ppcls.create_model(name)
    parameters = published.trainable(net)
    assert (parameters, net.train_size, net.image_size) == PUBLISHED[name]


def test_stages():
    net = small()
    kinds = [type(stage[0]) for stage in net.stages]
    assert kinds == [FusedMBConv, FusedMBConv, FusedMBConv, MBConv, MBConv]
    assert [len(stage) for stage in net.stages] == [1, 2, 1, 1, 2]
    assert [(info.stride, info.channels) for info in net.feature_info] == [
        (2, 8),
        (4, 16),
        (8, 16),
        (16, 24),
    ]


def test_widths_and_depths_have_the_same_number():
    with pytest.raises(ArgumentError, match="3 depths, but 2 widths"):
        ppcls.create_model("EfficientNetV2_S", widths=[8, 16], depths=[1, 2, 3])


@pytest.mark.parametrize("expansion", [1, 4])
def test_the_fused_block_by_hand(expansion):
    paddle.seed(2)
    block = FusedMBConv(6, 6, 1, expansion)
    block.eval()

    def norm(x):  # as the weights are at first
        return x / math.sqrt(1 + 1e-5)

    with paddle.no_grad():
        x = paddle.randn([2, 6, 5, 7])
        y = norm(paddle.nn.functional.conv2d(x, block.path.fused.conv.weight, padding=1))
        y = y / (1 + (-y).exp())
        if expansion > 1:
            y = norm(paddle.nn.functional.conv2d(y, block.path.project.conv.weight))
        np.testing.assert_allclose(block(x).numpy(), (x + y).numpy(), rtol=1e-4, atol=1e-5)
        assert list(FusedMBConv(6, 8, 2, expansion)(x).shape) == [2, 8, 3, 4]


def test_drop_path_rises_through_both_kinds_of_blocks():
    rates = [block.path.drop_path for stage in small().stages for block in stage]
    np.testing.assert_allclose(rates, [0.2 * i / 7 for i in range(7)])


@pytest.mark.timeout(300)
def test_logits_of_paddleclas_in_double_precision():
    """The published logits are of single precision, where a millionth of the image moves them by
    their whole spread; what a wrong network answers correlates below 0.8.
    """
    expected, fill = published.figures()["EfficientNetV2_S"], published.formulas()
    net = ppcls.create_model("EfficientNetV2_S")
    report = ppcls.load_weights(net, fill.state_dict(expected["state_dict"]))
    assert report.library == "PaddleClas"
    assert report.missing == report.unexpected == []
    net.eval()
    net.to(dtype="float64")
    with paddle.no_grad():
        images = paddle.to_tensor(fill.images(expected["image_size"])).astype("float64")
        logits = net(images).numpy()
    known = np.array(expected["logits"])
    assert np.corrcoef(logits[:, :16].ravel(), known.ravel())[0, 1] > 0.97
