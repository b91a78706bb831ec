"""Greedy soups take what helps, by the rule of the paper."""

from pathlib import Path

import numpy as np
import paddle
import pytest
import support

import ppcls
from ppcls.engine.evaluator import Result
from ppcls.engine.soup import greedy_soup
from ppcls.errors import DataError, WeightsError
from ppcls.weights import read_weights


class Judge:
    """An evaluator whose results follow from the one number that the weights are."""

    main_name, higher_is_better = "top1", True

    def __init__(self, result):
        self._result = result

    def load(self, source):
        self.use(read_weights(Path(source)))

    def use(self, weights):
        self._number = weights["w"].item()

    def measure(self):
        return Result({"loss": 9.0, self.main_name: self._result(self._number)})


@pytest.fixture
def files(tmp_path):
    """Weights 0, 1, 2, ... in files of these names."""

    def write(*numbers):
        for number in numbers:
            path = tmp_path / f"{number}.pdparams"
            paddle.save({"w": paddle.full([1], number, "float32")}, str(path))
        return [str(tmp_path / f"{number}.pdparams") for number in numbers]

    return write


def names(sources):
    return [Path(source).stem for source in sources]


def test_the_best_come_first_and_what_hurts_stays_out(files):
    """The best number is 3.5: 3 alone, then (3 + 4) / 2; any other moves the mean away."""
    said = []
    soup = greedy_soup(Judge(lambda x: -abs(x - 3.5)), files(0, 4, 3, 9), said.append)
    assert names(soup.ingredients) == ["4", "3"]  # equally good: in the order given
    assert soup.weights["w"].tolist() == [3.5]
    assert (soup.best_single, soup.metric) == (-0.5, 0.0)
    assert [line.rpartition(": ")[2] for line in said[5:]] == [
        "the best alone", "taken", "left out", "left out",
    ]  # fmt: skip


def test_what_does_not_change_the_result_is_taken(files):
    soup = greedy_soup(Judge(lambda x: 0.5), files(1, 2, 6), print)
    assert len(soup.ingredients) == 3
    assert soup.weights["w"].tolist() == [3.0]


def test_the_lowest_is_the_best_where_the_metric_says_so(files):
    judge = Judge(lambda x: abs(x - 3.5))
    judge.higher_is_better = False
    assert names(greedy_soup(judge, files(0, 4, 3, 9), print).ingredients) == ["4", "3"]


def test_what_has_no_result_never_counts(files):
    judge = Judge(lambda x: float("nan") if x == 2 else x)
    assert names(greedy_soup(judge, files(2, 1), print).ingredients) == ["1"]
    with pytest.raises(DataError, match="no checkpoint has a top1"):
        greedy_soup(judge, files(2), print)


def test_other_networks_are_refused_before_anything_is_evaluated(files, tmp_path):
    other = tmp_path / "other.pdparams"
    paddle.save({"v": paddle.zeros([1])}, str(other))

    def never(number):
        raise AssertionError("evaluated")

    with pytest.raises(WeightsError, match="lacks 'w'"):
        greedy_soup(Judge(never), [*files(1), str(other)], print)


def test_the_command_writes_weights_with_the_result_it_says(cli, config_file, trained, tmp_path):
    out = tmp_path / "soup.pdparams"
    epochs = [trained / f"epoch_{number}" for number in (1, 2, 3)]
    metric = ["-o", "Metric.Eval=[LogLoss: ]"]
    done = cli("weights", "average", "--greedy", "-c", config_file, *metric, out, *epochs)
    assert done.code == 0, done.err
    said = done.out.splitlines()[-1]
    assert "[Eval]" not in done.out
    config = support.load(config_file, f"Global.pretrained_model={out}", metric[1])
    result = ppcls.Evaluator(config).run()["log_loss"]
    assert f"log_loss {result:.5f} (the best alone: " in said
    singles = [float(line.split()[0]) for line in done.out.splitlines()[:3]]
    assert result <= min(singles) + 1e-5
    assert np.isfinite(singles).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--greedy"], "--greedy: expected a configuration"),
        (["-c", "x.yaml"], "-c and -o: a configuration is for --greedy"),
    ],
)
def test_greedy_and_a_configuration_go_together(cli, trained, tmp_path, arguments, message):
    epochs = [trained / f"epoch_{number}" for number in (1, 2)]
    done = cli("weights", "average", *arguments, tmp_path / "out.pdparams", *epochs)
    assert done.code == 2
    assert message in done.err
