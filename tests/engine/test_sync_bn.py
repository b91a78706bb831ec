"""Several processes train as one process with the whole batch does."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import small_networks
import support

import ppcls
from ppcls.engine import sync_bn
from ppcls.engine.distributed import World
from ppcls.registry import BACKBONES

paddle = pytest.importorskip("paddle")

SMALL = "{name: ConvNeXt_atto, class_num: 3, depths: [1, 1], widths: [8, 16]}"
RUNS = {
    "synced": ["Arch={name: Small, class_num: 3}", "Arch.use_sync_bn=true"],
    "recomputed": [f"Arch={SMALL}", "Global.recompute=true"],
    "compiled": [f"Arch={SMALL}", "Global.to_static=true"],
}
SHARED = ["DataLoader.Train.sampler.shuffle=false", "Global.eval_during_train=false"]


def two_processes(config, folder):
    """What the script of each process does."""
    BACKBONES.register()(small_networks.Small)
    for name, overrides in RUNS.items():
        batch = "DataLoader.Train.sampler.batch_size=4"
        support.train(config, *overrides, *SHARED, batch, f"Global.output_dir={folder}/{name}")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_processes_train_as_one_does(config_file, tmp_path, monkeypatch):
    """Batch statistics, blocks calculated twice, and programs, each beside the gradients' mean."""
    script = tmp_path / "script.py"
    paths = [str(support.ROOT / "tests"), str(Path(__file__).parent)]
    arguments = str(config_file), str(tmp_path / "two")
    script.write_text(
        f"import sys; sys.path[:0] = {paths}\n"
        f"import test_sync_bn; test_sync_bn.two_processes(*{arguments})\n"
    )
    done = support.launch(2, [script], tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    small_networks.register(monkeypatch)
    for name, overrides in RUNS.items():
        one = [o for o in overrides if o.startswith("Arch")]
        expected = support.train(config_file, *one, *SHARED, f"Global.output_dir={tmp_path / name}")
        run = tmp_path / "two" / name / expected.folder.name
        assert "2 process(es)" in support.text_of(run / "train.log")
        assert support.read_state(run / "latest")["global_step"] == 3
        found, wanted = support.weights(run / "latest"), support.weights(expected.folder / "latest")
        assert found.keys() == wanted.keys()
        for key, array in wanted.items():
            np.testing.assert_allclose(found[key], array, atol=1e-5, err_msg=f"{name}: {key}")


@pytest.fixture
def three_processes(monkeypatch):
    """As if this process were three with the same batch."""

    def add_up(vectors):
        return [3 * v for v in vectors]

    monkeypatch.setattr(sync_bn, "add_up", add_up)
    return World(0, 3)


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_equal_batches_are_normalised_as_one_of_them(three_processes, data_format):
    """Against Paddle's own layer: answers, gradients, running statistics, and evaluation."""
    rng = np.random.default_rng(0)
    shape = [4, 3, 5, 2] if data_format == "NCHW" else [4, 5, 2, 3]
    values = rng.normal(20, 3, shape).astype("float32")
    weights = paddle.to_tensor(rng.normal(size=shape).astype("float32"))
    results = []
    for is_synced in (False, True):
        norm = paddle.nn.BatchNorm2D(3, momentum=0.7, epsilon=1e-3, data_format=data_format)
        net = paddle.nn.Sequential(norm)
        names = list(net.state_dict())
        for tensor, start in zip(net.state_dict().values(), (2.0, 3.0, 4.0, 5.0), strict=True):
            tensor.set_value(np.array([start, 0.5, -start], np.float32))
        if is_synced:
            sync_bn.use_sync_bn(net, three_processes, logging.getLogger())
        assert list(net.state_dict()) == names
        x = paddle.to_tensor(values, stop_gradient=False)
        out = net(x)
        (out * weights).sum().backward()
        net.eval()
        tensors = [out, x.grad, norm.weight.grad, norm.bias.grad, net(x), norm._mean]
        results.append([t.numpy() for t in (*tensors, norm._variance)])
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def test_different_batches_are_normalised_as_one(monkeypatch):
    """By the definition: the statistics of all values of two processes, unequally many."""
    rng = np.random.default_rng(1)
    own, other = (rng.normal(5, 2, (n, 3, 4, 4)).astype("float32") for n in (6, 2))
    whole = np.concatenate([own, other]).astype("float64")

    def sums(values):
        values = values.astype("float64")
        total = values.sum((0, 2, 3)), (values**2).sum((0, 2, 3))
        return [
            paddle.to_tensor([float(values.size // 3)], "float64"),
            *map(paddle.to_tensor, total),
        ]

    def add_up(vectors):
        return [a + b for a, b in zip(vectors, sums(other), strict=True)]

    monkeypatch.setattr(sync_bn, "add_up", add_up)
    norm = paddle.nn.BatchNorm2D(3)
    sync_bn.use_sync_bn(paddle.nn.Sequential(norm), World(0, 2), logging.getLogger())
    out = norm(paddle.to_tensor(own)).numpy()
    mean, variance = whole.mean((0, 2, 3)), whole.var((0, 2, 3))
    expected = (own - mean.reshape(-1, 1, 1)) / np.sqrt(variance + 1e-5).reshape(-1, 1, 1)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm._mean.numpy(), 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm._variance.numpy(), 0.9 + 0.1 * variance, rtol=1e-5)


def test_one_process_has_nothing_to_synchronise(config_file, run_folder):
    support.train(config_file, "Arch.use_sync_bn=true", "Global.output_dir=" + str(run_folder))
    support.train(config_file)
    assert not support.same_files(run_folder / support.NET / "latest", run_folder / "latest")
    log = support.text_of(run_folder / support.NET / "train.log")
    assert "Arch.use_sync_bn: there is one process" in log


def test_a_network_without_batch_normalisation_is_told(caplog):
    net = ppcls.create_model("ConvNeXt_atto", depths=[1], widths=[8])
    with caplog.at_level(logging.WARNING):
        sync_bn.use_sync_bn(net, World(0, 2), logging.getLogger())
    assert "has no batch normalisation" in caplog.text


def test_on_gpus_paddles_own_layers_hold_the_same(monkeypatch):
    """They run on GPUs only: what is looked at here is what a checkpoint and an optimizer see."""
    net = ppcls.create_model("MobileNetV1_x0_25", class_num=3)
    net.adopt(epsilon=1e-3, momentum=0.7)
    before = net.state_dict()
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    sync_bn.use_sync_bn(net, World(0, 2), logging.getLogger())
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before if "norm._" not in name)
    norm = net.stem.norm
    assert isinstance(norm, paddle.nn.SyncBatchNorm)
    assert (norm._epsilon, norm._momentum) == (1e-3, 0.7)
