"""Curves go to tools behind one interface; none of them can stop a run, or doubles its points."""

import json
import struct
import sys
from pathlib import Path

import pytest
import support

from ppcls.config import ConfigError
from ppcls.engine.trackers.base import Tracker, flat
from ppcls.errors import EnvironmentProblem, TrainingError
from ppcls.registry import TRACKERS, Entry

pytest.importorskip("paddle")


class Fake(Tracker):
    """Notes what it is told, and fails when ``fails`` says so."""

    title = "Fake"
    made: list = []  # noqa: RUF012
    fails = ""

    def __init__(self):
        Fake.made.append(self)
        self.said = []

    def open(self, run):
        self.run = run
        return self._note("open")

    def scalars(self, step, values):
        self._note("scalars", step, *values)

    def close(self, finished):
        self._note("close", finished)

    def state(self):
        return {"id": self.run.state.get("id", "first")} if self.said else {}

    def _note(self, *what):
        self.said.append(what)
        if what[0] == Fake.fails:
            raise RuntimeError("no connection\nat all")
        return "here"


@pytest.fixture
def fake(monkeypatch):
    TRACKERS.names()
    monkeypatch.setitem(TRACKERS._entries, "fake", Entry("fake", Fake))
    monkeypatch.setattr(Fake, "made", [])
    monkeypatch.setattr(Fake, "fails", "")
    return Fake


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory that has to stay empty."""
    path = tmp_path / "home"
    path.mkdir()
    monkeypatch.setenv("HOME", str(path))
    for name in ("WANDB_MODE", "WANDB_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return path


def train_twice(config_file, run_folder, name):
    """Two epochs, of which the second is thrown away and repeated."""
    overrides = [f"Global.trackers=[{name}]", "Global.epochs=2", "Global.save_interval=1"]
    support.train(config_file, *overrides)
    return support.train(config_file, *overrides, f"Global.checkpoints={run_folder / 'epoch_1'}")


def test_a_tracker_is_told_the_whole_run(config_file, run_folder, fake):
    support.train(config_file, "Global.trackers=[fake]")
    [tracker] = fake.made
    train = [what[1] for what in tracker.said if what[0] == "scalars" and "train/loss" in what]
    assert train == [1, 2, 3]
    assert sum("eval/top1" in what for what in tracker.said) == 1
    assert (tracker.said[0], tracker.said[-1]) == (("open",), ("close", True))
    run = tracker.run
    assert (run.name, run.folder, run.step, run.state) == (support.NET, run_folder, 0, {})
    assert run.config["Optimizer"]["lr"]["learning_rate"] == 0.02
    assert "curves for Fake: here" in (run_folder / "train.log").read_text()


def test_a_resumed_run_hands_back_what_a_tracker_has_said(config_file, run_folder, fake):
    train_twice(config_file, run_folder, "fake")
    assert [(t.run.step, t.run.state) for t in fake.made] == [(0, {}), (3, {"id": "first"})]


@pytest.mark.parametrize("event", ["open", "scalars", "close"])
def test_a_failure_switches_one_tracker_off(config_file, run_folder, fake, monkeypatch, event):
    monkeypatch.setattr(fake, "fails", event)
    monkeypatch.setitem(TRACKERS._entries, "sound", Entry("sound", type("Sound", (Fake,), {})))
    monkeypatch.setattr(TRACKERS.entry("sound").builder, "_note", lambda self, *what: "there")
    trainer = support.train(config_file, "Global.trackers=[fake, sound]")
    assert trainer.state.epoch == 1
    log = (run_folder / "train.log").read_text()
    assert log.count("failed and is switched off") == 1
    assert log.count("Fake failed and is switched off: no connection\n") == 1
    # Its state is kept, so that a later start may go on with the same curves.
    state = json.loads((run_folder / "latest/state.json").read_text())["handlers"]["Tracking"]
    assert state["fake"] == {"id": "first"}


def test_a_run_that_fails_is_closed_as_such(config_file, fake):
    with pytest.raises(TrainingError):
        support.train(config_file, "Global.trackers=[fake]", "Optimizer.lr.learning_rate=1e30")
    assert fake.made[0].said[-1] == ("close", False)


@pytest.mark.parametrize("name", ["visualdl", "tensorboard", "wandb", "mlflow"])
def test_a_library_that_is_missing_is_named_before_training(config_file, monkeypatch, name):
    for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EnvironmentProblem, match=rf"{name} .*pip install 'ppcls\[{name}\]'"):
        support.train(config_file, f"Global.trackers=[{name}]")


def test_an_unknown_tracker_is_a_mistake_of_the_configuration(config_file):
    with pytest.raises(ConfigError, match=r"Global.trackers: .*did you mean 'tensorboard'\?"):
        support.load(config_file, "Global.trackers=[tensorbord]")


def test_only_the_first_process_tracks(config_file, fake):
    from ppcls.engine.distributed import World
    from ppcls.engine.handlers import default_handlers

    config = support.load(config_file, "Global.trackers=[fake]")
    default_handlers(config, World(rank=1, size=2))
    assert not fake.made
    default_handlers(config, World(rank=0, size=2))
    assert len(fake.made) == 1


def test_parameters_are_named_as_on_the_command_line():
    tree = {"Loss": {"Train": [{"CELoss": {"weight": 1.0}}]}, "size": [3, 4], "none": {}}
    assert flat(tree) == {"Loss.Train.0.CELoss.weight": 1.0, "size": [3, 4], "none": {}}


# The libraries themselves ------------------------------------------------------------------------


def test_tensorboard_shows_each_point_once(config_file, run_folder, home):
    reason = "the extra 'tensorboard' is not installed"
    pytest.importorskip("tensorboard", reason=reason)
    train_twice(config_file, run_folder, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(run_folder / "tensorboard"))
    curves.Reload()
    assert [point.step for point in curves.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [point.step for point in curves.Scalars("eval/top1")] == [3, 6]
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert curves.Scalars("train/loss")[0].value == pytest.approx(losses[0], rel=1e-6)
    assert b"learning_rate" in curves.Tensors("config")[0].tensor_proto.string_val[0]
    assert not {"torch", "tensorflow"} & sys.modules.keys()
    assert not list(home.iterdir())


def test_wandb_writes_offline_into_the_run_folder(config_file, run_folder, home, tmp_path):
    pytest.importorskip("wandb", reason="the extra 'wandb' is not installed")
    settings = ["Global.trackers=[wandb]", "Global.epochs=2", "Global.save_interval=1"]
    support.train(config_file, *settings)
    settings.append(f"Global.checkpoints={run_folder / 'epoch_1'}")
    arguments = ["-c", config_file, *support.override_arguments(settings)]
    # The library keeps a run's id to itself as long as the process lives.
    command = [support.ROOT / "tools/train.py", *arguments]
    assert support.run(command, tmp_path, timeout=100).returncode == 0
    first, second = sorted((run_folder / "wandb").glob("offline-run-*/run-*.wandb"))
    assert first.name == second.name  # the same id
    assert wandb_points(first, "train/loss") == [1, 2, 3, 4, 5, 6]
    assert wandb_points(second, "train/loss") == [4, 5, 6]
    assert not list(home.rglob("*wandb*"))


def wandb_points(path: Path, tag: str) -> list[int]:
    """The steps of a curve; the file is LevelDB's log of Protobuf records behind 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, steps, block = path.read_bytes(), 7, [], 2**15
    payload = b""
    while place + 7 <= len(data):
        if block - place % block < 7:
            place += block - place % block
        _, size, kind = struct.unpack_from("<IHB", data, place)
        payload += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record.FromString(payload)
            payload = b""
            items = {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
            steps += [int(items["_step"])] if tag in items else []
    return steps


def test_mlflow_goes_on_with_the_same_run(config_file, run_folder, home):
    pytest.importorskip("mlflow", reason="the extra 'mlflow' is not installed")
    pytest.importorskip("sqlalchemy", reason="mlflow-skinny has no data base")
    train_twice(config_file, run_folder, "mlflow")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run_folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ppcls")
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (support.NET, "FINISHED")
    assert run.data.params["Optimizer.lr.learning_rate"] == "0.02"
    steps = {point.step for point in client.get_metric_history(run.info.run_id, "train/loss")}
    assert steps == {1, 2, 3, 4, 5, 6}
    assert not list(home.iterdir())
