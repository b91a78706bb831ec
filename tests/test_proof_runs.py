"""The runs behind docs/results.md: none is repeated or taken for another; their tables."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import support
from support import ROOT

sys.path.insert(0, str(ROOT))

import ppcls
from benchmark.ablation import CHANGES, CONFIG, as_table
from benchmark.runs import RESULT, Result, Run, gain, last_top1, spread, trained

RUN = Run("label smoothing", CONFIG, ("Global.epochs=60",), seed=1)
GIVEN = ["benchmark/configs/sign_digits_ablation.yaml", "Global.epochs=60"]


def write_result(out: Path, run: Run) -> Result:
    result = Result("folder", 0.9, 12.0, GIVEN)
    (out / run.folder).mkdir(parents=True)
    (out / run.folder / RESULT).write_text(json.dumps(asdict(result)), encoding="utf-8")
    return result


def test_a_run_with_a_result_is_not_repeated_nor_taken_for_one_of_other_settings(
    tmp_path: Path,
) -> None:
    result = write_result(tmp_path, RUN)
    assert trained(RUN, tmp_path) == result
    with pytest.raises(SystemExit, match="another --out"):
        trained(Run(RUN.name, CONFIG, ("Global.epochs=61",), RUN.seed), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_training_goes_on_when_the_script_is_ended(tmp_path: Path, number: int) -> None:
    script = ROOT / "benchmark" / "ablation.py"
    process = support.start([script, "--out", tmp_path, "--data", tmp_path], tmp_path)
    trainings = support.wait_until(
        lambda: len(found := support.children(process.pid)) == 2 and found, "two trainings"
    )
    os.kill(process.pid, number)
    process.wait(10)
    support.wait_until(lambda: not any(map(support.alive, trainings)), "them to end", 20)


def test_the_figure_is_that_of_the_last_evaluation(tmp_path: Path) -> None:
    rows = [("eval", 0.75), ("eval", 0.5), ("train_avg", 1.0)]
    text = "".join(json.dumps({"kind": kind, "top1": top1}) + "\n" for kind, top1 in rows)
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert last_top1(tmp_path / "metrics.jsonl") == 0.5


def test_mean_spread_and_gain_seed_by_seed() -> None:
    assert spread([0.90, 0.92, 0.94]) == "92.00 ± 2.00"
    assert gain([0.91, 0.94, 0.97], [0.90, 0.92, 0.94]) == "+2.00 ± 1.00"
    assert gain([0.90], [0.92]) == "-2.00"
    results = {
        name: [Result("", top1, 0.0, []) for top1 in values]
        for name, values in {"baseline": [0.90, 0.92], "EMA": [0.91, 0.95]}.items()
    }
    assert as_table(results, [0, 1]).splitlines()[2:] == [
        "| baseline | 91.00 ± 1.41 |  | 90.00, 92.00 |",
        "| + EMA | 93.00 ± 2.83 | +2.00 ± 1.41 | 91.00, 95.00 |",
    ]


@pytest.mark.parametrize("name", CHANGES)
def test_every_row_of_the_ablation_is_a_right_configuration(name: str) -> None:
    ppcls.load_config(CONFIG, list(CHANGES[name]))


@pytest.mark.parametrize("path", sorted(CONFIG.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_of_the_proofs_are_right(path: Path) -> None:
    ppcls.load_config(path)
