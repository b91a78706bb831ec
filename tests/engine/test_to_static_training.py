"""Training by a compiled program: what a dynamic run gives, by another way."""

from __future__ import annotations

import numpy as np
import pytest
import small_networks
import support

import ppcls
from ppcls.config import ConfigError
from ppcls.engine.compile import Compiled

paddle = pytest.importorskip("paddle")

RATES = {"dropout": 0.0, "drop_path_rate": 0.4}
DEIT = {"depth": 1, "width": 12, "image_size": 64}


def build(name, **rates):
    paddle.seed(1)
    if name == "Small":
        net = small_networks.Small(**rates)
    else:
        net = ppcls.create_model(name, class_num=3, **DEIT, **rates)
    net.train()
    return net


def batch(size=4):
    return paddle.to_tensor(np.random.default_rng(size).normal(size=(size, 3, 64, 64)), "float32")


def trained(name, is_compiled):
    """Losses of three steps, of which one has another batch size, weights, and answers."""
    net = build(name, **RATES)
    model = Compiled(net) if is_compiled else net
    optimizer = paddle.optimizer.Momentum(0.02, parameters=net.parameters())
    losses = []
    for step, size in enumerate([4, 4, 3]):
        paddle.seed(step)
        loss = paddle.nn.functional.cross_entropy(model(batch(size)), paddle.arange(size) % 3)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    net.eval()
    return losses, {k: t.numpy() for k, t in net.state_dict().items()}, net(batch()).numpy()


@pytest.mark.parametrize("name", ["Small", "DeiT_tiny_patch16_224"])
def test_losses_weights_and_answers_are_those_of_a_dynamic_run(name):
    """Batch statistics too; and evaluation does not go the way of training."""
    (losses, state, answers), found = trained(name, False), trained(name, True)
    np.testing.assert_allclose(found[0], losses, rtol=1e-5)
    assert found[1].keys() == state.keys()
    for key, array in state.items():
        np.testing.assert_allclose(found[1][key], array, rtol=1e-4, atol=1e-5, err_msg=key)
    np.testing.assert_allclose(found[2], answers, rtol=1e-4, atol=1e-4)


def test_a_layer_frozen_or_a_rate_changed_on_the_way_counts():
    """A program holds both fixed: it has to be traced again."""
    net = build("Small", dropout=0.3)
    model, images = Compiled(net), batch()
    model(images).sum().backward()
    program = model._program
    model(images)
    assert model._program is program, "traced again for nothing"
    assert net.classifier.weight.grad is not None
    net.clear_gradients()
    net.classifier.weight.stop_gradient = True
    model(images).sum().backward()
    assert not net.classifier.weight.grad.any()
    assert net.stem.conv.weight.grad.any()
    net.eval()  # of what is left, dropout alone is random
    net.dropout.training = True
    net.dropout.p = 0.0
    np.testing.assert_array_equal(model(images).numpy(), model(images).numpy())
    net.dropout.p = 0.5
    assert not np.array_equal(model(images).numpy(), model(images).numpy())


def test_a_compiled_run_stops_and_goes_on_to_the_same_bits(pictures, tmp_path, monkeypatch):
    """And its weights are evaluated and exported as any."""
    small_networks.register(monkeypatch)
    tree = support.config_tree(pictures, tmp_path / "output")
    tree["Arch"] = {"name": "Small", "class_num": 3, "dropout": 0.3}
    tree["Global"]["to_static"] = True
    path = support.write_config(tmp_path / "config.yaml", tree)
    whole = support.train(path, "Global.epochs=2", f"Global.output_dir={tmp_path / 'whole'}")
    run = support.train(path).folder
    again = support.train(path, "Global.epochs=2", f"Global.checkpoints={run / 'latest'}")
    assert not support.same_files(run / "latest", whole.folder / "latest")
    log = support.text_of(whole.folder / "train.log")
    assert "training runs a program of Paddle's own operators" in log
    weights = f"Global.pretrained_model={run / 'latest'}"
    assert ppcls.Evaluator(support.load(path, weights)).run()["top1"] == again.state.metric
    ppcls.export_model(support.load(path, weights))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["Global.cpu_kernels=on"], "Global.cpu_kernels is on"),
        (
            ["Arch={name: ConvNeXt_atto, class_num: 3}", "Global.recompute=true"],
            "which Global.recompute does not",
        ),
    ],
)
def test_what_a_program_cannot_do_is_refused(config_file, overrides, reason):
    with pytest.raises(ConfigError) as error:
        support.train(config_file, "Global.to_static=true", *overrides)
    assert "Global.to_static: expected false, received true" in str(error.value)
    assert reason in str(error.value)


def test_gradients_add_up_over_batches_of_different_sizes():
    """``Global.update_freq``: a size is traced while the gradients of another are waiting."""
    sums = []
    for is_compiled in (False, True):
        net = build("Small", dropout=0.0)
        model = Compiled(net) if is_compiled else net
        for size in (4, 3):
            loss = paddle.nn.functional.cross_entropy(model(batch(size)), paddle.arange(size) % 3)
            loss.backward()
        sums.append([p.grad.numpy() for p in net.parameters() if p.grad is not None])
    for expected, found in zip(*sums, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
