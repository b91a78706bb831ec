"""The events of a run, and runs that share a process."""

import re

import numpy as np
import pytest
import support

from ppcls.engine.handlers import Handler, default_handlers

pytest.importorskip("paddle")

STEP = ["step_start", "step_end"]
EPOCH = ["epoch_start", *3 * STEP, "epoch_end"]


class Recorder(Handler):
    """Notes every event."""

    def __init__(self, name="", notes=None):
        self.notes = [] if notes is None else notes
        for event in ("fit_start", *EPOCH[:3], "epoch_end", "fit_end", "close"):
            setattr(self, event, self._noting(name, event))

    def _noting(self, name, event):
        def note(trainer, *arguments):
            self.notes.append(f"{name}{event}")

        return note

    def scalars(self, trainer, kind, values):
        self.notes.append(f"scalars {kind}")


class Fail(Handler):
    """Fails in the second step."""

    def step_end(self, trainer, step):
        if step.index == 1:
            raise ZeroDivisionError


def test_events_come_in_the_documented_order(config_file):
    recorder = Recorder()
    support.train(config_file, "Global.epochs=2", handlers=[recorder])
    assert recorder.notes == ["fit_start", *EPOCH, *EPOCH, "fit_end", "close"]


def test_results_are_announced_as_documented(config_file):
    from ppcls.engine.distributed import World

    recorder = Recorder()
    handlers = default_handlers(support.load(config_file), World())
    support.train(config_file, handlers=[*handlers, recorder])
    announced = [note for note in recorder.notes if note.startswith("scalars")]
    assert announced == [*["scalars train"] * 3, "scalars train_avg", "scalars eval"]


def test_after_an_error_only_close_comes(config_file):
    recorder = Recorder()
    with pytest.raises(ZeroDivisionError):
        support.train(config_file, handlers=[recorder, Fail()])
    assert recorder.notes == ["fit_start", "epoch_start", *2 * STEP, "close"]


def test_handlers_of_an_event_come_in_their_order(config_file):
    notes = []
    support.train(config_file, handlers=[Recorder("a ", notes), Recorder("b ", notes)])
    assert notes[:4] == ["a fit_start", "b fit_start", "a epoch_start", "b epoch_start"]
    assert notes[0::2] == [note.replace("b ", "a ") for note in notes[1::2]]


def test_a_step_shows_what_it_used(config_file):
    seen = []

    class Look(Handler):
        def step_end(self, trainer, step):
            seen.append(
                (step.index, step.samples, step.lr, [*step.logits.shape], [*step.targets.shape])
            )
            assert step.losses["loss"].item() > 0
            assert trainer.state.global_step == len(seen)

    support.train(config_file, handlers=[Look()])
    assert seen == [(i, 8, 0.02, [8, 3], [8]) for i in range(3)]


def test_the_loop_itself_writes_and_prints_nothing(config_file, run_folder, capsys):
    support.train(config_file, handlers=[])
    assert {p.name for p in run_folder.iterdir()} == {"config.yaml", "train.log"}
    assert "[Train]" not in capsys.readouterr().out


def test_two_trainers_live_in_one_process(config_file, tmp_path):
    """Built one after the other, then trained one after the other: as if each were alone."""
    from ppcls import Trainer

    overrides = {
        "a": ("Global.seed=1", "Arch.dropout=0.5"),
        "b": ("Global.seed=2", "Optimizer.lr.learning_rate=0.01"),
    }

    def build(name, folder):
        output = f"Global.output_dir={tmp_path / folder / name}"
        return Trainer(support.load(config_file, *overrides[name], output))

    alone = {}
    for name in "ab":
        trainer = build(name, "alone")
        trainer.fit()
        alone[name] = support.weights(trainer.folder / "latest")
    together = {name: build(name, "together") for name in "ab"}
    for name in "ba":
        together[name].fit()
    for name, trainer in together.items():
        weights = support.weights(trainer.folder / "latest")
        different = [
            key for key, value in alone[name].items() if not np.array_equal(value, weights[key])
        ]
        assert different == []
        log = support.text_of(trainer.folder / "train.log")
        assert len(re.findall(r"\[Train\].*\[Iter:", log)) == 3


def test_two_trainers_with_reader_processes(config_file, tmp_path, no_leftovers):
    from ppcls import Trainer

    workers = "DataLoader.Train.loader.num_workers=1"
    trainers = [
        Trainer(support.load(config_file, workers, f"Global.output_dir={tmp_path / name}"))
        for name in "ab"
    ]
    states = [trainer.fit() for trainer in trainers]
    assert [state.global_step for state in states] == [3, 3]
    assert (
        support.same_files(trainers[0].folder / "latest", trainers[0].folder / "best_model") == []
    )
    one, other = (support.weights(trainer.folder / "latest") for trainer in trainers)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_two_networks_do_not_share_weights():
    import ppcls

    one, other = (ppcls.create_model(support.NET, class_num=3) for _ in range(2))
    before = other.classifier[1].weight.numpy().copy()
    one.classifier[1].weight.set_value(one.classifier[1].weight * 0)
    assert np.array_equal(other.classifier[1].weight.numpy(), before)


def test_evaluating_without_a_reader_says_so(config_file):
    from ppcls import Trainer
    from ppcls.errors import TrainingError

    trainer = Trainer(support.load(config_file, "Global.eval_during_train=false"), handlers=[])
    with pytest.raises(TrainingError, match="eval_during_train"):
        trainer.evaluate()
    trainer.close()
