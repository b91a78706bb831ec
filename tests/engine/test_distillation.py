"""A ``DistillationModel`` in a run: what trains, what stays, what is kept."""

from __future__ import annotations

import copy
import json
import os
import signal

import numpy as np
import pytest
import support

from ppcls.errors import WeightsError

paddle = pytest.importorskip("paddle")

import ppcls  # noqa: E402
from ppcls.backbones.sublayers import find_layer, watched  # noqa: E402
from ppcls.engine.model import build_networks  # noqa: E402

STUDENT = "MobileNetV1_x0_25"
PAIR = {"model_name_pairs": [["Student", "Teacher"]]}


def tree(pictures, output, teacher, losses, student=None, **arch):
    """A run of ``support.config_tree`` with a teacher in front of the student."""
    whole = copy.deepcopy(support.config_tree(pictures, output))
    whole["Arch"] = {
        "name": "DistillationModel",
        "class_num": len(support.CLASSES),
        "models": [{"Teacher": teacher}, {"Student": student or {"name": STUDENT}}],
        **arch,
    }
    whole["Loss"]["Train"] = losses
    for metrics in whole["Metric"].values():
        metrics[:] = [{"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 2]}}]
    return whole


def frozen(pictures, output, weights, **arch):
    """Soft and hard targets, from a trained and frozen teacher."""
    losses = [{"DistillationCELoss": {"weight": 1.0, **PAIR}}]
    losses += [{"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}}]
    teacher = {"name": support.NET, "pretrained": str(weights)}
    whole = tree(pictures, output, teacher, losses, freeze_params_list=[True, False], **arch)
    whole["Loss"]["Eval"] = [{"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}}]
    return whole


def mutual(pictures, output):
    """Two that learn from each other, of a feature map too."""
    losses = [
        {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student", "Teacher"]}},
        {"DistillationDMLLoss": {"weight": 1.0, **PAIR}},
        {"DistillationDistanceLoss": {"weight": 0.1, "key": "stages[1]", **PAIR}},
    ]
    net = {"name": STUDENT, "return_patterns": ["stages[1]"]}
    return tree(pictures, output, net, losses, dict(net))


@pytest.fixture
def taught(tmp_path, pictures, trained):
    whole = frozen(pictures, tmp_path / "output", trained / "latest")
    return support.write_config(tmp_path / "taught.yaml", whole)


def folder(tmp_path, output="output"):
    return tmp_path / output / "DistillationModel"


def images(count=2, side=support.SIDE):
    rng = np.random.default_rng(0)
    return paddle.to_tensor(rng.normal(size=(count, 3, side, side)).astype("float32"))


# A frozen teacher ---------------------------------------------------------------------------------


def test_a_frozen_teacher_stays_as_it_is_and_the_student_learns(taught, trained, tmp_path):
    trainer = support.train(taught)
    teacher = trainer.group.networks["Teacher"]
    before = support.weights(trained / "latest")
    assert all((before[name] == t.numpy()).all() for name, t in teacher.state_dict().items())
    trained_names = {name for name, _ in trainer.group.named_parameters()}
    assert trained_names == {f"Student.{name}" for name, _ in trainer.net.named_parameters()}
    log = support.text_of(folder(tmp_path) / "train.log")
    assert "loss_ce: " in log and "loss_gt_ce: " in log
    assert "Teacher: loaded" in log and "frozen" in log


def test_a_frozen_teacher_is_always_in_evaluation_mode_and_keeps_nothing(taught):
    config = support.load(taught)
    _, group = build_networks(config, support_logger())
    group.train()
    teacher = group.networks["Teacher"]
    batch = images()
    outputs = group(batch)
    assert outputs["Teacher"].stop_gradient and outputs["Teacher"].is_leaf
    alone = ppcls.create_model(support.NET, class_num=3)
    ppcls.load_weights(alone, config.Arch.arguments["models"][0][1].extra["pretrained"])
    alone.eval()
    assert (outputs["Teacher"].numpy() == alone(batch).numpy()).all()
    outputs["Student"].sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_student_begins_as_it_would_alone(taught):
    config = support.load(taught)
    paddle.seed(config.Global.seed)
    net, _ = build_networks(config, support_logger())
    paddle.seed(config.Global.seed)
    alone = ppcls.create_model(STUDENT, class_num=3)
    assert (net.classifier.weight.numpy() == alone.classifier.weight.numpy()).all()


def test_the_student_alone_is_evaluated_exported_and_used_elsewhere(
    taught, config_file, tmp_path, cli
):
    trainer = support.train(taught)
    best = folder(tmp_path) / "best_model"
    assert {path.name for path in best.iterdir()} == support.CHECKPOINT_FILES
    assert support.read_state(best)["arch"]["name"] == STUDENT
    weights = f"Global.pretrained_model={best}"
    lines = []
    for path, more in ((taught, []), (config_file, [f"Arch.name={STUDENT}"])):
        given = support.override_arguments([weights, *more])
        result = cli("eval", "-c", path, *given)
        assert result.code == 0, result.err
        lines.append(result.out.strip().splitlines()[-1].rpartition("top1: ")[2])
    assert lines[0] == lines[1]
    assert float(lines[0].split(",")[0]) == pytest.approx(trainer.state.best_metric, abs=1e-5)
    exported = ppcls.export_model(support.load(taught, weights))
    assert f"model_name: {STUDENT}" in (exported / "inference.yml").read_text()


def test_a_teacher_of_other_classes_is_refused(taught, tmp_path):
    net = ppcls.create_model(support.NET, class_num=5)
    paddle.save(net.state_dict(), str(tmp_path / "five.pdparams"))
    path = f"Arch.models.0.Teacher.pretrained={tmp_path / 'five.pdparams'}"
    with pytest.raises(WeightsError, match=r"Arch.models, Teacher: .*five.pdparams: has 5 classes"):
        support.train(taught, path)


def test_a_teacher_in_safetensors(taught, tmp_path, trained):
    from safetensors.numpy import save_file

    save_file(support.weights(trained / "latest"), str(tmp_path / "teacher.safetensors"))
    path = f"Arch.models.0.Teacher.pretrained={tmp_path / 'teacher.safetensors'}"
    config = support.load(taught, path)
    digest = build_networks(support.load(taught), support_logger())[1].digests
    assert build_networks(config, support_logger())[1].digests == digest


# Resuming -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["frozen", "mutual"])
def test_a_run_terminated_within_an_epoch_goes_on_to_the_same_bits(
    kind, tmp_path, pictures, trained
):
    def make(output):
        if kind == "mutual":
            return mutual(pictures, tmp_path / output)
        return frozen(pictures, tmp_path / output, trained / "latest")

    whole = support.write_config(tmp_path / "whole.yaml", make("whole"))
    support.train(whole, "Global.epochs=2")
    cut = support.write_config(tmp_path / "cut.yaml", make("cut"))
    with pytest.raises(Exception, match="stopped by SIGTERM in epoch 2"):
        support.train(cut, "Global.epochs=2", handlers=handlers_with_signal(cut))
    latest = folder(tmp_path, "cut") / "latest"
    assert (latest / "networks.safetensors").is_file() == (kind == "mutual")
    support.train(cut, "Global.epochs=2", f"Global.checkpoints={latest}")
    other = folder(tmp_path, "whole") / "latest"
    assert support.same_files(latest, other) == []
    if kind == "mutual":
        name = "networks.safetensors"
        assert (latest / name).read_bytes() == (other / name).read_bytes()


def handlers_with_signal(path):
    """The default ones, and one that terminates the second epoch after its first batch."""
    from ppcls.engine.handler import Handler
    from ppcls.engine.handlers import default_handlers

    class Terminate(Handler):
        def step_start(self, trainer):
            if (trainer.state.epoch, trainer.state.step_in_epoch) == (2, 1):
                os.kill(os.getpid(), signal.SIGTERM)

    config = support.load(path)
    return [Terminate(), *default_handlers(config, ppcls.engine.trainer.World.from_environment())]


def test_another_teacher_in_the_middle_of_a_run_is_refused(taught, tmp_path, trained):
    support.train(taught)
    overrides = [
        f"Global.checkpoints={folder(tmp_path) / 'latest'}",
        f"Arch.models.0.Teacher.pretrained={trained / 'epoch_1'}",
        "Global.epochs=2",
    ]
    with pytest.raises(WeightsError, match="Teacher: these are not the weights that the run began"):
        support.train(taught, *overrides)


# Networks that learn from each other, features, tokens --------------------------------------------


def test_both_of_two_learn_and_the_optimizer_has_them_apart(tmp_path, pictures):
    path = support.write_config(tmp_path / "mutual.yaml", mutual(pictures, tmp_path / "output"))
    trainer = support.train(path)
    names = {key.partition("/")[0] for key in trainer.optimizer.state_dict()}
    assert {name.partition(".")[0] for name in names} == {"Student", "Teacher"}
    student, teacher = trainer.net.state_dict(), trainer.group.networks["Teacher"].state_dict()
    assert any((student[name].numpy() != teacher[name].numpy()).any() for name in student)
    log = support.text_of(folder(tmp_path) / "train.log")
    assert "loss_dml: " in log and "loss_l2: " in log


@pytest.mark.parametrize(
    ("name", "published", "ours"),
    [
        ("PPLCNet_x0_25", "blocks5", "stages.4"),
        ("PPLCNet_x0_25", "blocks6[1]", "stages.5.1"),
        ("ResNet18", "blocks[3]", "stages.1.1"),
        ("MobileNetV3_small_x0_35", "blocks[1].expand_conv", "stages.1.0.path.expand"),
        ("MobileNetV1_x0_25", "stages[2]", "stages.2"),
    ],
)
def test_layers_have_published_names_and_our_own(name, published, ours):
    net = ppcls.create_model(name, class_num=3)
    assert find_layer(net, published) is dict(net.named_sublayers())[ours]


def test_what_a_layer_gives_is_what_the_features_say():
    net = ppcls.create_model("PPLCNet_x0_25", class_num=3, data_format="NHWC")
    net.eval()
    batch = images(side=64)
    with watched(net, {"a": net.stages[-1]}) as seen:
        net(batch)
    assert np.allclose(seen["a"].numpy(), net.features(batch)[-1].numpy(), atol=1e-6)
    seen.clear()
    net(batch)
    assert seen == {}  # the hooks are gone


def test_a_layer_that_is_not_there_is_an_error_at_its_line(tmp_path, pictures):
    whole = mutual(pictures, tmp_path / "output")
    path = support.write_config(tmp_path / "mutual.yaml", whole)
    patterns = 'Arch.models.1.Student.return_patterns=["stages[1]", "stages[9]"]'
    message = r"command-line:1: Arch.models.1.Student.return_patterns: .* no layer 'stages\[9\]'"
    with pytest.raises(ppcls.config.ConfigError, match=message):
        support.train(path, patterns)


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_both_tokens_of_a_deit_learn(mode, tmp_path, pictures, trained):
    whole = frozen(pictures, tmp_path / "output", trained / "latest")
    whole["Loss"]["Train"] = [{"DistillationDeiTLoss": {"weight": 1.0, "mode": mode, **PAIR}}]
    student = {"depth": 1, "width": 12, "heads": 3, "image_size": support.SIDE}
    student["name"] = "DeiT_tiny_distilled_patch16_224"
    whole["Arch"]["models"][1] = {"Student": student}
    path = support.write_config(tmp_path / f"{mode}.yaml", whole)
    config = support.load(path)
    paddle.seed(config.Global.seed)
    start = build_networks(config, support_logger())[0].state_dict()
    trainer = support.train(path)
    for name in ("classifier.weight", "distillation_classifier.weight", "distillation_token"):
        assert (trainer.net.state_dict()[name].numpy() != start[name].numpy()).any(), name
    line = support.text_of(folder(tmp_path) / "metrics.jsonl").splitlines()[0]
    assert json.loads(line)["loss_deit"] > 0


def support_logger():
    import logging

    return logging.getLogger("silent")
