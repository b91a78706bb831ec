"""The CPU kernels in a run: chosen by the configuration, never in the way."""

import dataclasses
import logging

import numpy as np
import pytest
import support

paddle = pytest.importorskip("paddle")

from ppcls.data.loader import Batch  # noqa: E402
from ppcls.data.pipeline import Pipeline  # noqa: E402
from ppcls.engine.batch import ToTensors  # noqa: E402
from ppcls.engine.device import use_kernels  # noqa: E402
from ppcls.errors import EnvironmentProblem  # noqa: E402
from ppcls.ops import BuildError  # noqa: E402
from ppcls.registry import TRANSFORMS  # noqa: E402


def is_accelerated(net):
    return any("forward" in layer.__dict__ for layer in net.sublayers(include_self=True))


def losses(trainer):
    lines = support.text_of(trainer.folder / "train.log").splitlines()
    return [float(line.split("loss: ")[1].split(",")[0]) for line in lines if "[Iter:" in line]


def test_they_are_used_on_a_cpu_without_being_asked_for(config_file):
    assert is_accelerated(support.train(config_file).net)


def test_off_leaves_paddles_own_layers(config_file):
    assert not is_accelerated(support.train(config_file, "Global.cpu_kernels=off").net)


def test_the_run_is_the_same_within_rounding(config_file, tmp_path):
    # Small steps: with large ones, this network makes a thousand times as much of any difference.
    small = "Optimizer.lr.learning_rate=1e-6", "Arch.dropout=0"
    with_kernels = support.train(config_file, *small)
    place = f"Global.output_dir={tmp_path / 'stock'}"
    without = support.train(config_file, *small, "Global.cpu_kernels=off", place)
    assert losses(with_kernels) == pytest.approx(losses(without), rel=1e-3)
    one, other = (support.weights(t.folder / "latest") for t in (with_kernels, without))
    assert one.keys() == other.keys()


def test_a_checkpoint_of_either_is_evaluated_by_the_other(config_file, lively):
    import ppcls

    results = []
    for choice in ("on", "off"):
        weights = f"Global.pretrained_model={lively}"
        config = support.load(config_file, weights, f"Global.cpu_kernels={choice}")
        results.append(ppcls.Evaluator(config).run())
    assert results[0]["top1"] == results[1]["top1"]
    assert results[0]["CELoss"] == pytest.approx(results[1]["CELoss"], rel=1e-5)


def test_prediction_gives_the_same_answers(config_file, lively, pictures):
    import ppcls

    answers = []
    for choice in ("on", "off"):
        weights = f"Global.pretrained_model={lively}"
        config = support.load(config_file, weights, f"Global.cpu_kernels={choice}")
        answers.append(ppcls.Predictor(config).predict(pictures / "val" / "red"))
    for one, other in zip(*answers, strict=True):
        assert one["class_ids"] == other["class_ids"]
        assert one["scores"] == pytest.approx(other["scores"], abs=2e-5)


@pytest.fixture
def no_compiler(monkeypatch):
    def refuse(*arguments):
        raise BuildError("no C++ compiler found (apt-get install g++)")

    monkeypatch.setattr("ppcls.ops.accelerate", refuse)


def test_without_a_compiler_one_line_says_so_and_the_run_goes_on(config_file, no_compiler):
    trainer = support.train(config_file)
    assert not is_accelerated(trainer.net)
    log = support.text_of(trainer.folder / "train.log")
    assert log.count("no C++ compiler found (apt-get install g++)") == 1


def test_without_a_compiler_insisting_is_an_error(config_file, no_compiler):
    with pytest.raises(EnvironmentProblem, match=r"Global\.cpu_kernels is on, but no C\+\+"):
        support.train(config_file, "Global.cpu_kernels=on")


def test_a_network_of_unknown_layers_is_left_alone(caplog):
    net = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(4, 2))
    logger = logging.getLogger("test_cpu_kernels")
    with caplog.at_level(logging.INFO, logger.name):
        assert not use_kernels(net, "on", logger)
    assert "know too few layers of this network" in caplog.text
    assert caplog.records[-1].levelno == logging.WARNING


def make_batch(images, labels):
    names = {field.name for field in dataclasses.fields(Batch)} - {"images", "labels"}
    return Batch(images=images, labels=np.array(labels), **dict.fromkeys(names))


@pytest.mark.parametrize("tail", [("NormalizeImage", "ToCHWImage"), ("ToCHWImage",)])
def test_pixels_become_the_same_bits(tail):
    pipeline = Pipeline([TRANSFORMS.build(n, {}) for n in ("DecodeImage", *tail)])
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 5, 3), dtype=np.uint8)
    batch = make_batch(images, [2, 0, 1])
    (fast, targets), (plain, _) = (ToTensors(pipeline, k)(batch) for k in (True, False))
    assert fast.shape == plain.shape == [3, 3, 17, 5]
    assert np.array_equal(fast.numpy(), plain.numpy())
    assert targets.tolist() == [2, 0, 1]


def test_a_batch_of_floats_is_normalised_as_before():
    pipeline = Pipeline([TRANSFORMS.build(n, {}) for n in ("DecodeImage", "ToCHWImage")])
    images = np.random.default_rng(0).random((2, 4, 4, 3), dtype=np.float32)
    received, _ = ToTensors(pipeline, True)(make_batch(images, [0, 1]))
    assert np.array_equal(received.numpy(), images.transpose(0, 3, 1, 2))
