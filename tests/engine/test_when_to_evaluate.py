"""When a run evaluates, and when that ends it."""

from __future__ import annotations

import pytest
import support

from ppcls.engine.handler import Handler

pytestmark = pytest.mark.timeout(120)


class Evaluations(Handler):
    """Notes epoch and step of each evaluation."""

    def __init__(self):
        self.at = []

    def scalars(self, trainer, kind, values):
        if kind == "eval":
            self.at.append((trainer.state.epoch, trainer.state.global_step))


def evaluations(path, *overrides, results=None):
    """Where a run evaluates; with ``results``, what its evaluations say one after the other."""
    from ppcls.engine.trainer import Trainer

    notes = Evaluations()
    trainer = Trainer(support.load(path, *overrides))
    trainer.handlers.append(notes)
    if results is not None:
        answers = iter(results)
        trainer.evaluate = lambda: {"loss": 0.0, "top1": next(answers)}
    trainer.fit()
    return notes.at, trainer


def test_by_steps(config_file):
    at, _ = evaluations(config_file, "Global.epochs=2", "Global.eval_every_steps=2")
    assert at == [(1, 2), (2, 4), (2, 6)]


def test_the_last_epoch_is_always_evaluated(config_file):
    at, _ = evaluations(config_file, "Global.epochs=2", "Global.eval_every_steps=4")
    assert at == [(2, 4), (2, 6)]


def test_before_training(config_file, run_folder):
    at, trainer = evaluations(config_file, "Global.eval_before_training=true", results=[0.9, 0.5])
    assert at == [(1, 0), (1, 3)]
    assert trainer.state.best_metric == 0.5, "the random network's luck is not a result of the run"
    log = (run_folder / "train.log").read_text()
    assert "[Eval][Epoch 0][Avg]loss: 0.00000, top1: 0.90000" in log


def test_a_checkpoint_of_an_evaluation_within_an_epoch_goes_on(config_file, run_folder, tmp_path):
    options = ["Global.epochs=1", "Global.eval_every_steps=2"]
    whole = support.train(config_file, *options)
    first = support.read_state(run_folder / "best_model")
    if first["step_in_epoch"] == 0:
        pytest.fail("expected the best of two equal results to be the first")
    resumed = support.train(
        config_file,
        *options,
        f"Global.checkpoints={run_folder / 'best_model'}",
        f"Global.output_dir={tmp_path / 'again'}",
    )
    one, other = (support.weights(t.folder / "latest") for t in (whole, resumed))
    assert all((one[name] == other[name]).all() for name in one)


SLOW = "Optimizer.lr.learning_rate=0.0001"  # batches of few pictures


def test_a_batch_left_out_costs_no_evaluation(config_file):
    """The last batch of the second step is lost, which then ends with none that is used."""
    from ppcls.engine.trainer import Trainer

    sizes = "DataLoader.Train.sampler.batch_size=3", "Global.update_freq=2"
    options = *sizes, "Global.eval_every_steps=2", "Global.on_nan=skip", SLOW
    notes, trainer = Evaluations(), Trainer(support.load(config_file, *options))
    own, trainer.handlers = trainer.guard.admits, [*trainer.handlers, notes]
    trainer.guard.admits = lambda loss, batch: batch.number != 3 and own(loss, batch)
    trainer.fit()
    assert notes.at == [(1, 3), (1, 4)]


STOP = "Global.early_stop={patience: 2, min_delta: 0.01}"


def test_early_stop_waits_for_its_patience(config_file, capsys):
    results = [0.5, 0.6, 0.605, 0.6, 0.9]
    at, trainer = evaluations(config_file, "Global.epochs=9", STOP, results=results)
    assert len(at) == 4
    assert trainer.state.epoch == 4
    assert "stopping after epoch 4: 2 evaluations in a row" in capsys.readouterr().out
    assert support.read_state(trainer.folder / "latest")["epoch"] == 4


def test_early_stop_goes_on_counting_after_a_resume(config_file, run_folder):
    evaluations(config_file, "Global.epochs=2", STOP, results=[0.6, 0.6])
    more = ["Global.epochs=9", STOP, f"Global.checkpoints={run_folder / 'latest'}"]
    at, _ = evaluations(config_file, *more, results=[0.6, 0.6, 0.6])
    assert len(at) == 1


def test_a_run_that_has_stopped_early_stays_so(config_file, run_folder, capsys):
    evaluations(config_file, "Global.epochs=9", STOP, results=[0.6, 0.6, 0.6])
    more = ["Global.epochs=9", STOP, f"Global.checkpoints={run_folder / 'latest'}"]
    at, trainer = evaluations(config_file, *more, results=[0.6])
    assert (len(at), trainer.state.epoch) == (0, 3)
    assert "stopping after epoch 3: 2 evaluations" in capsys.readouterr().out
    evaluations(config_file, *more, "Global.early_stop.patience=3", results=[0.6])


def test_an_epoch_that_is_to_be_the_last_is_so_after_a_resume(config_file, run_folder):
    """Patience ends within an epoch, and a signal comes before the epoch's end."""
    import os
    import signal

    from ppcls.errors import Stopped

    class Interrupt(Handler):
        def update_end(self, trainer):
            if trainer.state.global_step == 11:
                os.kill(os.getpid(), signal.SIGTERM)

    every = "Global.eval_every_steps=5", "DataLoader.Train.sampler.batch_size=4"
    options = ["Global.epochs=9", "Global.early_stop={patience: 1}", SLOW, *every]
    whole = evaluations(config_file, *options, results=[0.6, 0.6])[1].state
    from ppcls.engine.trainer import Trainer

    trainer = Trainer(support.load(config_file, *options))
    trainer.evaluate = lambda: {"loss": 0.0, "top1": 0.6}
    trainer.handlers.insert(0, Interrupt())
    with pytest.raises(Stopped):
        trainer.fit()
    more = f"Global.checkpoints={run_folder / 'latest'}"
    assert evaluations(config_file, *options, more, results=[0.6] * 9)[1].state == whole


def test_patience_has_to_be_given(config_file):
    from ppcls.config import ConfigError

    with pytest.raises(ConfigError, match=r"Global\.early_stop\.patience: is missing"):
        support.load(config_file, "Global.early_stop={min_delta: 0.1}")


@pytest.mark.parametrize("overrides", [[], ["Global.update_freq=2"], ["Global.eval_interval=7"]])
def test_a_dry_run_does_everything_and_keeps_nothing(cli, config_file, tmp_path, overrides):
    arguments = ["Global.epochs=50", *overrides]
    before = set(tmp_path.rglob("*"))
    done = cli("train", "-c", config_file, "--dry-run", *support.override_arguments(arguments))
    assert done.code == 0, done.err
    assert "[Eval][Epoch 1]" in done.out
    assert "dry run: all works" in done.out
    assert "latest" in done.out.splitlines()[-1]
    assert set(tmp_path.rglob("*")) == before


def test_a_dry_run_finds_what_would_end_the_run(cli, config_file):
    lost = "Loss.Train.0.CELoss.weight=1e39"  # infinite in float32
    done = cli("train", "-c", config_file, "--dry-run", "-o", lost)
    assert done.code == 1
    assert "the loss is inf in epoch 1" in done.err
