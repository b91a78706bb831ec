"""``ppcls eval``: one checkpoint with its tables, several in a table, and JSON."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

pytest.importorskip("paddle")

TABLES = ["-o", "Metric.Eval=[TopkAcc: {topk: 1}, F1Score: , ConfusionMatrix: , ECE: ]"]


def test_tables_are_printed_with_the_names_of_the_classes(cli, config_file, lively):
    done = cli("eval", "-c", config_file, lively, *TABLES)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    head = lines.index("per_class:")
    assert lines[head + 1].split() == ["class", "precision", "recall", "f1", "support"]
    rows = [line.split() for line in lines[head + 2 : head + 5]]
    assert [(row[0], row[-1]) for row in rows] == [("blue", "8"), ("green", "8"), ("red", "7")]
    confused = next(line for line in lines if line.startswith("confusion_matrix: "))
    accuracy = float(done.out.rpartition("accuracy: ")[2].split(",")[0])
    wrong = round(23 * (1 - accuracy))
    assert confused == f"confusion_matrix: {wrong} of 23 images are taken for another"
    pairs = [line.split() for line in lines if " taken for " in line and line.startswith("  ")]
    assert sum(int(pair[0]) for pair in pairs) == wrong > 0


def test_the_result_is_written_beside_the_run(cli, config_file, run_folder, lively):
    done = cli("eval", "-c", config_file, lively, *TABLES, "--tta", "flip")
    assert done.code == 0
    content = json.loads((run_folder / "eval_best_model_flip.json").read_text())
    assert (content["main"], content["tta"], content["best"]) == ("top1", "flip", 0)
    [result] = content["results"]
    assert result["weights"] == str(lively)
    assert (result["epoch"], result["samples"]) == (5, 23)
    assert f"top1: {result['values']['top1']:.5f}" in done.out
    assert result["tables"]["per_class"]["columns"] == ["precision", "recall", "f1", "support"]
    bins = result["tables"]["reliability"]["values"]
    assert sum(row[2] for row in bins) == 23
    assert any(row[3] is None for row in bins)  # an empty bin has no confidence


def test_several_checkpoints_are_compared(cli, config_file, run_folder, lively, trained):
    done = cli("eval", "-c", config_file, trained / "epoch_1", lively, trained / "epoch_2")
    assert (done.code, done.err) == (0, "")
    head, *rows = done.out.splitlines()[-4:]
    assert head.split() == ["weights", "epoch", "CELoss", "loss", "top1", "top2"]
    columns = [row.split() for row in rows]
    assert [row[:2] for row in columns] == [
        [str(trained / "epoch_1"), "1"],
        [str(lively), "5"],
        [str(trained / "epoch_2"), "2"],
    ]
    tops = [float(row[4]) for row in columns]
    [marked] = [place for place, row in enumerate(rows) if row.endswith("<- best top1")]
    assert marked == tops.index(max(tops))
    alone = cli("eval", "-c", config_file, trained / "epoch_2")
    assert f"CELoss: {columns[2][2]}" in alone.out.splitlines()[-1]
    content = json.loads((run_folder / "eval_checkpoints.json").read_text())
    assert content["best"] == marked and len(content["results"]) == 3


def test_json_is_all_that_standard_output_holds(cli, config_file, lively, trained, tmp_path):
    out = tmp_path / "deep" / "result.json"
    done = cli(
        "eval", "-c", config_file, lively, trained / "latest", "--format", "json", "--out", out
    )
    assert done.code == 0
    results = [json.loads(line) for line in done.out.splitlines()]
    assert [result["weights"] for result in results] == [str(lively), str(trained / "latest")]
    assert json.loads(out.read_text())["results"] == results
    assert "[Avg]" in done.err


def test_a_diagram_is_drawn(cli, config_file, lively, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "reliability.png"
    done = cli("eval", "-c", config_file, lively, "--diagram", out)
    assert done.code == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_wrong_name_is_told_before_anything_is_evaluated(cli, config_file, lively, tmp_path):
    done = cli("eval", "-c", config_file, lively, tmp_path / "nothing")
    assert done.code == 1
    assert done.err.count("\n") == 1 and "no weights there" in done.err
    assert "[Eval]" not in done.out


def test_a_result_that_cannot_be_written_is_a_failure_only_if_asked_for(
    cli, config_file, lively, tmp_path
):
    (tmp_path / "file").write_text("")
    done = cli("eval", "-c", config_file, lively, "-o", f"Global.output_dir={tmp_path / 'file'}")
    assert done.code == 0
    assert "WARNING: cannot write" in done.out
    done = cli("eval", "-c", config_file, lively, "--out", tmp_path / "file" / "result.json")
    assert done.code == 1
    assert done.err.startswith("error: cannot write")


@pytest.mark.parametrize(
    ("option", "name", "code", "said"),
    [
        ("--out", "folder", 1, "it is a folder"),
        ("--out", "file/result.json", 1, "is no folder"),
        ("--diagram", "folder", 1, "it is a folder"),
        ("--diagram", "bins.xyz", 2, "expected a picture to write"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_evaluated(
    cli, config_file, lively, tmp_path, option, name, code, said
):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    done = cli("eval", "-c", config_file, lively, option, tmp_path / name)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert said in done.err and "[Eval]" not in done.out


def test_a_mistake_in_the_last_checkpoint_does_not_cost_the_others(
    cli, config_file, run_folder, lively, tmp_path
):
    other = tmp_path / "other.safetensors"
    save_file({"w": np.zeros(1, np.float32)}, other)
    done = cli("eval", "-c", config_file, lively, lively, other)
    assert done.code == 1 and "another architecture" in done.err
    assert "<- best top1" in done.out
    content = json.loads((run_folder / "eval_checkpoints.json").read_text())
    assert len(content["results"]) == 2


def test_a_path_that_yaml_would_read_otherwise(cli, config_file, lively, tmp_path):
    odd = tmp_path / "a: [b] #c"
    odd.symlink_to(lively)
    assert cli("eval", "-c", config_file, odd).code == 0
