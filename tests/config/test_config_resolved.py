"""The resolved configuration: it runs again, and says where each value comes from."""

from __future__ import annotations

import signal

import pytest
import yaml
from yaml_files import SMALLEST, WHOLE, line_of, load, write

from ppcls.cli import main
from ppcls.config import ConfigError, load_config
from ppcls.config.schema import ConfigSchema


def sections(config):
    return {name: getattr(config, name) for name in ConfigSchema.__dataclass_fields__}


@pytest.mark.parametrize("origins", [False, True])
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["Optimizer.lr={name: Piecewise, decay_epochs: [3, 6], values: [1e-1, 1e-2, 1e-3]}"],
        [
            'DataLoader.Train.dataset.delimiter="\\t"',
            "AMP={use_amp: false}",
            "Global.image_shape=[3, 28, 28]",
        ],
        ["Infer.transforms=[DecodeImage, ToCHWImage]", "Metric=null"],
    ],
)
def test_it_loads_to_the_same_sections(tmp_path, origins, overrides):
    config = load(tmp_path, WHOLE, overrides)
    again = load_config(write(tmp_path, config.to_yaml(origins), "resolved.yaml"))
    assert sections(again) == sections(config)
    assert again.warnings == ()


TEXTS = [
    *("1e-3", "1E5", ".5e3", "None", "null", "~", "true", "yes", "5", "5.", "0x1F", "1_0e2"),
    *("2026-11-01", "1:30", "", " a ", "a: b", "a #b", "#", "- a", "[a", "*a", "&a", "!a", "%a"),
    *("=", "<<", "é", "\t", "a\nb", "a\n\nb\n", "'", '"', "\\", "\u2028", "x" * 300),
    *(".inf", ".nan", "1.0/255.0", "%s", "a,b", "?", "a:"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_survives(tmp_path, text):
    quoted = yaml.safe_dump(text, default_style='"', width=10**6).strip()
    config = load(tmp_path, f"{SMALLEST}Global: {{output_dir: {quoted}}}\n")
    assert config.Global.output_dir == text
    for origins in (False, True):
        again = load_config(write(tmp_path, config.to_yaml(origins), "resolved.yaml"))
        assert again.Global.output_dir == text


def test_it_is_plain_yaml(tmp_path):
    tree = yaml.safe_load(load(tmp_path, WHOLE).to_yaml())
    assert tree["Global"]["epochs"] == 200
    assert tree["Global"]["eval_interval"] == 1  # a default
    assert tree["Arch"]["name"] == "MobileNeXt_100"
    assert tree["Optimizer"]["lr"]["warmup_epoch"] == 3


def origin_of(resolved: str, key: str) -> str:
    [line] = [line for line in resolved.splitlines() if line.strip().lstrip("- ").startswith(key)]
    return line.rpartition("#")[2].strip()


def test_every_value_carries_its_origin(tmp_path):
    base = write(
        tmp_path,
        "Global:\n  epochs: 5\n  seed: 7\n  image_shape: [3, 8, 8]\n"
        "Optimizer:\n  name: Momentum\n  lr:\n    name: Constant\n    learning_rate: 1e-3\n",
        "parts/base.yaml",
    )
    text = "_base_: parts/base.yaml\nArch:\n  name: MobileNeXt_x0_1\nGlobal:\n  epochs: 6\n"
    path = write(tmp_path, text)
    overrides = ["Global.save_interval=2", "Optimizer.lr.warmup_epoch=1"]
    resolved = load_config(path, overrides).to_yaml(origins=True)
    assert origin_of(resolved, "epochs:") == f"{path}:{line_of(text, 'epochs')}"
    assert origin_of(resolved, "name: MobileNeXt_x0_1") == f"{path}:3"
    assert origin_of(resolved, "seed:") == f"{base}:3"
    assert origin_of(resolved, "image_shape:") == f"{base}:4"
    assert origin_of(resolved, "learning_rate:") == f"{base}:9"
    assert origin_of(resolved, "save_interval:") == "command-line:1"
    assert origin_of(resolved, "warmup_epoch:") == "command-line:2"
    assert origin_of(resolved, "eval_interval:") == "default"
    assert origin_of(resolved, "class_num:") == "default"
    leaves = [line for line in resolved.splitlines() if not line.split("  # ")[0].endswith(":")]
    assert all("  # " in line for line in leaves)


def test_items_of_lists_carry_their_origin(tmp_path):
    resolved = load(tmp_path, WHOLE).to_yaml(origins=True)
    path = tmp_path / "config.yaml"
    assert origin_of(resolved, "epsilon: 0.1") == f"{path}:{line_of(WHOLE, 'epsilon')}"
    assert origin_of(resolved, "topk: [1, 5]") == f"{path}:{line_of(WHOLE, 'topk: [1, 5]')}"
    assert origin_of(resolved, "interpolation:") == f"{path}:{line_of(WHOLE, 'interpolation')}"


@pytest.fixture
def restore_signal():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("restore_signal")
def test_show_prints_it(tmp_path, capsys):
    path = write(tmp_path, WHOLE)
    assert main(["config", "show", str(path), "-o", "Global.seed=9"]) == 0
    shown = capsys.readouterr().out
    assert shown == load_config(path, ["Global.seed=9"]).to_yaml(origins=True)
    assert origin_of(shown, "seed: 9") == "command-line:1"
    assert main(["config", "show", "--plain", str(path)]) == 0
    assert capsys.readouterr().out == load_config(path).to_yaml()


def test_require_names_every_missing_section(tmp_path):
    config = load(tmp_path, SMALLEST + "Loss: {Eval: [CELoss: {weight: 1}]}\n")
    config.require("Arch", "Loss.Eval", purpose="evaluation")
    with pytest.raises(ConfigError) as caught:
        config.require("Loss.Eval", "Loss.Train", "DataLoader.Train", "Metric", purpose="training")
    assert [p.path for p in caught.value.problems] == ["DataLoader.Train", "Loss.Train", "Metric"]
    for problem in caught.value.problems:
        assert problem.message == "is missing; training needs it"
        assert problem.origin.file == str(tmp_path / "config.yaml")


def test_problem_points_at_the_line_of_a_value(tmp_path):
    config = load(tmp_path, WHOLE)
    path = tmp_path / "config.yaml"
    for dotted, marker in (
        ("Global.epochs", "epochs: 200"),
        ("Optimizer.lr.learning_rate", "learning_rate"),
        ("DataLoader.Train.sampler.batch_size", "batch_size"),
        ("DataLoader.Train.sampler.nothing", "    sampler:"),
    ):
        error = config.problem(dotted, "is odd")
        assert str(error) == f"{path}:{line_of(WHOLE, marker)}: {dotted}: is odd"


def test_two_configurations_share_nothing(tmp_path):
    first, second = load(tmp_path, WHOLE), load(tmp_path, WHOLE)
    first.Global.image_shape.append(5)
    first.Metric.Eval[0].arguments["topk"].append(9)
    assert second.Global.image_shape == [3, 224, 224]
    third = load(tmp_path, SMALLEST + "Metric: {Eval: [TopkAcc]}\n")
    third.Metric.Eval[0].arguments["topk"].append(9)
    fourth = load(tmp_path, SMALLEST + "Metric: {Eval: [TopkAcc]}\n")
    assert fourth.Metric.Eval[0].arguments["topk"] == [1, 5]
