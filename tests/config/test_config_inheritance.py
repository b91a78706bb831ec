"""``_base_``: maps merge, lists and scalars replace, mistakes keep the line of their own file."""

from __future__ import annotations

import pytest
from yaml_files import SMALLEST, line_of, mistakes, only_mistake, write

from ppcls.config import load_config

BASE = """\
Arch: {name: MobileNeXt_x0_1, class_num: 10}
Global:
  epochs: 20
  seed: 5
  image_shape: [3, 64, 64]
Loss:
  Train:
    - CELoss: {weight: 1, epsilon: 0.1}
    - CELoss: {weight: 2}
Optimizer:
  name: Momentum
  lr:
    name: Cosine
    learning_rate: 0.1
    eta_min: 1e-5
    warmup_epoch: 3
AMP: {level: O2}
"""


@pytest.fixture
def child(tmp_path):
    write(tmp_path, BASE, "base.yaml")

    def load(text, overrides=()):
        return load_config(write(tmp_path, "_base_: base.yaml\n" + text), overrides)

    return load


def test_maps_merge(child):
    config = child("Global: {epochs: 30}\nOptimizer: {lr: {eta_min: 1e-4}}\n")
    assert (config.Global.epochs, config.Global.seed) == (30, 5)
    rate = config.Optimizer.arguments["lr"].arguments
    assert (rate["eta_min"], rate["learning_rate"], rate["warmup_epoch"]) == (1e-4, 0.1, 3)


def test_lists_and_scalars_replace(child):
    config = child("Loss:\n  Train:\n    - CELoss: {weight: 3}\nGlobal: {image_shape: [3, 8, 8]}\n")
    [loss] = config.Loss.Train
    assert loss.arguments["weight"] == 3
    assert loss.arguments["epsilon"] is None
    assert config.Global.image_shape == [3, 8, 8]


def test_replace_holds_against_the_bases_of_another_file(tmp_path):
    write(tmp_path, BASE, "base.yaml")
    piece = "Optimizer:\n  lr: {_replace_: true, name: Constant, learning_rate: 0.5}\n"
    write(tmp_path, piece, "piece.yaml")
    config = load_config(write(tmp_path, "_base_: [base.yaml, piece.yaml]\n"))
    assert config.Optimizer.arguments["lr"].name == "Constant"
    assert "_replace_" not in config.to_yaml()


def test_replace_drops_what_the_base_says(child):
    config = child("Optimizer:\n  lr: {_replace_: true, name: Constant, learning_rate: 0.5}\n")
    schedule = config.Optimizer.arguments["lr"]
    assert schedule.name == "Constant"
    assert schedule.arguments["warmup_epoch"] == 0
    assert "_replace_" not in config.to_yaml()


def test_replace_false_merges(child):
    config = child("Optimizer:\n  lr: {_replace_: false, learning_rate: 0.5}\n")
    assert config.Optimizer.arguments["lr"].arguments["warmup_epoch"] == 3


def test_without_replace_another_kind_gets_foreign_arguments(tmp_path, child):
    with pytest.raises(Exception, match=r"base\.yaml:15: Optimizer\.lr\.eta_min: unknown key"):
        child("Optimizer: {lr: {name: Constant}}\n")


def test_null_removes_a_section(child):
    config = child("Optimizer: null\nAMP:\nGlobal: {checkpoints: null}\n")
    assert config.Optimizer is None
    assert config.AMP is None
    assert config.Global.checkpoints is None


def test_a_map_replaces_what_is_no_map(child):
    assert child("Global: {pretrained_model: a}\n").Global.pretrained_model == "a"


def test_several_bases_are_merged_in_order(tmp_path):
    write(tmp_path, SMALLEST + "Global: {epochs: 1, seed: 1}\n", "first.yaml")
    write(tmp_path, "Global: {seed: 2, save_interval: 2}\n", "second.yaml")
    path = write(tmp_path, "_base_: [first.yaml, second.yaml]\nGlobal: {save_interval: 3}\n")
    settings = load_config(path).Global
    assert (settings.epochs, settings.seed, settings.save_interval) == (1, 2, 3)


def test_bases_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    write(tmp_path, SMALLEST, "parts/deep/arch.yaml")
    write(tmp_path, "_base_: deep/arch.yaml\nGlobal: {seed: 3}\n", "parts/run.yaml")
    path = write(tmp_path, "_base_: ../parts/run.yaml\nGlobal: {epochs: 4}\n", "sub/config.yaml")
    monkeypatch.chdir("/")
    config = load_config(path)
    assert (config.Global.seed, config.Global.epochs) == (3, 4)
    assert config.Arch.name == "MobileNeXt_x0_1"


def test_a_base_may_be_reached_twice(tmp_path):
    write(tmp_path, SMALLEST, "root.yaml")
    write(tmp_path, "_base_: root.yaml\nGlobal: {seed: 1}\n", "left.yaml")
    write(tmp_path, "_base_: root.yaml\nGlobal: {epochs: 9}\n", "right.yaml")
    config = load_config(write(tmp_path, "_base_:\n- left.yaml\n- right.yaml\n"))
    assert (config.Global.seed, config.Global.epochs) == (1, 9)


def test_a_missing_base_is_reported_at_its_line(tmp_path):
    text = SMALLEST + "_base_:\n  - config2.yaml\n  - nowhere.yaml\n"
    write(tmp_path, "", "config2.yaml")
    problem = only_mistake(write(tmp_path, text))
    assert problem.origin.line == line_of(text, "nowhere")
    assert (problem.path, problem.origin.file) == ("_base_", str(tmp_path / "config.yaml"))
    assert "nowhere.yaml" in problem.message


def test_a_cycle_is_refused(tmp_path):
    write(tmp_path, "_base_: c.yaml\n", "b.yaml")
    write(tmp_path, "Global: {}\n_base_: ./sub/../config.yaml\n", "c.yaml")
    (tmp_path / "sub").mkdir()
    problem = only_mistake(write(tmp_path, "_base_: b.yaml\n"))
    assert "includes itself" in problem.message
    assert str(problem.origin) == f"{tmp_path / 'c.yaml'}:2"
    assert "includes itself" in only_mistake(write(tmp_path, "_base_: config.yaml\n")).message


@pytest.mark.parametrize("base", ["5", "{a: b}", "[[a]]", "[a, 1]", "true"])
def test_a_base_that_is_no_path_is_refused(tmp_path, base):
    write(tmp_path, "", "a")
    problem = only_mistake(write(tmp_path, f"_base_: {base}\n"))
    assert problem.path == "_base_"
    assert "expected relative paths" in problem.message


@pytest.mark.parametrize("base", ['"a\\0b"', "a" * 5000, "''", "."])
def test_a_base_that_no_file_can_be_called_is_refused(tmp_path, base):
    assert only_mistake(write(tmp_path, f"_base_: {base}\n")).path == "_base_"


def test_a_mistake_in_a_base_keeps_its_file_and_line(tmp_path):
    write(tmp_path, BASE.replace("seed: 5", "sead: 5"), "base.yaml")
    path = write(tmp_path, "_base_: base.yaml\nGlobal: {epoch: 3}\n")
    problems = {(p.origin.file, p.origin.line, p.path) for p in mistakes(path)}
    assert problems == {
        (str(tmp_path / "base.yaml"), 4, "Global.sead"),
        (str(path), 2, "Global.epoch"),
    }


def test_a_mistake_in_a_base_that_is_overwritten_is_none(tmp_path):
    write(tmp_path, BASE.replace("epochs: 20", "epochs: many"), "base.yaml")
    assert (
        load_config(write(tmp_path, "_base_: base.yaml\nGlobal: {epochs: 3}\n")).Global.epochs == 3
    )


def test_a_malformed_base_is_reported_at_its_own_line(tmp_path):
    write(tmp_path, "Global:\n  a: 1\n  a: 2\n", "base.yaml")
    problem = only_mistake(write(tmp_path, "_base_: base.yaml\n"))
    assert str(problem.origin) == f"{tmp_path / 'base.yaml'}:3"
