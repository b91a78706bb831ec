"""Ctrl-C and SIGTERM: the run is saved, says how to go on, and leaves nothing behind."""

import os
import re
import signal
import time

import pytest
import support

pytest.importorskip("paddle")

TRAIN = support.ROOT / "tools" / "train.py"
# 12 iterations an epoch; the seconds of one are long enough to be hit.
RUN = [
    "Global.epochs=2",
    "DataLoader.Train.sampler.batch_size=2",
    "Optimizer.lr.learning_rate=1e-4",
    "Global.eval_during_train=false",
]
WORKERS = [f"DataLoader.{mode}.loader.num_workers=2" for mode in ("Train", "Eval")]


def interrupted(config_file, run_folder, place, signals, *overrides):
    """Starts training, sends the signals when the log shows ``place``; the finished process."""
    memory = set(os.listdir("/dev/shm"))
    arguments = support.override_arguments([*RUN, *overrides])
    process = support.start([TRAIN, "-c", config_file, *arguments], run_folder.parents[1])
    log = run_folder / "train.log"
    support.wait_until(lambda: place in support.text_of(log) or process.poll() is not None, place)
    readers = support.children(process.pid)
    for number in signals:
        os.kill(process.pid, number)
        time.sleep(0.1)
    done = support.finish(process)
    support.wait_until(
        lambda: not any(map(support.alive, readers)), "the reader processes to end", 5
    )
    assert set(os.listdir("/dev/shm")) <= memory
    return done, readers


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGTERM] * 3, 143),  # as the launcher sends them, 0.2 s apart
    ],
    ids=["SIGINT", "SIGTERM", "SIGTERM three times"],
)
def test_a_stopped_run_goes_on_exactly(config_file, run_folder, tmp_path, signals, code):
    place = "[Train][Epoch 2/2][Iter: 2/12]"
    done, readers = interrupted(config_file, run_folder, place, signals, *WORKERS)
    assert len(readers) >= 2  # or the test could not tell that they end
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0
    match = re.search(r"go on with -o (Global\.checkpoints=\S+)", done.stderr)
    assert match, done.stderr
    state = support.read_state(run_folder / "latest")
    assert state["epoch"] == 2 and state["global_step"] > 12, "the step it stood at was not saved"
    support.train(config_file, *RUN, match[1])
    whole = tmp_path / "whole"
    support.train(config_file, *RUN, f"Global.output_dir={whole}")
    assert support.same_files(run_folder / "latest", whole / support.NET / "latest") == []


def test_a_run_stopped_in_its_first_epoch(config_file, run_folder):
    place = "[Train][Epoch 1/2][Iter: 0/12]"
    done, _ = interrupted(config_file, run_folder, place, [signal.SIGTERM])
    assert done.returncode == 143
    assert "go on with -o Global.checkpoints=" in done.stderr or "nothing was saved" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_twice_ends_at_once_with_a_whole_checkpoint(config_file, run_folder):
    place = "[Train][Epoch 2/2][Iter: 1/12]"
    signals = [signal.SIGINT, signal.SIGINT]
    done, _ = interrupted(config_file, run_folder, place, signals, *WORKERS)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    support.train(config_file, *RUN, f"Global.checkpoints={run_folder / 'latest'}")


def test_a_command_stopped_before_training_says_that_nothing_was_saved(
    cli, config_file, monkeypatch
):
    from ppcls.engine import trainer

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Trainer, "_build_network", interrupt)
    done = cli("train", "-c", config_file)
    assert done.code == 130
    assert "Traceback" not in done.err
    assert "nothing was saved" in done.err
