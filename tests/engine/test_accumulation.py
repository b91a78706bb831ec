"""``Global.update_freq``: steps from several batches are those of one large batch."""

from __future__ import annotations

import numpy as np
import pytest
import support

from ppcls.engine.handler import Handler

pytestmark = pytest.mark.timeout(120)

WITHOUT_STATISTICS = [
    "Arch.name=SqueezeNet1_1",
    "Arch.dropout=0.0",
    "Global.eval_during_train=false",
]


def trained_with(path, batch, every, *overrides, handlers=None):
    """A run of one epoch over the 24 samples, its last batch included."""
    sizes = [f"DataLoader.Train.sampler.batch_size={batch}", f"Global.update_freq={every}"]
    partly = "DataLoader.Train.sampler.drop_last=false"
    return support.train(path, *WITHOUT_STATISTICS, partly, *sizes, *overrides, handlers=handlers)


def arrays(trainer):
    return {name: value.numpy() for name, value in trainer.net.state_dict().items()}


def largest_difference(one, other):
    return max(np.abs(one[name] - other[name]).max() for name in one)


@pytest.mark.parametrize(
    ("large", "small", "every"),
    [
        (8, 4, 2),
        (8, 2, 4),
        (16, 4, 4),  # 24 samples: a group of four batches, and one of two
        (20, 5, 4),  # the last batch has four samples: four fifths of one
        (24, 7, 4),
    ],
)
def test_equals_the_large_batch(config_file, large, small, every):
    one = trained_with(config_file, large, 1)
    other = trained_with(config_file, small, every)
    assert one.state.global_step == other.state.global_step == -(-24 // large)
    assert largest_difference(arrays(one), arrays(other)) < 1e-6


def test_the_small_batch_alone_is_something_else(config_file):
    one, other = trained_with(config_file, 8, 1), trained_with(config_file, 4, 1)
    assert largest_difference(arrays(one), arrays(other)) > 1e-4


def test_the_schedule_counts_optimizer_steps(config_file):
    lr = ["Optimizer.lr={name: Linear, learning_rate: 0.06, end_lr: 0.0, warmup_epoch: 0}"]
    rates = []

    class Rates(Handler):
        def step_end(self, trainer, step):
            rates.append((step.lr, step.updated))

    trainer = trained_with(config_file, 4, 2, *lr, handlers=[Rates()])
    assert len(trainer.reader) == 6
    assert [rate for rate, _ in rates] == pytest.approx([0.06, 0.06, 0.04, 0.04, 0.02, 0.02])
    assert [updated for _, updated in rates] == [False, True] * 3


def test_a_stopped_run_goes_on_between_two_steps_only(config_file, tmp_path):
    """A signal in the first batch of a group waits for the group's end."""
    import os
    import signal

    from ppcls.engine.handlers import default_handlers
    from ppcls.engine.trainer import Trainer
    from ppcls.errors import Stopped

    options = ["Global.epochs=2", "DataLoader.Train.sampler.batch_size=4", "Global.update_freq=2"]
    whole = support.train(config_file, *options, f"Global.output_dir={tmp_path / 'whole'}")

    class Interrupt(Handler):
        def step_end(self, trainer, step):
            if trainer.state.epoch == 2 and step.index == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    config = support.load(config_file, *options)
    trainer = Trainer(config)
    trainer.handlers = [Interrupt(), *default_handlers(config, trainer.world)]
    with pytest.raises(Stopped):
        trainer.fit()
    latest = trainer.folder / "latest"
    assert support.read_state(latest)["step_in_epoch"] == 2
    resumed = support.train(config_file, *options, f"Global.checkpoints={latest}")
    assert support.same_files(whole.folder / "latest", resumed.folder / "latest") == []


@pytest.mark.timeout(200)
def test_two_processes_exchange_the_sum_of_their_batches(config_file, tmp_path, no_leftovers):
    """Two processes, two batches of two each, equal one process with a batch of eight."""
    whole = trained_with(config_file, 8, 1)
    overrides = [
        *WITHOUT_STATISTICS,
        "DataLoader.Train.sampler.batch_size=2",
        "DataLoader.Train.sampler.drop_last=false",
        "Global.update_freq=2",
        f"Global.output_dir={tmp_path / 'two'}",
    ]
    arguments = [
        support.ROOT / "tools" / "train.py",
        "-c",
        config_file,
        *support.override_arguments(overrides),
    ]
    done = support.launch(2, arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    two = support.weights(tmp_path / "two" / "SqueezeNet1_1" / "latest")
    assert largest_difference(arrays(whole), two) < 1e-6
