"""``Arch.name: DistillationModel``: every nested network is checked as ``Arch`` itself would be."""

from __future__ import annotations

from pathlib import Path

import pytest
from yaml_files import line_of, load, mistakes, only_mistake, write

pytest.importorskip("paddle")

# As PaddleClas publishes them, but for smaller networks.
PUBLISHED = """\
Arch:
  name: "DistillationModel"
  class_num: &class_num 10
  # if not null, its lengths should be same as models
  pretrained_list:
  # if not null, its lengths should be same as models
  freeze_params_list:
  - True
  - False
  models:
    - Teacher:
        name: ResNet18_vd
        class_num: *class_num
        pretrained: True
        use_ssld: True
        return_patterns: ["blocks[7]"]
    - Student:
        name: DeiT_tiny_distilled_patch16_224
        class_num: *class_num
        pretrained: False
  infer_model_name: "Student"
Loss:
  Train:
    - DistillationCELoss:
        weight: 1.0
        model_name_pairs:
        - ["Student", "Teacher"]
    - DistillationDeiTLoss: {weight: 1.0, model_name_pairs: [[Student, Teacher]]}
  Eval:
    - DistillationGTCELoss:
        weight: 1.0
        model_names: ["Student"]
Infer:
  PostProcess:
    name: DistillationPostProcess
    func: Topk
    topk: 5
Metric:
  Train:
    - DistillationTopkAcc: {model_key: "Student", topk: 1}
  Eval:
    - DistillationTopkAcc:
        model_key: "Student"
        topk: [1, 5]
"""


def test_a_published_configuration(tmp_path: Path) -> None:
    config = load(tmp_path, PUBLISHED)
    assert config.network.name == "DeiT_tiny_distilled_patch16_224"
    assert config.network.arguments["class_num"] == 10
    assert [warning.partition(": ")[2] for warning in config.warnings] == [
        "Arch.models.0.Teacher.use_ssld: weights are chosen by pretrained"
    ]
    again = load(tmp_path, config.to_yaml())
    assert again.Arch == config.Arch


def test_the_number_of_classes_is_said_once_for_all_networks(tmp_path: Path) -> None:
    text = PUBLISHED.replace("        class_num: *class_num\n", "")
    assert load(tmp_path, text, ["Arch.class_num=7"]).network.arguments["class_num"] == 7


def test_the_list_of_weights_stands_for_the_networks_own(tmp_path: Path) -> None:
    overrides = ["Arch.pretrained_list=[null, weights.pdparams]"]
    assert load(tmp_path, PUBLISHED, overrides).network.extra["pretrained"] == "weights.pdparams"


MISTAKES = {
    "an argument": (
        ("        pretrained: False", "        drop_out: 0.1"),
        "models.1.Student.drop_out: unknown key; did you mean 'dropout'?",
    ),
    "a value": (
        ("        pretrained: False", "        dropout: 2"),
        "models.1.Student.dropout: expected a number >= 0 and < 1, received 2",
    ),
    "a network": (
        ("        name: ResNet18_vd", "        name: ResNet18_vb"),
        "models.0.Teacher.name: unknown network 'ResNet18_vb'; did you mean 'ResNet18_vd'?",
    ),
    "a group": (
        ('  name: "DistillationModel"', '  name: "DistilationModel"'),
        "name: unknown group of networks 'DistilationModel'; did you mean 'DistillationModel'?",
    ),
    "no weights": (
        ("        pretrained: True", "        pretrained: False"),
        "freeze_params_list: 'Teacher' is frozen and has no weights to teach with: "
        "set its pretrained",
    ),
    "a student of no such name": (
        ('  infer_model_name: "Student"', '  infer_model_name: "Studend"'),
        "infer_model_name: expected one of models, 'Teacher', 'Student'; received 'Studend'; "
        "did you mean 'Student'?",
    ),
    "weights twice": (
        ("  pretrained_list:\n", "  pretrained_list: [a.pdparams, null]\n"),
        "pretrained_list: expected null for 'Teacher', which has pretrained already, received "
        "'a.pdparams'",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_the_networks(tmp_path: Path, case: str) -> None:
    (old, new), message = MISTAKES[case]
    text = PUBLISHED.replace(old, new)
    problem = only_mistake(write(tmp_path, text))
    assert str(problem).partition(": Arch.")[2] == message
    where = "freeze_params_list:\n" if case == "no weights" else new
    assert problem.origin.line == line_of(text, where)


@pytest.mark.parametrize("key", ["freeze_params_list", "pretrained_list"])
def test_a_list_of_another_length(tmp_path: Path, key: str) -> None:
    problem = only_mistake(write(tmp_path, PUBLISHED), [f"Arch.{key}=[true]"])
    expected = "expected 2 values, one for each of models ('Teacher', 'Student'), received 1"
    assert (problem.path, problem.message) == (f"Arch.{key}", expected)


def test_the_student_cannot_be_frozen(tmp_path: Path) -> None:
    problem = only_mistake(write(tmp_path, PUBLISHED), ["Arch.freeze_params_list=[false, true]"])
    assert "expected false for 'Student', which is the student" in problem.message


def test_a_network_with_other_classes(tmp_path: Path) -> None:
    problem = only_mistake(write(tmp_path, PUBLISHED), ["Arch.models.0.Teacher.class_num=5"])
    assert problem.path == "Arch.models.0.Teacher.class_num"
    assert problem.message == "expected 10, as Arch.class_num is, received 5"


# What losses and metrics speak of -----------------------------------------------------------------

WRONG = {
    "a network": (
        ('        - ["Student", "Teacher"]', '        - ["Student", "Techer"]'),
        "        model_name_pairs:\n",
        "expected models of Arch.models, 'Teacher', 'Student'; received 'Techer'; "
        "did you mean 'Teacher'?",
    ),
    "an output": (
        ('        - ["Student", "Teacher"]', '        - ["Student", "Teacher"]\n        key: neck'),
        "        key: neck",
        "expected an output of 'Student', 'logits', 'distillation'; received 'neck'",
    ),
    "the second token": (
        ("DeiT_tiny_distilled_patch16_224", "DeiT_tiny_patch16_224"),
        "    - DistillationDeiTLoss",
        "expected an output of 'Student', 'logits'; received 'distillation'",
    ),
    "a loss of one network": (
        ("    - DistillationDeiTLoss:", "    - CELoss: {weight: 1.0}  #"),
        "    - CELoss",
        "is a loss of one network; DistillationGTCELoss says of which of Arch.models",
    ),
    "another network in evaluation": (
        ('        model_names: ["Student"]', '        model_names: ["Teacher"]'),
        "        model_names:",
        "expected 'Student' alone, the only network that is evaluated; received ['Teacher']",
    ),
    "another network in a metric": (
        ('        model_key: "Student"', '        model_key: "Teacher"'),
        "        model_key:",
        "expected 'Student', whose answers are measured; received 'Teacher'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_loss_or_metric_of_what_is_not_there(tmp_path: Path, case: str) -> None:
    (old, new), marker, message = WRONG[case]
    text = PUBLISHED.replace(old, new)
    found = mistakes(write(tmp_path, text))
    assert found[0].message == message
    assert found[0].origin.line == line_of(text, marker)


def test_a_loss_of_several_networks_beside_one(tmp_path: Path) -> None:
    text = """\
        Arch: {name: MobileNeXt_x0_1}
        Loss:
          Train:
            - DistillationDMLLoss: {weight: 1.0, model_name_pairs: [[Student, Teacher]]}
        """
    problem = only_mistake(write(tmp_path, text))
    assert (problem.path, problem.origin.line) == ("Loss.Train.0.DistillationDMLLoss", 4)
    assert "between the networks of a DistillationModel" in problem.message


def test_it_is_no_network_of_the_zoo() -> None:
    import ppcls

    assert "DistillationModel" not in ppcls.list_models()
