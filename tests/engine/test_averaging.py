"""Averages of the weights of a run: what they are, who uses them, and how a run goes on."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support

import ppcls
from ppcls.config import ConfigError
from ppcls.config.averaging import EMASection
from ppcls.engine.handler import Handler
from ppcls.errors import Stopped, WeightsError

paddle = pytest.importorskip("paddle")

from safetensors.numpy import load_file  # noqa: E402

from ppcls.engine.averaging.flat import FlatWeights  # noqa: E402
from ppcls.engine.averaging.statistics import refresh  # noqa: E402

FILES = ("model.pdparams", "optimizer.safetensors", "ema.safetensors")
EMA = "EMA={decay: 0.8, warmup: true}"
SWA = "Average={name: SWA, start_epoch: 2, lr: 0.01}"


class Recorder(Handler):
    """Keeps the weights after each update and each epoch; may stop the run as Ctrl-C would."""

    def __init__(self, stop_after: int = 0):
        self.updates: list[dict[str, np.ndarray]] = []
        self.epochs: list[dict[str, np.ndarray]] = []
        self._stop_after = stop_after

    def fit_start(self, trainer: Any) -> None:
        self.first = floats(trainer.net)

    def update_end(self, trainer: Any) -> None:
        self.updates.append(floats(trainer.net))
        if trainer.state.global_step == self._stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    def epoch_end(self, trainer: Any) -> None:
        self.epochs.append(floats(trainer.net))


def floats(net: Any) -> dict[str, np.ndarray]:
    tensors = net.state_dict().items()
    return {n: t.numpy().copy() for n, t in tensors if "float" in str(t.dtype)}


def run(config_file: Path, *overrides: str, stop_after: int = 0) -> tuple[Any, Recorder]:
    recorder = Recorder(stop_after)
    with paddle.utils.unique_name.guard():
        trainer = ppcls.Trainer(support.load(config_file, *overrides))
        trainer.handlers.insert(0, recorder)
        trainer.fit()
    return trainer, recorder


def group(folder: Path, name: str) -> dict[str, np.ndarray]:
    arrays = load_file(folder / "ema.safetensors")
    return {k.rpartition("/")[2]: a for k, a in arrays.items() if k.rpartition("/")[0] == name}


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=2e-6, atol=1e-6, err_msg=name)


def mean(*weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.mean([w[name] for w in weights], 0, np.float64) for name in weights[0]}


# What the averages are ----------------------------------------------------------------------------


def test_decay_warms_up_as_written() -> None:
    section = EMASection(decay=0.5, warmup=True, every=2)
    by_hand = [1 / 10, 1 / 10, 2 / 11, 2 / 11, 3 / 12, 3 / 12, 4 / 13]
    assert [section.decay_at(step) for step in range(7)] == by_hand
    assert section.decay_at(1000) == 0.5
    assert [section.decay_at(step, first=3) for step in (2, 3, 5)] == [0, 1 / 10, 2 / 11]
    assert EMASection().decay_at(0) == 0.9999


def test_an_ema_is_its_closed_form_after_accumulated_steps(config_file, run_folder) -> None:
    """Six batches an epoch, two a step; batch statistics are averaged like the weights."""
    overrides = "DataLoader.Train.sampler.batch_size=4", "Global.update_freq=2", "Global.epochs=2"
    _, recorder = run(config_file, EMA, *overrides)
    expected = {n: a.astype(np.float64) for n, a in recorder.first.items()}
    for t, weights in enumerate(recorder.updates):
        decay = min(0.8, (1 + t) / (10 + t))
        expected = {n: decay * e + (1 - decay) * weights[n] for n, e in expected.items()}
    assert len(recorder.updates) == 6
    assert_close(group(run_folder / "latest", "ema"), expected)
    assert_close(group(run_folder / "latest", "trained"), recorder.updates[-1])


def test_an_ema_starts_with_its_epoch_and_counts_every_other_step(config_file, run_folder) -> None:
    section = "EMA={decay: 0.6, every: 2, start_epoch: 2}"
    _, recorder = run(config_file, section, "Global.epochs=3", "Global.save_interval=1")
    first = support.read_state(run_folder / "epoch_1")
    assert first["weights"] == "trained"
    assert not (run_folder / "epoch_1" / "ema.safetensors").exists()
    expected = recorder.updates[2]
    for number in (4, 6, 8):  # the steps of epoch 2 and 3 are the fourth to the ninth
        weights = recorder.updates[number]
        expected = {n: 0.6 * e.astype(np.float64) + 0.4 * weights[n] for n, e in expected.items()}
    assert_close(group(run_folder / "latest", "ema"), expected)


def test_swa_and_last_k_are_equal_means_of_the_ends_of_epochs(config_file, run_folder) -> None:
    epochs = "Global.epochs=4"
    swa = "Average={name: SWA, start_epoch: 2, every_epochs: 2, refresh_batches: 0}"
    _, recorder = run(config_file, swa, epochs)
    assert_close(group(run_folder / "latest", "swa"), mean(*recorder.epochs[1::2]))
    last = "Average={name: LastK, k: 3, refresh_batches: 0}"
    _, recorder = run(config_file, last, epochs)
    assert_close(group(run_folder / "latest", "last_k"), mean(*recorder.epochs[1:]))


def test_swa_starts_at_three_quarters_and_sets_its_rate(config_file) -> None:
    from ppcls.registry import AVERAGES

    assert AVERAGES.build("SWA", {}, epochs=200).start_epoch == 150
    trainer, _ = run(config_file, SWA, "Global.epochs=2")
    lines = support.text_of(trainer.folder / "train.log")
    assert re.findall(r"lr\(Constant\): (\S+),", lines) == ["0.02000000"] * 3 + ["0.01000000"] * 3


def test_best_k_is_the_mean_of_the_weights_that_scored_best(config_file, run_folder) -> None:
    scores = iter([0.5, 0.1, 0.9, 0.2, 0.5])
    with paddle.utils.unique_name.guard():
        average = "Average={name: BestK, k: 2, refresh_batches: 0}"
        trainer = ppcls.Trainer(support.load(config_file, average, "Global.epochs=5"))
    recorder = Recorder()
    trainer.handlers.insert(0, recorder)
    own = trainer.evaluate

    def evaluate() -> dict[str, float]:
        result = own()
        trained = trainer.averaging.label == "trained"
        return {**result, "top1": next(scores)} if trained else result

    trainer.evaluate = evaluate
    trainer.fit()
    best = mean(recorder.epochs[0], recorder.epochs[2])  # the fifth is no better than the first
    assert_close(group(run_folder / "latest", "best_k"), best)


def test_what_is_equal_in_all_epochs_stays_to_the_bit() -> None:
    from ppcls.engine.averaging.epochs import mean as mean_of

    weights = paddle.to_tensor(np.random.default_rng(0).standard_normal(999).astype("float32"))
    average = mean_of([weights] * 5)
    assert np.array_equal(average.numpy(), weights.numpy())
    average.lerp_(weights, 1e-4)
    assert np.array_equal(average.numpy(), weights.numpy())


# Batch statistics ---------------------------------------------------------------------------------


def test_batch_statistics_are_the_means_over_batches() -> None:
    """Against NumPy: of two batches of four and two pictures, weighed by their size."""
    conv, norm, frozen = paddle.nn.Conv2D(3, 5, 1), paddle.nn.BatchNorm2D(5), paddle.nn.BatchNorm(5)
    net = paddle.nn.Sequential(paddle.nn.Dropout(0.5), conv, norm, frozen)
    frozen.eval()
    images = np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype("float32")
    with paddle.no_grad():
        maps = conv(paddle.to_tensor(images)).numpy().astype(np.float64)
    batches = [paddle.to_tensor(part) for part in (images[:4], images[4:])]
    assert refresh(net, iter(batches)) == 2
    for buffer, statistic in ((norm._mean, np.mean), (norm._variance, np.var)):
        first, second = (statistic(part, axis=(0, 2, 3)) for part in (maps[:4], maps[4:]))
        np.testing.assert_allclose(buffer.numpy(), (4 * first + 2 * second) / 6, rtol=1e-5)
    assert np.array_equal(frozen._mean.numpy(), np.zeros(5))
    assert norm._momentum == 0.9
    assert [layer.training for layer in net] == [True, True, True, False]


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_swa_recomputes_batch_statistics_from_the_training_pictures(
    config_file, run_folder, pictures, kernels
) -> None:
    """All 24 pictures are one batch here, so Paddle's own statistics of them are the answer."""
    overrides = "DataLoader.Train.sampler.batch_size=24", f"Global.cpu_kernels={kernels}"
    run(config_file, "Average={name: SWA, start_epoch: 1}", "Global.epochs=2", *overrides)
    net = ppcls.create_model(support.NET, class_num=3)
    ppcls.load_weights(net, run_folder / "latest")
    paths = sorted((pictures / "train").rglob("*.png"))
    images = np.concatenate([support.preprocessed(path) for path in paths])
    saved = floats(net)
    for norm in net.sublayers():
        if isinstance(norm, paddle.nn.BatchNorm2D):
            norm.train()
            norm._momentum = 0.0
        else:
            norm.training = False
    with paddle.no_grad():
        net(paddle.to_tensor(images))
    for name, array in floats(net).items():
        np.testing.assert_allclose(saved[name], array, rtol=1e-3, atol=2e-5, err_msg=name)


# The swap -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", [True, False])
def test_a_swap_is_seen_by_the_network_and_undone_to_the_bit(kernels: bool) -> None:
    from ppcls.ops.network import accelerate

    net, other = (ppcls.create_model(support.NET, class_num=3) for _ in range(2))
    for each in (net, other):
        if kernels:
            accelerate(each)
        each.eval()
    images = paddle.to_tensor(np.ones((1, 3, 32, 32), np.float32))
    before, logits, others = floats(net), net(images).numpy(), other(images).numpy()
    integers = [t.numpy() for t in net.state_dict().values() if "int" in str(t.dtype)]
    weights = FlatWeights(net)
    values = FlatWeights(other).read()
    with pytest.raises(KeyError), weights.replaced(values):
        assert np.array_equal(net(images).numpy(), others)
        trained = weights.to_arrays(weights.read(), "trained")
        raise KeyError
    assert np.array_equal(net(images).numpy(), logits)
    for name, array in floats(net).items():
        assert np.array_equal(array, before[name]), name
        assert np.array_equal(trained[f"trained/{name}"], array), name
    now = [t.numpy() for t in net.state_dict().values() if "int" in str(t.dtype)]
    assert all(map(np.array_equal, integers, now))


# Which weights count ------------------------------------------------------------------------------


def test_the_average_is_what_eval_infer_and_export_use(cli, config_file, run_folder) -> None:
    from ppcls.deploy.paddle_runtime import PaddleRuntime

    run(config_file, EMA)
    best = run_folder / "best_model"
    assert support.read_state(best)["weights"] == "ema"
    averaged, trained = group(best, "ema"), group(best, "trained")
    saved = support.weights(best)
    assert all(np.array_equal(saved[name], array) for name, array in averaged.items())
    assert any(not np.array_equal(saved[name], array) for name, array in trained.items())
    config = run_folder / "config.yaml"
    use = "-o", f"Global.pretrained_model={best}"
    scored = cli("eval", "-c", config, *use).out
    epoch = support.read_state(best)["epoch"]
    line = re.compile(rf"\[Eval\]\[Epoch {epoch}\]\[Avg\].*")
    assert "an average of those in training: ema" in scored
    assert line.findall(scored) == line.findall(support.text_of(run_folder / "train.log"))
    assert f"[Eval][Epoch {epoch}][best metric ema: " in support.text_of(run_folder / "train.log")
    assert cli("export", "-c", config, *use).code == 0
    net = ppcls.create_model(support.NET, class_num=3)
    ppcls.load_weights(net, {**saved, **averaged})
    net.eval()
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    exported = PaddleRuntime(Path(support.load(config).Global.save_inference_dir))(images)
    logits = net(paddle.to_tensor(images)).numpy()
    np.testing.assert_allclose(exported, logits, rtol=1e-3, atol=1e-5)


def test_trained_weights_may_be_scored_instead(config_file, run_folder) -> None:
    run(config_file, "EMA={decay: 0.8, evaluate: trained}")
    latest = run_folder / "latest"
    assert support.read_state(latest)["weights"] == "trained"
    assert "[Eval][Epoch 1][best metric: " in support.text_of(run_folder / "train.log")
    averaged, saved = group(latest, "ema"), support.weights(latest)
    assert any(not np.array_equal(saved[name], array) for name, array in averaged.items())


def test_both_may_be_scored(config_file, run_folder) -> None:
    scores = []
    for which in ("trained", "averaged"):
        output = f"Global.output_dir={run_folder.parent / which}"
        run(config_file, "EMA.decay=0.8", f"EMA.evaluate={which}", output)
        log = support.text_of(run_folder.parent / which / support.NET / "train.log")
        scores += re.findall(r"\[Eval\]\[Epoch 1\]\[Avg\](.*)", log)
    run(config_file, "EMA={decay: 0.8, evaluate: both}")
    log = support.text_of(run_folder / "train.log")
    found = re.findall(r"\[Eval\]\[Epoch 1\]\[(Avg|Avg ema)\](.*)", log)
    assert found == [("Avg", scores[0]), ("Avg ema", scores[1])]
    assert re.findall(r"\[(best metric.*?):", log) == ["best metric", "best metric ema"]
    kinds = [json.loads(x)["kind"] for x in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert kinds[-2:] == ["eval_trained", "eval"]
    assert support.read_state(run_folder / "best_model")["weights"] == "ema"


# Going on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "average",
    [
        "EMA={decay: 0.8, warmup: true, every: 2, evaluate: both}",
        "Average={name: SWA, start_epoch: 1, lr: 0.01}",
        "Average={name: BestK, k: 2, refresh_batches: 1}",
    ],
)
def test_a_run_stopped_within_an_epoch_goes_on_to_the_same_bits(
    config_file, run_folder, average
) -> None:
    """Six batches an epoch, two a step; stopped after the fifth step of six."""
    batches = "DataLoader.Train.sampler.batch_size=4", "Global.update_freq=2"
    overrides = average, *batches, "Global.epochs=2", "Global.print_batch_step=9"
    whole = run_folder.parent / "whole"
    run(config_file, *overrides, f"Global.output_dir={whole}")
    with pytest.raises(Stopped):
        run(config_file, *overrides, stop_after=5)
    assert support.read_state(run_folder / "latest")["step_in_epoch"] == 4
    run(config_file, *overrides, f"Global.checkpoints={run_folder / 'latest'}")
    for name in FILES:
        one, other = (f / "latest" / name for f in (whole / support.NET, run_folder))
        assert one.read_bytes() == other.read_bytes(), name
    states = [support.read_state(f / "latest") for f in (whole / support.NET, run_folder)]
    assert states[0]["best_metric"] == states[1]["best_metric"]
    assert states[0]["handlers"] == states[1]["handlers"]


def test_averages_are_part_of_the_manifest(config_file, run_folder) -> None:
    run(config_file, EMA)
    support.flip_bit(run_folder / "latest" / "ema.safetensors")
    with pytest.raises(WeightsError, match=r"ema\.safetensors: is damaged"):
        run(config_file, EMA, "Global.epochs=2", f"Global.checkpoints={run_folder / 'latest'}")


def test_going_on_without_the_average_is_refused(config_file, run_folder) -> None:
    run(config_file, EMA)
    resume = "Global.epochs=2", f"Global.checkpoints={run_folder / 'latest'}"
    with pytest.raises(WeightsError, match="go on with the section EMA"):
        run(config_file, *resume)
    run(config_file, SWA, *resume)  # another average goes on with the trained weights, and anew
    assert support.read_state(run_folder / "latest")["weights"] == "swa"


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([EMA, SWA], r"Average: expected one average a run: EMA and SWA are given"),
        (["EMA={decay: 1.0}"], r"EMA\.decay: expected a number"),
        (["EMA={decoy: 0.9}"], r"EMA\.decoy: unknown key; did you mean 'decay'"),
        (["EMA={start_epoch: 9}"], r"EMA\.start_epoch: expected at most the 3 epochs"),
        (["Average={name: SWA, start_epoch: 9}"], r"Average\.start_epoch: .* 3 epochs"),
        (["Average={name: SVA}"], r"Average\.name: unknown average 'SVA'; did you mean 'SWA'"),
        (
            ["Average={name: BestK}", "Global.eval_during_train=false"],
            r"Average\.name: expected Global\.eval_during_train",
        ),
        (
            ["Average={name: BestK}", "Global.eval_every_steps=2"],
            r"Average\.refresh_batches: expected 0 with Global\.eval_every_steps",
        ),
    ],
)
def test_what_cannot_be_is_refused(config_file, overrides, message) -> None:
    with pytest.raises(ConfigError, match=message):
        support.load(config_file, "Global.epochs=3", *overrides)
