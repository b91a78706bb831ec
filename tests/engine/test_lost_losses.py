"""A loss that is not finite: which pictures, which step, which checkpoint; or left out."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import support

from ppcls.engine.handler import Handler
from ppcls.errors import TrainingError

pytestmark = pytest.mark.timeout(120)


def trainer_losing(path, at, *overrides):
    """A trainer whose losses of the batches numbered ``at`` (over the whole run) are NaN."""
    from ppcls.engine.trainer import Trainer

    trainer = Trainer(support.load(path, *overrides))
    combined, calls = trainer.loss, []

    class Losing:
        names = combined.names

        def __call__(self, logits, targets):
            losses = combined(logits, targets)
            calls.append(0)
            factor = math.nan if len(calls) - 1 in at else 1.0
            return {name: value * factor for name, value in losses.items()}

    trainer.loss = Losing()
    return trainer


def test_the_run_ends_and_names_step_pictures_and_checkpoint(config_file, run_folder):
    trainer = trainer_losing(config_file, {4}, "Global.epochs=3")
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    text = str(caught.value)
    assert "the loss is nan in epoch 2, batch 1, step 4" in text
    assert f"last good checkpoint: {run_folder / 'latest'}" in text
    [line] = (run_folder / "lost_batches.jsonl").read_text().splitlines()
    lost = json.loads(line)
    assert (lost["epoch"], lost["step"], lost["batch"]) == (2, 4, 1)
    assert len(lost["files"]) == 8
    assert all(name.endswith(".png") for name in lost["files"])
    assert lost["files"][0] in text
    assert support.read_state(run_folder / "latest")["global_step"] == 3
    assert all(
        np.isfinite(value).all() for value in support.weights(run_folder / "latest").values()
    )


def test_without_any_checkpoint_it_says_so(config_file):
    with pytest.raises(TrainingError, match="no checkpoint was saved"):
        trainer_losing(config_file, {0}).fit()


def test_skipped_batches_change_nothing_but_the_count(config_file, capsys):
    steps = []

    class Steps(Handler):
        def step_end(self, trainer, step):
            steps.append((step.index, step.losses["loss"].item()))

    trainer = trainer_losing(config_file, {1}, "Global.on_nan=skip")
    trainer.handlers.append(Steps())
    trainer.fit()
    assert [index for index, _ in steps] == [0, 2]
    assert all(math.isfinite(loss) for _, loss in steps)
    assert trainer.state.global_step == 2
    assert "left out, 1 of at most 10" in capsys.readouterr().out
    assert support.read_state(trainer.folder / "latest")["parts"]["guard"] == {"skipped": 1}


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_a_batch_whose_maps_are_lost_leaves_no_trace_in_batch_statistics(config_file, kernels):
    """As large weights or float16 do it: the network is lost before its loss is."""
    from ppcls.engine.trainer import Trainer

    options = ["Global.on_nan=skip", f"Global.cpu_kernels={kernels}"]
    trainer = Trainer(support.load(config_file, *options))
    own = trainer._to_tensors

    def lost(batch):
        images, labels = own(batch)
        return images * (math.nan if batch.number == 1 else 1.0), labels

    trainer._to_tensors = lost
    trainer.fit()
    other = trainer_losing(config_file, {1}, *options)
    other.fit()
    for name, tensor in other.net.state_dict().items():
        found = trainer.net.state_dict()[name].numpy()
        assert np.array_equal(found, tensor.numpy()), name


def test_a_skipped_batch_of_a_group_leaves_the_others(config_file):
    every = "Global.update_freq=3"
    trainer = trainer_losing(config_file, {2}, "Global.on_nan=skip", every)
    trainer.fit()
    assert trainer.state.global_step == 1


def test_skips_are_capped_also_over_a_resume(config_file, run_folder):
    cap = ["Global.on_nan=skip", "Global.max_nan_skips=1"]
    trainer_losing(config_file, {1}, *cap).fit()
    more = ["Global.epochs=2", f"Global.checkpoints={run_folder / 'latest'}"]
    with pytest.raises(TrainingError, match="after 1 batches that were left out"):
        trainer_losing(config_file, {1}, *cap, *more).fit()


def test_a_loss_that_another_process_has_lost_is_not_said_to_be_ones_own(config_file, capsys):
    trainer = trainer_losing(config_file, set(), "Global.on_nan=skip")
    answers = iter([True, False, True])
    trainer.guard._is_finite_everywhere = lambda loss: next(answers)
    trainer.fit()
    assert (
        "another process's loss is not finite in epoch 1, batch 1, step 1"
        in capsys.readouterr().out
    )
    assert not (trainer.folder / "lost_batches.jsonl").exists()


def test_a_whole_run_of_lost_losses_ends(config_file):
    with pytest.raises(TrainingError, match="no batch of epoch 1 has a finite loss"):
        trainer_losing(config_file, set(range(99)), "Global.on_nan=skip").fit()
