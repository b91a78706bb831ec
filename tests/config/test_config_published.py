"""Files as PaddleClas publishes them; ``test_shipped_configs`` has the files of this project."""

from __future__ import annotations

from pathlib import Path

import pytest
from yaml_files import SMALLEST, line_of, load, mistakes, only_mistake, write

from ppcls.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# A flat file with the habits of the published ones: everything in one file, quoted and unquoted
# texts, `order: ''`, sums as texts, keys without a meaning here, no ToCHWImage for training.
FLAT = (Path(__file__).parents[1] / "reference" / "published_flat.yaml").read_text()


def names(specs):
    return [spec.name for spec in specs]


def test_a_flat_published_file_is_read_unchanged(tmp_path):
    config = load(tmp_path, FLAT)
    assert config.Global.epochs == 200
    assert config.Arch.name == "MobileNeXt_100"
    optimizer = config.Optimizer.arguments
    assert optimizer["use_nesterov"] is True
    assert optimizer["no_weight_decay_name"] == ".bias"
    assert optimizer["lr"].arguments["eta_min"] == 1e-5
    assert optimizer["regularizer"].arguments["coeff"] == 1e-4
    train, evaluation = config.DataLoader.Train, config.DataLoader.Eval
    ops = train.dataset.arguments["transform_ops"]
    assert names(ops)[-1] == "NormalizeImage"
    assert ops[-1].arguments["scale"] == 1 / 255
    assert ops[0].arguments["backend"] == "pil"
    assert names(evaluation.dataset.arguments["transform_ops"])[1:3] == ["ResizeImage", "CropImage"]
    assert (train.sampler.arguments["batch_size"], train.loader.num_workers) == (128, 8)
    assert names(config.Infer.transforms)[-1] == "ToCHWImage"
    assert config.Infer.PostProcess.arguments["topk"] == 5


def test_its_keys_without_a_meaning_are_warned_of_once_and_dropped(tmp_path):
    config = load(tmp_path, FLAT)
    path = tmp_path / "config.yaml"
    expected = {
        "Global.use_dali": "  use_dali",
        "Optimizer.lr.last_epoch": "    last_epoch",
    }
    wanted = [f"{path}:{line_of(FLAT, line)}: {key}:" for key, line in expected.items()]
    for mode in ("Train", "Eval"):
        line = line_of(FLAT, f"loader: # {mode.lower()}") + 2
        wanted.append(f"{path}:{line}: DataLoader.{mode}.loader.use_shared_memory:")
    assert len(config.warnings) == len(wanted)
    for start in wanted:
        [reason] = [w.removeprefix(start) for w in config.warnings if w.startswith(start)]
        assert len(reason) > 10, "a warning says why"
    resolved = config.to_yaml()
    assert config.Global.to_static is False
    for key in ("use_dali", "last_epoch", "use_shared_memory"):
        assert f"{key}:" not in resolved


def test_its_resolved_form_needs_no_warning(tmp_path):
    first = load(tmp_path, FLAT)
    second = load_config(write(tmp_path, first.to_yaml(), "resolved.yaml"))
    assert second.warnings == ()
    assert second.DataLoader == first.DataLoader
    assert second.Infer == first.Infer


@pytest.mark.parametrize(
    ("mode", "component", "key", "right", "wrong", "hint"),
    [
        ("train", "DecodeImage", "to_rgb", "to_rgb: True", "to_rbg: True", "'to_rgb'?"),
        (
            "eval",
            "DecodeImage",
            "channel_first",
            "channel_first: False",
            "channel_first: 0",
            "true",
        ),
        ("infer", "DecodeImage", "backend", "backend: pil", "backend: pill", "one of 'cv2', 'pil'"),
        ("train", "NormalizeImage", "scale", "scale: 1.0/255.0", "scale: 1/0", "a number"),
        ("eval", "NormalizeImage", "mean", "mean: [0.485, ", "mean: [", "three finite numbers"),
        ("eval", "NormalizeImage", "std", "std: [0.229", "std: [x", "a number"),
        (
            "infer",
            "NormalizeImage",
            "order",
            "order: ''",
            "order: 'cwh'",
            "one of '', 'hwc', 'chw'",
        ),
    ],
)
def test_a_wrong_argument_in_it_is_refused_at_its_line(
    tmp_path, mode, component, key, right, wrong, hint
):
    head, marker, tail = FLAT.partition(f"{component}: # {mode}\n")
    assert marker
    text = head + marker + tail.replace(right, wrong, 1)
    line = (head + marker + tail.partition(right)[0]).count("\n") + 1
    problem = only_mistake(write(tmp_path, text))
    assert problem.origin.line == line
    assert f".{component}." in problem.path
    assert hint in problem.message


NOT_YET = [
    (
        "Global: {eval_mode: retrieval}",
        "Global: {eval_mode: classification}",
        "Global.eval_mode",
    ),
]


@pytest.mark.parametrize(("refused", "admitted", "path"), NOT_YET)
def test_what_would_change_the_result_is_refused(tmp_path, refused, admitted, path):
    problem = only_mistake(write(tmp_path, f"{SMALLEST}{refused}\n"))
    assert (problem.path, problem.origin.line) == (path, 2)
    assert "not supported by this version" in problem.message
    config = load(tmp_path, f"{SMALLEST}{admitted}\n")
    assert config.warnings == ()
    assert path.partition(".")[2] not in config.to_yaml()


def test_unknown_keys_are_reported_beside_warnings(tmp_path):
    text = FLAT.replace("  to_static: False", "  to_static: False\n  to_statik: False")
    problem = only_mistake(write(tmp_path, text))
    assert problem.path == "Global.to_statik"


def test_the_recipe_of_the_project_is_the_published_one(tmp_path):
    ours = load_config(CONFIGS / "ImageNet/MobileNeXt/MobileNeXt_100.yaml")
    published = load(tmp_path, FLAT)
    assert ours.Arch == published.Arch
    assert ours.Loss == published.Loss
    assert ours.Optimizer == published.Optimizer
    assert ours.Global.epochs == published.Global.epochs
    assert ours.DataLoader.Train.sampler == published.DataLoader.Train.sampler


def test_a_component_of_another_kind_is_no_component(tmp_path):
    text = FLAT.replace(
        "    - CELoss:\n        weight: 1.0\n        epsilon", "    - TopkAcc:\n        epsilon"
    )
    assert mistakes(write(tmp_path, text))[0].path == "Loss.Train.0.TopkAcc"
