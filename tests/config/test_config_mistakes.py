"""Every mistake is refused, with its line and a hint; all of them at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from yaml_files import WHOLE, line_of, load, mistakes, only_mistake, write

from ppcls.cli import main

ROOT = Path(__file__).resolve().parents[2]

OP = "DataLoader.Train.dataset.transform_ops"
# right line -> wrong line, the path that the message names, what it has to say
LINES = [
    # keys
    ("  epochs: 200", "  epoch: 200", "Global.epoch", "did you mean 'epochs'?"),
    (
        "    warmup_epoch: 3",
        "    warmup_epochs: 3",
        "Optimizer.lr.warmup_epochs",
        "'warmup_epoch'?",
    ),
    ("  name: MobileNeXt_100", "  nmae: MobileNeXt_100", "Arch.nmae", "did you mean 'name'?"),
    (
        "      batch_size: 64",
        "      batchsize: 64",
        "DataLoader.Train.sampler.batchsize",
        "did you mean 'batch_size'?",
    ),
    ("Metric:", "Metrics:", "Metrics", "did you mean 'Metric'?"),
    ("Optimizer:", "optimizer:", "optimizer", "did you mean 'Optimizer'?"),
    ("  dropout: 0.2", "  dropout_prob: 0.2", "Arch.dropout_prob", "did you mean 'dropout'?"),
    ("  momentum: 0.9", "  clip_gard: 1.0", "Optimizer.clip_gard", "'clip_grad'?"),
    ("coeff: 1e-4", "coef: 1e-4", "Optimizer.regularizer.coef", "did you mean 'coeff'?"),
    ("{topk: [1, 5]}", "{top_k: [1, 5]}", "Metric.Eval.0.TopkAcc.top_k", "did you mean 'topk'?"),
    (
        "      num_workers: 2",
        "      num_worker: 2",
        "DataLoader.Train.loader.num_worker",
        "did you",
    ),
    # names
    ("  name: MobileNeXt_100", "  name: MobileNext_100", "Arch.name", "'MobileNeXt_100'?"),
    ("  name: Momentum", "  name: Momentun", "Optimizer.name", "did you mean 'Momentum'?"),
    ("    name: Cosine", "    name: Cosin", "Optimizer.lr.name", "did you mean 'Cosine'?"),
    ("RandCropImage:", "RandCropImge:", f"{OP}.1.RandCropImge", "did you mean 'RandCropImage'?"),
    ("CELoss: {weight: 1.0}", "CELos: {weight: 1.0}", "Loss.Eval.0.CELos", "'CELoss'?"),
    ("TopkAcc:", "TopAcc:", "Metric.Eval.0.TopAcc", "did you mean 'TopkAcc'?"),
    ("name: Topk,", "name: TopK,", "Infer.PostProcess.name", "did you mean 'Topk'?"),
    (
        "      name: ImageNetDataset",
        "      name: ImagenetDataset",
        "DataLoader.Train.dataset.name",
        "did you mean 'ImageNetDataset'?",
    ),
    ("  name: Momentum", "  name: 7", "Optimizer.name", "expected a text, received 7"),
    # types
    ("  epochs: 200", "  epochs: 2.5", "Global.epochs", "an integer >= 1, received 2.5"),
    ("  epochs: 200", '  epochs: "ten"', "Global.epochs", "an integer >= 1, received 'ten'"),
    ("  epochs: 200", "  epochs: [200]", "Global.epochs", "received [200]"),
    ("  epochs: 200", "  epochs: {a: 1}", "Global.epochs", "received a map"),
    ("  epochs: 200", "  epochs: null", "Global.epochs", "received null"),
    ("  epochs: 200", "  epochs: True", "Global.epochs", "an integer >= 1, received true"),
    ("  seed: 1", "  seed: True", "Global.seed", "an integer >= 0"),
    ("  momentum: 0.9", "  momentum: True", "Optimizer.momentum", "a number >= 0 and < 1"),
    ("  output_dir: ./output", "  output_dir: 5", "Global.output_dir", "a text, received 5"),
    (
        "      shuffle: True",
        "      shuffle: 1",
        "DataLoader.Train.sampler.shuffle",
        "true or false",
    ),
    ("size: 32", "size: big", f"{OP}.1.RandCropImage.size", "received 'big'"),
    ("size: 32", "size: [32, a]", f"{OP}.1.RandCropImage.size.1", "an integer, received 'a'"),
    ("  regularizer: {name: L2, coeff: 1e-4}", "  regularizer: L2", "Optimizer.regularizer", "map"),
    # ranges
    ("  epochs: 200", "  epochs: 0", "Global.epochs", "an integer >= 1, received 0"),
    ("  epochs: 200", "  epochs: -3", "Global.epochs", "an integer >= 1, received -3"),
    ("  device: cpu", "  device: cuda", "Global.device", "'gpu', received 'cuda'"),
    ("  class_num: 10", "  class_num: 0", "Arch.class_num", "an integer >= 1, received 0"),
    ("  dropout: 0.2", "  dropout: 1.2", "Arch.dropout", "a number >= 0 and < 1, received 1.2"),
    ("epsilon: 0.1", "epsilon: 1.5", "Loss.Train.0.CELoss.epsilon", "< 1 or null, received 1.5"),
    ("      batch_size: 64", "      batch_size: 0", "DataLoader.Train.sampler.batch_size", ">= 1"),
    (
        "      num_workers: 2",
        "      num_workers: -1",
        "DataLoader.Train.loader.num_workers",
        ">= 0",
    ),
    ("    learning_rate: 0.1", "    learning_rate: 0", "Optimizer.lr.learning_rate", "> 0"),
    ("    learning_rate: 0.1", "    learning_rate: .nan", "Optimizer.lr.learning_rate", "> 0"),
    ("backend: pil", "backend: PIL", f"{OP}.0.DecodeImage.backend", "one of 'cv2', 'pil'"),
    (
        "interpolation: random",
        "interpolation: cubic",
        f"{OP}.1.RandCropImage.interpolation",
        "bicu",
    ),
    # what only the component itself can tell
    (
        "    warmup_epoch: 3",
        "    warmup_epoch: 300",
        "Optimizer.lr.warmup_epoch",
        "expected at most the 200 epochs of the run (Global.epochs), received 300",
    ),
    ("topk: [1, 5]", "topk: [1, 50]", "Metric.Eval.0.TopkAcc.topk", "the 10 classes"),
    ("[3, 224, 224]", "[224, 224]", "Global.image_shape", "[3, height, width]"),
    ("size: 32", "size: [1, 2, 3]", f"{OP}.1.RandCropImage.size", "[width, height]"),
    ("order: ''", "mean: [0.5]", f"{OP}.2.NormalizeImage.mean", "three finite numbers"),
    ("scale: 1.0/255.0", "scale: 0", f"{OP}.2.NormalizeImage.scale", "other than 0"),
    # what is missing
    ("{weight: 1.0, epsilon: 0.1}", "", "Loss.Train.0.CELoss.weight", "is missing"),
    ("{weight: 1.0, epsilon: 0.1}", "{epsilon: 0.1}", "Loss.Train.0.CELoss.weight", "is missing"),
    ("{name: L2, coeff: 1e-4}", "{coeff: 1e-4}", "Optimizer.regularizer.name", "is missing"),
    # shapes of components
    ("- TopkAcc: {topk: [1, 5]}", "TopkAcc: {topk: [1, 5]}", "Metric.Eval", "a list of metrics"),
    ("- TopkAcc: {topk: [1, 5]}", "- {TopkAcc: , A: }", "Metric.Eval.0", "expected one metric"),
    ("- TopkAcc: {topk: [1, 5]}", "- 5", "Metric.Eval.0", "expected one metric"),
    ("{topk: [1, 5]}", "[1, 5]", "Metric.Eval.0.TopkAcc", "expected a map"),
]


@pytest.mark.parametrize(("right", "wrong", "path", "hint"), LINES)
def test_a_mistake_is_refused_at_its_line(tmp_path, right, wrong, path, hint):
    line = line_of(WHOLE, right)
    problem = only_mistake(write(tmp_path, WHOLE.replace(right, wrong)))
    assert (problem.origin.file, problem.path) == (str(tmp_path / "config.yaml"), path)
    assert hint in problem.message
    # A list that is none is reported where the list stands.
    assert problem.origin.line == (line - 1 if path == "Metric.Eval" else line)


def test_the_whole_configuration_is_right(tmp_path):
    config = load(tmp_path, WHOLE)
    assert config.warnings == ()
    assert config.Global.epochs == 200
    assert config.Arch.name == "MobileNeXt_100"
    assert config.Arch.arguments["class_num"] == 10
    assert config.Optimizer.arguments["regularizer"].arguments == {"coeff": 1e-4}
    ops = config.DataLoader.Train.dataset.arguments["transform_ops"]
    assert [op.name for op in ops] == ["DecodeImage", "RandCropImage", "NormalizeImage"]
    assert ops[2].arguments["scale"] == 1 / 255
    assert config.AMP is None


def test_a_wrong_override_names_the_option(tmp_path):
    problem = only_mistake(write(tmp_path, WHOLE), ["Global.seed=3", "Global.epohcs=3"])
    assert str(problem) == "command-line:2: Global.epohcs: unknown key; did you mean 'epochs'?"


def test_a_missing_section_is_named(tmp_path):
    problem = only_mistake(write(tmp_path, "Global: {epochs: 1}\n"))
    assert problem.path == "Arch"
    assert "is missing; expected a network" in problem.message


def test_values_without_a_name_are_refused(tmp_path):
    text = WHOLE.replace("  lr:\n    name: Cosine", "  lr:")
    problem = only_mistake(write(tmp_path, text))
    assert problem.path == "Optimizer.lr.name"
    assert problem.origin.line == line_of(text, "  lr:")
    assert "a learning-rate schedule's name" in problem.message


TEN = """\
Global:
  epoch: 10                                # 1
  seed: -1                                 # 2
Arch:
  name: MobileNext_100                     # 3
Loss:
  Train:
    - CELoss: {epsilon: 1.5, weight: 1}    # 4
  Eval:
    - CELoss: {}                           # 5
Optimizer:
  name: Momentum
  momentun: 0.9                            # 6
  lr: {name: Cosine, learning_rate: ten}   # 7
DataLoader:
  Train:
    dataset:
      name: ImageNetDataset
      image_root: .
      transform_ops:
        - DecodeImage:
        - RandCropImge: {size: 32}         # 8
        - NormalizeImage: {mean: [0.5]}    # 9
    sampler:
      name: DistributedBatchSampler
      batchsize: 4                         # 10
"""
TEN_LINES = [line_of(TEN, f"# {i}\n") for i in range(1, 11)]


def test_ten_mistakes_are_ten_problems_in_the_order_of_their_lines(tmp_path):
    problems = mistakes(write(tmp_path, TEN))
    assert [problem.origin.line for problem in problems] == TEN_LINES


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs ``ppcls`` in this process, in an empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before = signal.getsignal(signal.SIGTERM)
    yield main
    signal.signal(signal.SIGTERM, before)
    assert not list(folder.iterdir()), "a refused configuration must leave nothing behind"


@pytest.mark.parametrize("name", ["train", "eval", "infer", "export"])
def test_commands_refuse_before_anything_starts(tmp_path, capsys, command, name):
    path = write(tmp_path, TEN)
    assert command([name, "-c", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert [line.split(": ")[0] for line in lines[:10]] == [f"{path}:{n}" for n in TEN_LINES]
    assert "10 mistakes" in lines[10]


def test_show_refuses(tmp_path, capsys, command):
    assert command(["config", "show", str(write(tmp_path, TEN))]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "10 mistakes" in err


def test_check_goes_on_after_a_wrong_file(tmp_path, capsys, command):
    wrong = write(tmp_path, TEN, "wrong.yaml")
    right = write(tmp_path, WHOLE, "right.yaml")
    missing = tmp_path / "missing.yaml"
    assert command(["config", "check", str(wrong), str(missing), str(right)]) == 2
    out, err = capsys.readouterr()
    assert out == f"{right}: ok\n"
    assert err.count(f"{wrong}:") == 10
    assert f"{missing}: there is no such file" in err
    assert command(["config", "check", str(right)]) == 0


def test_check_takes_overrides(tmp_path, capsys, command):
    path = str(write(tmp_path, WHOLE))
    assert command(["config", "check", path, "-o", "Global.epohcs=3"]) == 2
    assert "command-line:1: Global.epohcs: unknown key; did you mean 'epochs'?" in (
        capsys.readouterr().err
    )


def test_a_process_ends_with_2_and_no_traceback(tmp_path):
    path = write(tmp_path, TEN)
    done = subprocess.run(
        [sys.executable, "-m", "ppcls.cli", "train", "-c", str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count(f"{path}:") == 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml"]


# A run would stop at these when it builds its parts; the check has to say so before, with a line.
TOGETHER = [
    ("  momentum: 0.9", "  weight_decay: 1e-4", "Optimizer.weight_decay", "regularizer"),
    ("    - CELoss: {weight: 1.0, epsilon: 0.1}", "    []", "Loss.Train", "at least one"),
    ("        - DecodeImage: {backend: pil}\n", "", OP, "DecodeImage"),
    ("        - RandCropImage:", "        - ToCHWImage:\n        - RandCropImage:", OP, "ToCHW"),
    ("order: ''", "order: chw", OP, "chw"),
]


@pytest.mark.parametrize(("right", "wrong", "path", "hint"), TOGETHER)
def test_arguments_that_do_not_go_together_are_refused_by_the_check(
    tmp_path, right, wrong, path, hint
):
    line_of(WHOLE, right)
    problem = only_mistake(write(tmp_path, WHOLE.replace(right, wrong)))
    assert problem.path.startswith(path)
    assert problem.origin.line > 0
    assert hint in problem.message
