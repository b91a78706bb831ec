"""Runs whose batches are mixed: what is trained on, and what a resumed run sees."""

from __future__ import annotations

import itertools
import json
import logging
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support

from ppcls.config import ConfigError
from ppcls.engine.batch import Mixing, build_reader, check_folds
from ppcls.engine.distributed import World
from ppcls.engine.handler import Handler
from ppcls.engine.handlers import default_handlers
from ppcls.errors import Stopped

paddle = pytest.importorskip("paddle")

KEY = "DataLoader.Train.dataset.batch_transform_ops"
SAMPLER = {
    "OpSampler": {
        "MixupOperator": {"alpha": 0.8, "prob": 0.4},
        "CutmixOperator": {"alpha": 1.0, "prob": 0.4},
    }
}
MIXING = f"{KEY}={json.dumps([SAMPLER])}"
LEFT_OUT = "Metric.Train is left out"


class Watch(Handler):
    """Keeps what each step was trained on."""

    def __init__(self) -> None:
        self.steps: list[tuple[np.ndarray, np.ndarray, float]] = []

    def step_end(self, trainer: Any, step: Any) -> None:
        loss = step.losses["loss"].item()
        self.steps.append((step.logits.numpy(), step.targets.numpy(), loss))


class Interruption(Handler):
    """Sends this process a signal after some steps of an epoch."""

    def __init__(self, epoch: int, steps: int):
        self.at = epoch, steps

    def step_end(self, trainer: Any, step: Any) -> None:
        if (trainer.state.epoch, trainer.state.step_in_epoch) == self.at:
            signal.raise_signal(signal.SIGTERM)


def train(config_file: Any, *overrides: str) -> list[tuple[np.ndarray, np.ndarray, float]]:
    watch = Watch()
    support.train(config_file, *overrides, handlers=[watch])
    return watch.steps


@pytest.mark.parametrize(
    "ops",
    [
        [SAMPLER],
        [{"FmixOperator": None}],
        [{"MixupCutmixHybrid": {"cutmix_alpha": 1.0, "mode": "elem", "num_classes": 3}}],
    ],
)
def test_the_loss_is_that_of_the_mixed_targets(config_file, ops):
    steps = train(config_file, f"{KEY}={json.dumps(ops)}")
    assert len(steps) == 3
    for logits, targets, loss in steps:
        assert targets.dtype == np.float32
        assert targets.shape == logits.shape == (8, 3)
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
        logits = logits.astype(np.float64)
        log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected = -(targets * log_softmax).sum(axis=1).mean()
        assert loss == pytest.approx(expected, rel=1e-5)
    assert any((targets.max(axis=1) < 1).any() for _, targets, _ in steps)


@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses(epsilon):
    """Section 2 of arXiv:1710.09412: cross entropy is linear in the target."""
    from ppcls.data.mixing.hybrid import MixupCutmixHybrid
    from ppcls.losses.ce import CELoss

    rng = np.random.default_rng(0)
    logits = paddle.to_tensor(rng.normal(size=(4, 5), scale=4).astype(np.float32))
    labels = np.array([0, 1, 2, 3])
    images = np.zeros((4, 3, 2, 2), np.float32)
    mix = MixupCutmixHybrid(label_smoothing=0.0)
    _, mixture = mix(images, np.eye(5, dtype=np.float32)[labels], rng)
    share = float(mixture[0, 0])
    assert 0.05 < share < 0.95
    loss = CELoss(1.0, epsilon)
    found, one, other = (
        loss(logits, paddle.to_tensor(targets)).item()
        for targets in (mixture, labels, labels[::-1])
    )
    assert found == pytest.approx(share * one + (1 - share) * other, rel=1e-5)


def test_a_run_stopped_within_an_epoch_goes_on_as_if_nothing_had_been(
    config_file, run_folder, tmp_path
):
    overrides = [MIXING, "Global.epochs=3"]
    whole = tmp_path / "whole"
    support.train(config_file, *overrides, f"Global.output_dir={whole}")

    config = support.load(config_file, *overrides)
    with pytest.raises(Stopped):
        handlers = [Interruption(2, 2), *default_handlers(config, World())]
        support.train(config_file, *overrides, handlers=handlers)
    state = support.read_state(run_folder / "latest")
    assert (state["epoch"], state["step_in_epoch"]) == (2, 2)
    support.train(config_file, *overrides, f"Global.checkpoints={run_folder / 'latest'}")
    assert support.same_files(whole / support.NET / "latest", run_folder / "latest") == []


def test_metrics_of_training_are_left_out_and_the_log_says_so_once(config_file, run_folder):
    support.train(config_file, MIXING, "Global.epochs=2")
    log = support.text_of(run_folder / "train.log")
    assert log.count(LEFT_OUT) == 1
    trained = [line for line in log.splitlines() if "[Train]" in line]
    assert trained
    assert not any("top1" in line for line in trained)
    assert "[Eval][Epoch 2][Avg]" in log
    assert "top1" in next(line for line in log.splitlines() if "[Eval][Epoch 2][Avg]" in line)


def test_without_mixing_nothing_is_left_out(config_file, run_folder):
    support.train(config_file)
    log = support.text_of(run_folder / "train.log")
    assert LEFT_OUT not in log
    assert "[Train][Epoch 1/1][Avg]top1" in log


def test_every_batch_of_every_epoch_and_process_is_mixed_in_its_own_way(config_file):
    images, labels = paddle.zeros([8, 3, 4, 4]), paddle.arange(8) % 3
    overrides = f"{KEY}=[MixupOperator]"
    mixtures = []
    for seed, rank, epoch, index in itertools.product((7, 8), (0, 1), (1, 2), (0, 1)):
        config = support.load(config_file, overrides, f"Global.seed={seed}")
        targets = Mixing.of(config, World(rank, 2))(images, labels, epoch, index)[1]
        again = Mixing.of(config, World(rank, 2))(images, labels, epoch, index)[1]
        assert (targets == again).all().item()
        mixtures.append(targets.numpy().tobytes())
    assert len(set(mixtures)) == 16


def test_several_classes_of_one_picture_are_mixed_as_they_are(config_file):
    config = support.load(config_file, f"{KEY}=[MixupCutmixHybrid: {{label_smoothing: 0}}]")
    targets = paddle.to_tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    mixed = Mixing.of(config, World())(paddle.zeros([2, 3, 4, 4]), targets, 1, 0)[1].numpy()
    np.testing.assert_allclose(mixed[:, 1], 1, atol=1e-6)
    np.testing.assert_allclose(mixed[:, 0] + mixed[:, 2], 1, atol=1e-6)
    assert 0 < mixed[0, 0] < 1


# Parts of a data set ------------------------------------------------------------------------------


def indices(config_file: Any, mode: Any, *overrides: str) -> list[int]:
    """Rows of the pictures' folder that a reader reads."""
    config = support.load(config_file, *overrides)
    with build_reader(config, mode, World(), logging.getLogger("ppcls")) as reader:
        return [reader.dataset.row(i) for i in range(len(reader.dataset))]


def test_a_few_pictures_of_each_class(config_file):
    few = "DataLoader.Train.dataset.few_shot=2", "DataLoader.Train.sampler.batch_size=3"
    kept = indices(config_file, "Train", *few)
    assert [i // 8 for i in kept] == [0, 0, 1, 1, 2, 2]
    assert len(train(config_file, *few)) == 2


def test_a_shortage_is_told_by_the_logger_of_the_run(config_file, caplog):
    config = support.load(config_file, "DataLoader.Train.dataset.few_shot=9")
    build_reader(config, "Train", World(), logging.getLogger("run")).close()
    names = [record.name for record in caplog.records if "few_shot" in record.getMessage()]
    assert names == ["run"]


def test_folds_share_the_pictures_out(config_file, pictures):
    same = [
        f"DataLoader.{mode}.dataset={{name: ImageNetDataset, image_root: '{pictures}', "
        f"cls_label_path: '{pictures}/train_list.txt', fold: '{{}}/4'}}"
        for mode in ("Train", "Eval")
    ]
    evaluated = []
    for fold in range(1, 5):
        overrides = [text.replace("{}/4", f"{fold}/4") for text in same]
        trained = indices(config_file, "Train", *overrides)
        evaluated.append(indices(config_file, "Eval", *overrides))
        assert sorted(trained + evaluated[-1]) == list(range(24))
    assert sorted(itertools.chain(*evaluated)) == list(range(24))


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [
        ("{name: ImageFolder, image_root: a, fold: 1/5}", "{name: ImageFolder, image_root: a}"),
        (
            "{name: CSVDataset, image_root: a, csv_path: train.csv, fold: 1/5}",
            "{name: CSVDataset, image_root: a, csv_path: val.csv, fold: 1/5}",
        ),
        (
            "{name: Cifar10, data_file: a, mode: train, fold: 1/5}",
            "{name: Cifar10, data_file: a, mode: test, fold: 1/5}",
        ),
        (
            "{name: PackedDataset, root: a, fold: 1/5}",
            "{name: PackedDataset, root: b, fold: 1/5}",
        ),
    ],
)
def test_a_fold_of_other_samples_is_refused(config_file, train, evaluation):
    keys = "DataLoader.Train.dataset", "DataLoader.Eval.dataset"
    one, other = (
        f"{key}={text[:-1]}, _replace_: true}}"
        for key, text in zip(keys, (train, evaluation), strict=True)
    )
    dataset = SimpleNamespace(source=SimpleNamespace(labels=np.arange(5)))
    with pytest.raises(ConfigError, match="cut from the same samples"):
        check_folds(support.load(config_file, one, other), dataset, dataset)
    check_folds(support.load(config_file, one, one.replace("Train", "Eval")), dataset, dataset)


def test_a_fold_of_a_folder_that_keeps_the_evaluation_apart_is_refused(config_file):
    """Its ``train/`` and ``val/`` are two sets of samples already."""
    folds = [f"DataLoader.{mode}.dataset.fold=1/4" for mode in ("Train", "Eval")]
    with pytest.raises(ConfigError, match="received those of an evaluation"):
        support.train(config_file, *folds)


def test_a_part_that_there_is_not_is_a_mistake_in_the_configuration(config_file):
    key = "DataLoader.Eval.dataset.fold"
    with pytest.raises(ConfigError) as caught:
        indices(config_file, "Eval", f"{key}=7/5")
    [problem] = caught.value.problems
    assert (problem.path, str(problem.origin)) == (key, "command-line:1")
