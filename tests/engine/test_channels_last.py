"""Training on maps [N, H, W, C]: the same numbers from the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import support

import ppcls
from ppcls.config import ConfigError

paddle = pytest.importorskip("paddle")

OFF = "Global.cpu_kernels=off"


# Each of their families has layers that look at the layout for themselves.
NETWORKS = [
    "GhostNet_x0_5",
    "MobileNeXt_x0_1",
    "MobileNetV3_small_x0_35",
    "MobileViT_XXS",
    "ShuffleNetV1_g8_x0_25",
    "ShuffleNetV2_x0_25",
    "SqueezeNet1_1",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_channels_first(name):
    """In evaluation mode: batch statistics of so few values would drown it in rounding."""
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 64, 64)), "float32")
    results = []
    for data_format in ("NCHW", "NHWC"):
        paddle.seed(1)
        net = ppcls.create_model(name, class_num=3)
        names = list(net.state_dict())
        net.adopt(data_format=data_format)
        assert list(net.state_dict()) == names
        net.eval()
        logits = net(images)
        (logits**2).sum().backward()
        gradients = {k: p.grad.numpy() for k, p in net.named_parameters() if p.grad is not None}
        results.append((logits.numpy(), gradients))
    (logits, expected), (found_logits, found) = results
    np.testing.assert_allclose(found_logits, logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        scale = 1e-3 * np.abs(gradient).max() + 1e-6
        np.testing.assert_allclose(found[key], gradient, atol=scale, err_msg=key)


def test_a_run_and_its_checkpoint_are_those_of_channels_first(pictures, tmp_path):
    tree = support.config_tree(pictures, tmp_path / "output")
    tree["Arch"] = {"name": "MobileNetV1_x0_25", "class_num": 3}
    tree["Optimizer"]["lr"]["learning_rate"] = 1e-4
    path = support.write_config(tmp_path / "config.yaml", tree)
    first, last = (
        support.train(path, OFF, f"Global.output_dir={tmp_path / key}", *option)
        for key, option in (("first", []), ("last", ["Global.channels_last=true"]))
    )
    assert last.net.settings["data_format"] == "NHWC"
    expected, found = (support.weights(run.folder / "latest") for run in (first, last))
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        if "norm._" not in key:
            np.testing.assert_allclose(found[key], array, atol=2e-3, err_msg=key)
    # The checkpoint is of no layout: it goes on, and is evaluated, without the option.
    checkpoint = f"Global.checkpoints={last.folder / 'latest'}"
    assert support.train(path, OFF, "Global.epochs=2", checkpoint).state.global_step == 6
    weights = f"Global.pretrained_model={last.folder / 'latest'}"
    result = ppcls.Evaluator(support.load(path, OFF, weights)).run()
    assert result["top1"] == last.state.metric


def test_the_cpu_kernels_need_no_such_option(config_file, run_folder):
    trainer = support.train(config_file, "Global.channels_last=true")
    assert trainer.net.settings["data_format"] == "NCHW"
    assert "Global.channels_last changes nothing" in support.text_of(run_folder / "train.log")


def test_a_network_without_the_argument_is_refused(config_file):
    with pytest.raises(ConfigError) as error:
        support.train(
            config_file, "Arch={name: ConvNeXt_atto, class_num: 3}", "Global.channels_last=true"
        )
    assert "Global.channels_last: expected false, received true: ConvNeXt_atto has no" in str(
        error.value
    )
    assert "MobileNetV2, MobileNetV3" in str(error.value)
