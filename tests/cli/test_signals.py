"""Ctrl-C and SIGTERM: the run is saved, says how to go on, and leaves nothing behind."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import support

from ppcls.engine.distributed import World
from ppcls.engine.handlers import Handler, default_handlers

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


def interrupted(config_file, run_folder, place, number, *overrides):
    """Starts training, sends a signal when the log shows ``place``; the finished process."""
    memory = set(Path("/dev/shm").iterdir())
    arguments = support.override_arguments([*RUN, *overrides])
    process = support.start([TRAIN, "-c", config_file, *arguments], run_folder.parents[1])
    log = run_folder / "train.log"
    support.wait_until(lambda: place in support.text_of(log) or process.poll() is not None, place)
    readers = support.children(process.pid)
    os.kill(process.pid, number)
    done = support.finish(process)
    support.wait_until(
        lambda: not any(map(support.alive, readers)), "the reader processes to end", 5
    )
    assert set(Path("/dev/shm").iterdir()) <= memory
    return done, readers


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_exactly(config_file, run_folder, tmp_path, number, code):
    place = "[Train][Epoch 2/2][Iter: 2/12]"
    done, readers = interrupted(config_file, run_folder, place, number, *WORKERS)
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
    done, _ = interrupted(config_file, run_folder, place, signal.SIGTERM)
    assert done.returncode == 143
    assert "go on with -o Global.checkpoints=" in done.stderr or "nothing was saved" in done.stderr
    assert "Traceback" not in done.stderr


class Twice(Handler):
    """Sends this process a signal twice in the fifth step."""

    def __init__(self, number):
        self.number = number

    def step_start(self, trainer):
        if trainer.state.global_step == 4:
            for _ in range(2):
                os.kill(os.getpid(), self.number)


def stopped_twice(config_file, number):
    from ppcls.errors import Stopped

    handlers = default_handlers(support.load(config_file, *RUN), World())
    with pytest.raises(Stopped) as stopped:
        support.train(config_file, *RUN, handlers=[*handlers, Twice(number)])
    return stopped.value


def test_ctrl_c_twice_ends_at_once(config_file, run_folder):
    assert stopped_twice(config_file, signal.SIGINT).exit_code == 130
    assert not (run_folder / "latest").exists()


def test_a_launchers_repeated_sigterm_does_not_cost_the_save(config_file, run_folder):
    """It sends up to three, 0.2 s apart, less than a step may take (``--nproc_per_node 1``)."""
    stopped = stopped_twice(config_file, signal.SIGTERM)
    assert stopped.exit_code == 143
    assert (run_folder / "latest").is_dir(), str(stopped)
    assert support.read_state(run_folder / "latest")["global_step"] == 5


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


def test_a_stopped_dry_run_names_no_checkpoint_that_is_gone(cli, config_file, monkeypatch):
    from ppcls.engine import trainer

    step = trainer.Trainer._step
    number = signal.SIGTERM
    monkeypatch.setattr(
        trainer.Trainer, "_step", lambda *given: (os.kill(os.getpid(), number), step(*given))[1]
    )
    done = cli("train", "--dry-run", "-c", config_file, "-o", "Global.epochs=2")
    assert done.code == 143
    assert done.err == "error: the dry run was stopped by SIGTERM; it keeps nothing\n"


@pytest.mark.parametrize(
    ("library", "number", "said"),
    [
        ("_multiarray_umath", signal.SIGINT, (130, "Ctrl-C")),
        ("libpaddle", signal.SIGINT, (130, "Ctrl-C")),
        ("libpaddle", signal.SIGTERM, (143, "SIGTERM")),
        ("cv2.abi3", signal.SIGTERM, (143, "SIGTERM")),
    ],
)
def test_a_signal_while_libraries_are_imported_ends_at_once(
    config_file, tmp_path, library, number, said
):
    process = support.start([TRAIN, "-c", config_file], tmp_path)
    maps = Path(f"/proc/{process.pid}/maps")
    support.wait_until(lambda: library in support.text_of(maps), f"{library} to be imported")
    os.kill(process.pid, number)
    done = support.finish(process)
    assert (done.returncode, done.stdout) == (said[0], "")
    assert done.stderr == f"\nstopped by {said[1]}; nothing was started\n"
    assert not (tmp_path / "output").exists()


def test_what_was_ignored_stays_ignored():
    from ppcls.cli_start import starting

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's background jobs have it
    try:
        with starting():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("age", [0, 3600])
def test_an_older_runs_checkpoint_is_not_offered(cli, config_file, run_folder, monkeypatch, age):
    from ppcls.engine import trainer

    def interrupt(*_):
        (run_folder / "latest").mkdir()
        saved = time.time() - age
        os.utime(run_folder / "latest", (saved, saved))
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.Trainer, "_build_network", interrupt)
    done = cli("train", "-c", config_file)
    assert ("nothing was saved" in done.err) == (age > 0)
    assert (f"go on with -o Global.checkpoints={run_folder / 'latest'}" in done.err) == (age == 0)
