"""What an evaluation says beyond its numbers, in one process and in several."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import support

from ppcls.config import ConfigError
from ppcls.engine.distributed import NUMBERS_AT_ONCE, World

pytest.importorskip("paddle")
metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle")

EVERYTHING = "Metric.Eval=[TopkAcc: {topk: 1}, F1Score: , ConfusionMatrix: , AUC: , LogLoss: ]"


def logits_of(weights, paths):
    """Of each picture alone, float64 [N, C]."""
    import ppcls  # isort: skip
    import paddle

    net = ppcls.create_model(support.NET, class_num=3)
    net.set_state_dict(paddle.load(str(weights / "model.pdparams")))
    net.eval()
    with paddle.no_grad():
        rows = [net(paddle.to_tensor(support.preprocessed(path))).numpy() for path in paths]
    return np.concatenate(rows).astype(np.float64)


@pytest.fixture(scope="module")
def answers(lively, pictures):
    """Labels and logits of the validation pictures."""
    paths = sorted((pictures / "val").rglob("*.png"))
    labels = np.array([support.CLASSES.index(path.parent.name) for path in paths])
    return labels, logits_of(lively, paths)


def test_values_and_tables_are_scikit_learns(config_file, lively, answers):
    from ppcls import Evaluator

    labels, logits = answers
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    config = support.load(config_file, f"Global.pretrained_model={lively}", EVERYTHING)
    evaluator = Evaluator(config)
    result = evaluator.measure()
    evaluator.close()
    assert result.samples == len(labels)
    matrix = metrics.confusion_matrix(labels, logits.argmax(axis=1))
    assert np.array_equal(result.tables["confusion_matrix"].values, matrix)
    per_class = metrics.precision_recall_fscore_support(labels, logits.argmax(axis=1))
    assert np.allclose(result.tables["per_class"].values, np.stack(per_class, axis=1), atol=1e-12)
    auc = metrics.roc_auc_score(labels, probabilities, multi_class="ovr")
    assert result.values["AUC"] == pytest.approx(auc, abs=1e-12)
    loss = metrics.log_loss(labels, probabilities)
    assert result.values["log_loss"] == pytest.approx(loss, rel=1e-5)


def test_lines_of_progress_leave_out_what_takes_long(cli, config_file, lively):
    done = cli(
        "eval", "-c", config_file, "-o", f"Global.pretrained_model={lively}", "-o", EVERYTHING
    )
    [*lines, average] = [line for line in done.out.splitlines() if "[Eval]" in line]
    assert len(lines) == 3
    assert all("log_loss: " in line and "AUC: " not in line for line in lines)
    assert "AUC: " in average


@pytest.mark.slow
def test_two_processes_find_what_one_does(config_file, lively, tmp_path):
    """Also metrics that need the scores of all samples, and tables."""
    everything = EVERYTHING[:-1] + ", Temperature: ]"
    tool = [support.ROOT / "tools" / "eval.py", "-c", config_file, "--tta", "flip", lively]
    tool += support.override_arguments([everything, "DataLoader.Eval.sampler.batch_size=5"])
    alone = support.run([*tool, "--out", tmp_path / "alone.json"], tmp_path)
    assert alone.returncode == 0, alone.stderr
    done = support.launch(2, [*tool, "--out", tmp_path / "both.json"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    [one], [two] = (
        json.loads((tmp_path / name).read_text())["results"] for name in ("alone.json", "both.json")
    )
    assert two["samples"] == 23
    assert two["values"] == pytest.approx(one["values"], rel=1e-5)
    assert two["values"]["AUC"] == pytest.approx(one["values"]["AUC"], abs=1e-12)
    assert two["tables"]["confusion_matrix"] == one["tables"]["confusion_matrix"]


def test_metrics_that_keep_scores_are_refused_in_training(config_file):
    with pytest.raises(ConfigError, match=r"Metric\.Train: .*received AUC.*Metric\.Eval") as error:
        support.load(config_file, "Metric.Train=[TopkAcc: {topk: 1}, AUC: ]")
    assert "Global" not in str(error.value)


def test_the_best_model_is_that_with_the_lowest_log_loss(config_file, run_folder):
    support.train(config_file, "Global.epochs=3", "Metric.Eval=[LogLoss: ]")
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["log_loss"] for line in lines if line["kind"] == "eval"]
    assert len(set(losses)) == 3
    state = support.read_state(run_folder / "best_model")
    assert state["best_metric"] == state["metric"] == pytest.approx(min(losses), abs=1e-9)
    assert state["best_epoch"] == 1 + losses.index(min(losses))


def test_any_number_is_better_than_what_is_none():
    from ppcls.engine.handlers import _is_better

    assert _is_better(0.5, float("nan"), 1) and _is_better(0.5, float("nan"), -1)
    assert not _is_better(float("nan"), 0.5, 1)
    assert _is_better(0.4, 0.5, -1) and not _is_better(0.4, 0.5, 1)
    assert not _is_better(0.5, 0.5, 1)


class Store:
    """A key-value store of one process, with the limit of Paddle's on a message."""

    def __init__(self):
        self.values = {}

    def add(self, key, number):
        return number

    def set(self, key, value):
        assert len(value) <= 2**21
        self.values[key] = value

    def wait(self, key):
        support.wait_until(lambda: key in self.values, key, timeout=5)

    def get(self, key):
        return self.values[key]


def test_large_arrays_are_sent_in_pieces_and_forgotten():
    store, worlds = Store(), [World(rank, 2) for rank in range(2)]
    for world in worlds:
        world.attach(store)
    size = 2 * NUMBERS_AT_ONCE + 6
    arrays = [np.arange(size, dtype=float).reshape(2, -1) + rank for rank in range(2)]
    with ThreadPoolExecutor() as pool:
        received = list(pool.map(lambda world: world.gather(arrays[world.rank]), worlds))
    assert np.array_equal(received, [arrays, arrays])
    held = sum(len(value) for value in store.values.values())
    assert held <= 2 * 6 * 8  # the last pieces
