"""The lines of a run, which other tools parse, and the files that say the same."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import support
from support import NUMBER, STAMP

pytest.importorskip("paddle")

LOSSES = rf"CELoss: {NUMBER}, loss: {NUMBER}"
METRICS = rf"top1: {NUMBER}, top2: {NUMBER}"
TRAIN = (
    rf"{STAMP}\[Train\]\[Epoch (\d+)/2\]\[Iter: (\d)/3\]lr\((\w+)\): (\d+\.\d{{8}}), "
    rf"{METRICS}, {LOSSES}, batch_cost: {NUMBER}s, reader_cost: {NUMBER}, "
    rf"ips: {NUMBER} samples/s, eta: (\d+ days?, )?\d+:\d\d:\d\d"
)
TRAIN_AVERAGE = rf"{STAMP}\[Train\]\[Epoch (\d+)/2\]\[Avg\]{METRICS}, {LOSSES}"
EVAL = (
    rf"{STAMP}\[Eval\]\[Epoch (\d+)\]\[Iter: (\d)/3\]{LOSSES}, {METRICS}, "
    rf"batch_cost: {NUMBER}s, reader_cost: {NUMBER}, ips: {NUMBER} images/sec"
)
EVAL_AVERAGE = rf"{STAMP}\[Eval\]\[Epoch (\d+)\]\[Avg\]{LOSSES}, {METRICS}"
BEST = rf"{STAMP}\[Eval\]\[Epoch (\d+)\]\[best metric: ({NUMBER})\]"
EPOCH = [*[TRAIN] * 3, TRAIN_AVERAGE, *[EVAL] * 3, EVAL_AVERAGE, BEST]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pictures):
    """A run of two epochs in a process of its own, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    tree = support.config_tree(pictures, folder / "output")
    tree["Global"]["epochs"] = 2
    tree["Optimizer"]["lr"] = {"name": "Cosine", "learning_rate": 0.02, "warmup_epoch": 1}
    path = support.write_config(folder / "config.yaml", tree)
    script = (
        "import sys\n"
        "from ppcls.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "assert 'visualdl' not in sys.modules, 'visualdl was imported'\n"
        "sys.exit(code)\n"
    )
    done = support.run(["-c", script, "train", "-c", path], folder)
    assert done.returncode == 0, done.stderr
    return done, folder / "output" / support.NET


def test_a_run_says_nothing_on_standard_error(finished):
    assert finished[0].stderr == ""


def test_the_console_shows_run_lines_only_and_in_order(finished):
    first, *lines, last = finished[0].stdout.splitlines()
    assert re.fullmatch(rf"{STAMP}{support.NET}: 350,159 parameters, 24 samples, .*", first)
    assert len(lines) == 2 * len(EPOCH)
    for line, pattern in zip(lines, 2 * EPOCH, strict=True):
        assert re.fullmatch(pattern, line), f"{line!r} does not match {pattern}"
    assert re.match(rf"{STAMP}best model: ", last)


def test_the_last_line_names_the_result_and_a_command_that_uses_it(finished, pictures, tmp_path):
    done, folder = finished
    state = support.read_state(folder / "best_model")
    result = f"top1 {state['best_metric']:.5f} in epoch {state['best_epoch']}"
    line = done.stdout.splitlines()[-1]
    assert f"best model: {folder / 'best_model'} ({result}); ppcls infer -c " in line
    command = shlex.split(line.partition("; ppcls ")[2].replace("PHOTO", str(pictures / "val/red")))
    answers = support.run(["-m", "ppcls.cli", *command], tmp_path)
    assert answers.returncode == 0, answers.stderr
    assert answers.stdout.count("class_ids") == 7


def test_without_evaluation_the_last_line_names_the_latest_weights(config_file, run_folder, capsys):
    support.train(config_file, "Global.eval_during_train=false", "Infer=null")
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(
        rf"{STAMP}latest: {re.escape(str(run_folder / 'latest'))} \(epoch 1\)", last
    )


def test_epochs_and_iterations_count_as_published(finished):
    places = re.findall(r"\[Epoch (\d)/2\]\[Iter: (\d)/3\]lr", finished[0].stdout)
    assert places == [(e, i) for e in "12" for i in "012"]
    assert re.findall(r"\[Eval\]\[Epoch (\d)\]\[Avg\]", finished[0].stdout) == ["1", "2"]


def test_the_log_file_holds_the_lines_of_the_console(finished):
    console, folder = finished[0].stdout, finished[1]
    assert (folder / "train.log").read_text() == console


def test_the_rate_printed_is_the_one_that_the_step_used(finished):
    from ppcls.optim.schedules import Cosine

    schedule = Cosine(0.02, warmup_epoch=1, epochs=2, steps_per_epoch=3)
    printed = re.findall(r"lr\((\w+)\): (\d\.\d{8}),", finished[0].stdout)
    assert printed == [("LinearWarmup", f"{schedule(step):.8f}") for step in range(6)]
    assert len({rate for _, rate in printed}) == 6


def test_metrics_file_is_one_json_object_a_line(finished):
    stdout, folder = finished[0].stdout, finished[1]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kinds = ["train", "train", "train", "train_avg", "eval"]
    assert [line["kind"] for line in lines] == 2 * kinds
    assert [line["epoch"] for line in lines] == 5 * [1] + 5 * [2]
    assert [line["step"] for line in lines] == [1, 2, 3, 3, 3, 4, 5, 6, 6, 6]
    shown = re.findall(rf"\[Eval\]\[Epoch \d\]\[Avg\]CELoss: ({NUMBER})", stdout)
    assert [f"{line['CELoss']:.5f}" for line in lines if line["kind"] == "eval"] == shown


def test_published_sample_lines_have_the_shape_that_is_printed():
    from ppcls.engine import logging as log

    position = (187, 200, 1350, 2502)
    costs = (0.53062, 0.11223, 241.22737)
    losses = {"CELoss": 2.16119, "loss": 2.16119}
    line = log.train_line(position, ("LinearWarmup", 0.00125084), losses, costs, 17870.9)
    assert line == (
        "[Train][Epoch 187/200][Iter: 1350/2502]lr(LinearWarmup): 0.00125084, CELoss: 2.16119, "
        "loss: 2.16119, batch_cost: 0.53062s, reader_cost: 0.11223, ips: 241.22737 samples/s, "
        "eta: 4:57:50"
    )
    average = {"top1": 0.625, "CELoss": 0.64448, "loss": 0.64448}
    assert log.train_average_line(1, 2, average) == (
        "[Train][Epoch 1/2][Avg]top1: 0.62500, CELoss: 0.64448, loss: 0.64448"
    )
    result = {"CELoss": 0.69339, "loss": 0.69339, "top1": 0.4, "top5": 1.0}
    assert log.eval_average_line(1, result) == (
        "[Eval][Epoch 1][Avg]CELoss: 0.69339, loss: 0.69339, top1: 0.40000, top5: 1.00000"
    )
    assert log.best_line(1, 0.4) == "[Eval][Epoch 1][best metric: 0.40000]"


def test_only_every_nth_iteration_is_printed(config_file, capsys):
    support.train(config_file, "Global.print_batch_step=2")
    out = capsys.readouterr().out
    assert re.findall(r"\[Train\].*\[Iter: (\d)/3\]", out) == ["0", "2"]
    assert re.findall(r"\[Eval\].*\[Iter: (\d)/3\]", out) == ["0", "2"]


def test_averages_are_over_all_samples_not_over_batches(config_file, pictures, capsys):
    """24 samples in batches of 10: 10, 10 and 4 count by their size."""
    overrides = [
        "DataLoader.Train.sampler.batch_size=10",
        "DataLoader.Train.sampler.drop_last=false",
        "Optimizer.lr.learning_rate=1e-9",
    ]
    support.train(config_file, *overrides)
    out = capsys.readouterr().out
    losses = [float(v) for v in re.findall(rf"\[Iter: \d/3\]lr.* loss: ({NUMBER})", out)]
    [average] = re.findall(rf"\[Train\].*\[Avg\].* loss: ({NUMBER})", out)
    expected = (10 * losses[0] + 10 * losses[1] + 4 * losses[2]) / 24
    assert float(average) == pytest.approx(expected, abs=2e-5)
    assert abs(sum(losses) / 3 - expected) > 1e-4  # or the test could not tell


def test_metrics_file_stays_valid_json_for_a_result_that_is_no_number(config_file, run_folder):
    """NaN and Infinity are no JSON: strict readers (browsers, jq, databases) refuse the line."""
    from ppcls import Trainer
    from ppcls.engine.trackers import MetricsFile

    trainer = Trainer(support.load(config_file), handlers=[])
    MetricsFile().scalars(trainer, "eval", {"loss": float("nan"), "CELoss": float("inf")})
    trainer.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    for line in (run_folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_visualdl_curves_are_written_if_asked_for(config_file, run_folder):
    pytest.importorskip("visualdl", reason="the extra 'visualdl' is not installed")
    support.train(config_file, "Global.use_visualdl=true")
    from visualdl import LogReader

    [log_file] = (run_folder / "vdl").iterdir()
    reader = LogReader(file_path=str(log_file))
    points = reader.get_data("scalar", "train/loss")
    assert [point.id for point in points] == [1, 2, 3]
    assert [round(p.value, 8) for p in reader.get_data("scalar", "train/lr")] == [0.02] * 3
    assert len(reader.get_data("scalar", "eval/top1")) == 1


def test_without_visualdl_no_folder_is_written(finished):
    assert not (finished[1] / "vdl").exists()


def test_a_failing_tracker_never_stops_a_run(config_file, run_folder, capsys, monkeypatch):
    visualdl = pytest.importorskip("visualdl", reason="the extra 'visualdl' is not installed")

    class Broken:
        def __init__(self, **_):
            pass

        def add_scalar(self, *_):
            raise OSError(28, "No space left on device")

        def close(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(visualdl, "LogWriter", Broken)
    (run_folder / "metrics.jsonl").mkdir(parents=True)  # cannot be opened as a file
    trainer = support.train(config_file, "Global.use_visualdl=true")
    assert trainer.state.epoch == 1
    out = capsys.readouterr().out
    assert out.count("VisualDL failed and is switched off") == 1
    assert "metrics.jsonl cannot be written" in out


def test_visualdl_that_is_not_installed_is_named_before_training(config_file, monkeypatch):
    from ppcls.errors import EnvironmentProblem

    monkeypatch.setitem(sys.modules, "visualdl", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'ppcls\[visualdl\]'"):
        support.train(config_file, "Global.use_visualdl=true")


def test_two_loggers_of_one_process_do_not_share_lines(tmp_path: Path, capsys):
    from ppcls.engine import logging as log

    one, other = (log.make_logger(tmp_path / f"{name}.log") for name in "ab")
    one.info("first")
    other.info("second")
    for logger in (one, other):
        log.close_logger(logger)
    assert re.fullmatch(rf"{STAMP}first\n", (tmp_path / "a.log").read_text())
    assert re.fullmatch(rf"{STAMP}second\n", (tmp_path / "b.log").read_text())
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_importing_the_library_does_not_import_paddle():
    code = "import sys, ppcls, ppcls.cli, ppcls.deploy; sys.exit('paddle' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=support.environment())
    assert done.returncode == 0
