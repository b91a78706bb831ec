"""Mixing of batches and parts of a data set in a configuration: what is admitted, what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from yaml_files import WHOLE, line_of, load, mistakes, only_mistake, write

from ppcls.config import Config, load_config
from ppcls.data.mixing.sampler import OpSampler
from ppcls.registry import Spec

DATASET = "DataLoader.Train.dataset"
OPS = f"{DATASET}.batch_transform_ops"
MIXING = """\
      batch_transform_ops:
        - OpSampler:
            MixupOperator:
              alpha: 0.8
              prob: 0.5
            CutmixOperator: {alpha: 1.0, prob: 0.4}
            class_num: 10
"""
EVAL = """\
  Eval:
    dataset:
      name: ImageNetDataset
      image_root: ./pictures
      cls_label_path: ./list.txt
      batch_transform_ops: [MixupOperator]
    sampler: {name: BatchSampler, batch_size: 64}
"""


def with_keys(keys: str) -> str:
    """``WHOLE`` with more keys in the data set of training."""
    return WHOLE.replace("    sampler:\n", f"{keys}    sampler:\n", 1)


def dataset_of(config: Config) -> Spec:
    assert config.DataLoader is not None
    assert config.DataLoader.Train is not None
    return config.DataLoader.Train.dataset


def test_components_by_name_are_built_with_their_probabilities(tmp_path: Path) -> None:
    config = load(tmp_path, with_keys(MIXING))
    assert config.warnings == ()
    [spec] = dataset_of(config).extra["batch_transform_ops"]
    named = [(op.name, dict(op.arguments), prob) for op, prob in spec.arguments["ops"]]
    assert named == [
        ("MixupOperator", {"alpha": 0.8, "class_num": None}, 0.5),
        ("CutmixOperator", {"alpha": 1.0, "class_num": None}, 0.4),
    ]
    assert isinstance(spec.build(), OpSampler)
    assert "batch_transform_ops" not in dataset_of(config).arguments


def test_the_resolved_configuration_reads_back(tmp_path: Path) -> None:
    config = load(tmp_path, with_keys(MIXING))
    again = load_config(write(tmp_path, config.to_yaml(), "again.yaml"))
    assert again.DataLoader == config.DataLoader
    assert again.to_yaml() == config.to_yaml()


def test_a_probability_can_be_overridden(tmp_path: Path) -> None:
    path = write(tmp_path, with_keys(MIXING))
    config = load_config(path, [f"{OPS}.0.OpSampler.MixupOperator.prob=0.1"])
    [spec] = dataset_of(config).extra["batch_transform_ops"]
    assert [prob for _, prob in spec.arguments["ops"]] == [0.1, 0.4]


SAMPLER = f"{OPS}.0.OpSampler"
# right line -> wrong line, the path that the message names, what it has to say
LINES = [
    (
        "            MixupOperator:",
        "            MixupOperater:",
        f"{SAMPLER}.MixupOperater",
        "unknown batch transform 'MixupOperater'; did you mean 'MixupOperator'?",
    ),
    ("- OpSampler:", "- OpSamplr:", f"{OPS}.0.OpSamplr", "did you mean 'OpSampler'?"),
    (
        "              alpha: 0.8",
        "              alhpa: 0.8",
        f"{SAMPLER}.MixupOperator.alhpa",
        "unknown key; did you mean 'alpha'?",
    ),
    (
        "              prob: 0.5",
        "              prob: 1.5",
        f"{SAMPLER}.MixupOperator.prob",
        "expected a number >= 0 and <= 1, received 1.5",
    ),
    (
        "            CutmixOperator: {alpha: 1.0, prob: 0.4}",
        "            CutmixOperator: {alpha: 1.0}",
        f"{SAMPLER}.CutmixOperator.prob",
        "is missing; expected a number >= 0 and <= 1",
    ),
    (
        "            CutmixOperator: {alpha: 1.0, prob: 0.4}",
        "            CutmixOperator: {alpha: 0, prob: 0.4}",
        f"{SAMPLER}.CutmixOperator.alpha",
        "expected a number > 0, received 0",
    ),
    (
        "            CutmixOperator: {alpha: 1.0, prob: 0.4}",
        "            CutmixOperator: 0.4",
        f"{SAMPLER}.CutmixOperator",
        "expected a map of keys, received 0.4",
    ),
    (
        "            CutmixOperator: {alpha: 1.0, prob: 0.4}",
        "            MixupCutmixHybrid: {cutmix_minmax: [0.5], prob: 0.4}",
        f"{SAMPLER}.MixupCutmixHybrid.cutmix_minmax",
        "expected [min, max]",
    ),
    (
        "            class_num: 10",
        "            class_num: 1000",
        f"{SAMPLER}.class_num",
        "expected 10, as Arch.class_num is, received 1000",
    ),
    (
        "            class_num: 10",
        "            class_num: ten",
        f"{SAMPLER}.class_num",
        "expected an integer or null, received 'ten'",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "path", "hint"), LINES)
def test_a_mistake_is_refused_at_its_line(
    tmp_path: Path, right: str, wrong: str, path: str, hint: str
) -> None:
    text = with_keys(MIXING)
    line = line_of(text, right)
    problem = only_mistake(write(tmp_path, text.replace(right, wrong)))
    assert (problem.path, problem.origin.line) == (path, line)
    assert hint in problem.message


def test_all_mistakes_are_told_together(tmp_path: Path) -> None:
    text = with_keys(MIXING).replace("alpha: 0.8", "alpha: -1").replace("Cutmix", "Cutmiks")
    paths = [problem.path for problem in mistakes(write(tmp_path, text))]
    assert paths == [f"{SAMPLER}.MixupOperator.alpha", f"{SAMPLER}.CutmiksOperator"]


def test_a_wrong_number_of_classes_is_told_once(tmp_path: Path) -> None:
    text = with_keys(MIXING).replace("class_num: 10\n  dropout", "class_num: 0\n  dropout")
    assert only_mistake(write(tmp_path, text)).path == "Arch.class_num"


def test_probabilities_that_are_too_much(tmp_path: Path) -> None:
    text = with_keys(MIXING).replace("prob: 0.5", "prob: 0.7")
    problem = only_mistake(write(tmp_path, text))
    assert problem.origin.line == line_of(text, "- OpSampler:")
    assert "add up to at most 1, received 0.7 + 0.4" in problem.message


@pytest.mark.parametrize("given", ["OpSampler", "OpSampler: {}", "OpSampler: {class_num: 10}"])
def test_a_choice_of_nothing(tmp_path: Path, given: str) -> None:
    text = with_keys(f"      batch_transform_ops:\n        - {given}\n")
    problem = only_mistake(write(tmp_path, text))
    assert problem.path == SAMPLER
    assert problem.message.startswith("expected at least one batch transform")


def test_evaluation_does_not_mix(tmp_path: Path) -> None:
    text = WHOLE.replace("Metric:\n", f"{EVAL}Metric:\n")
    problem = only_mistake(write(tmp_path, text))
    assert problem.path == "DataLoader.Eval.dataset.batch_transform_ops"
    assert problem.origin.line == line_of(text, "batch_transform_ops")
    assert "expected null (only batches of training are mixed)" in problem.message
    load(tmp_path, text.replace("[MixupOperator]", "null"))


def test_published_forms(tmp_path: Path) -> None:
    ops = "        - MixupOperator: {alpha: 0.2, class_num: 10}\n"
    ops += "        - MixupCutmixHybrid: {num_classes: 10}\n        - FmixOperator:\n"
    config = load(tmp_path, with_keys(f"      batch_transform_ops:\n{ops}"))
    specs = dataset_of(config).extra["batch_transform_ops"]
    assert [spec.name for spec in specs] == ["MixupOperator", "MixupCutmixHybrid", "FmixOperator"]
    for other in ("{alpha: 0.2, class_num: 4}", "{num_classes: 4}"):
        right = f"{other[:-2]}10}}"
        text = with_keys(f"      batch_transform_ops:\n{ops}").replace(right, other)
        assert "10, as Arch.class_num is, received 4" in only_mistake(write(tmp_path, text)).message


# Parts of a data set ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"), [("subset", 0.1), ("subset", 1), ("few_shot", 16), ("fold", "2/5")]
)
def test_a_part_of_any_data_set(tmp_path: Path, key: str, value: object) -> None:
    config = load(tmp_path, with_keys(f"      {key}: {value}\n"))
    parts = {"subset": None, "few_shot": None, "fold": None}
    extra = {"batch_transform_ops": None, "views": 1, **parts}
    assert dataset_of(config).extra == {**extra, key: value}


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("subset: 0", "expected a number > 0 and <= 1 or null, received 0"),
        ("subset: 1.5", "expected a number > 0 and <= 1 or null, received 1.5"),
        ("few_shot: 0", "expected an integer >= 1 or null, received 0"),
        ("fold: 2", "expected a text or null, received 2"),
        ("few_shots: 3", "unknown key; did you mean 'few_shot'?"),
    ],
)
def test_no_part_of_a_data_set(tmp_path: Path, given: str, hint: str) -> None:
    problem = only_mistake(write(tmp_path, with_keys(f"      {given}\n")))
    assert problem.path == f"{DATASET}.{given.partition(':')[0]}"
    assert hint in problem.message
