"""The batch finder: few trials, the right answer, and processes that may be killed."""

import json
import os
import sys

import pytest
import support

from ppcls.config import ConfigError
from ppcls.errors import TrainingError

pytest.importorskip("paddle")

GIB = 2**30


def searched(largest, most, first=8):
    from ppcls.engine.batch_finder import Trial, search

    tried = []

    def run(size):
        tried.append(size)
        return Trial(size, size <= largest, size, 1.0)

    trials = search(run, most, first)
    assert len(set(tried)) == len(tried)
    return max((t.size for t in trials if t.fits), default=0), tried


@pytest.mark.parametrize("largest", [*range(40), 100, 777, 1000])
def test_the_search_is_exact_to_an_eighth(largest):
    found, tried = searched(largest, most=1000)
    assert found <= largest and largest - found <= max(0, found // 8)
    assert len(tried) <= 12


def test_the_search_doubles_then_halves():
    assert searched(100, most=1000) == (96, [8, 16, 32, 64, 128, 96, 112, 104])
    assert searched(1000, most=50) == (50, [8, 16, 32, 50])


def test_real_trials_up_to_a_limit(config_file, tmp_path):
    from ppcls.engine.batch_finder import find_batch

    before = sorted(tmp_path.rglob("*"))
    # 24 pictures are repeated to fill 64; the process itself takes some hundred MiB.
    config = support.load(config_file, "Global.update_freq=3")
    [[small], [large]] = [find_batch(config, 4 * GIB, most, first=most) for most in (1, 64)]
    assert small.fits and large.fits and large.size == 64
    assert 0.1 * GIB < small.memory < large.memory < 4 * GIB
    assert large.speed > 0
    # A trial that takes more than it may is ended, and nothing else is.
    [refused] = find_batch(config, small.memory // 2, 1, first=1)
    assert not refused.fits
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_freezes_what_it_loads_is_tried_without_loading(config_file):
    from ppcls.engine.batch_finder import find_batch

    own = ["Global.pretrained_model=not_read", "Finetune.freeze_until=head"]
    [trial] = find_batch(support.load(config_file, *own), 4 * GIB, 1, first=1)
    assert trial.fits


def test_a_trial_that_fails_otherwise_is_an_error(config_file, monkeypatch, tmp_path):
    from ppcls.engine import batch_finder

    config = support.load(config_file)
    monkeypatch.setattr(type(config), "to_yaml", lambda self: "Arch: 3\n")
    with pytest.raises(TrainingError, match=r"a batch of 1 could not be tried: .*Arch"):
        batch_finder.find_batch(config, GIB, 1)


def test_memory_that_paddle_refuses_counts_as_too_large(config_file, monkeypatch, capsys):
    """As on a GPU, where ResourceExhausted arrives as MemoryError."""
    from ppcls.engine import batch_finder

    def exhausted(*_):
        raise MemoryError("ResourceExhaustedError: Out of memory error on GPU 0")

    monkeypatch.setattr(batch_finder, "measure", exhausted)
    monkeypatch.setattr(batch_finder, "_volunteer", lambda: None)
    monkeypatch.setattr(sys, "argv", ["batch_finder", str(config_file), "8"])
    assert batch_finder.main() == batch_finder.CODE_OUT_OF_MEMORY
    assert capsys.readouterr().out == ""


def test_the_plan(config_file):
    from ppcls.engine.batch_finder import plan

    config = support.load(config_file)
    assert plan(config, memory=GIB // 4) == plan(config, memory=GIB // 4, most=24)
    assert plan(config, memory=GIB // 4, most=5).most == 5
    huge = plan(config, memory=2**60)
    assert huge.limit < 2**60 and "more than there is" in huge.words()
    sampler = "DataLoader.Train.sampler={name: MultiScaleSampler, scales: [32], first_bs: 4}"
    with pytest.raises(ConfigError, match="expected a sampler with batch_size"):
        plan(support.load(config_file, sampler))


def test_advice_keeps_the_total_batch(config_file):
    from ppcls.engine.batch_finder import Plan, Trial
    from ppcls.report.batch_find import advice

    config = support.load(config_file, "Global.update_freq=2")
    trials = [Trial(2, True, GIB, 9.0), Trial(3, True, GIB, 9.1), Trial(4, False, 2 * GIB)]
    text = advice(trials, Plan(GIB, "", 24, 8), config)
    assert "The largest batch within 1.00 GiB is 3" in text
    assert "total of 16 a step: -o DataLoader.Train.sampler.batch_size=3" in text
    assert "Global.update_freq=6" in text  # 6 x 3 is the least that reaches 16
    assert "more than 2 are hardly faster" in text
    assert "is 2:" in advice(trials, Plan(GIB, "", 24, 8, unit=2), config)


def test_memory_of_this_process_and_of_control_groups(tmp_path, monkeypatch):
    from ppcls.engine import free_memory

    assert free_memory.peak_memory(os.getpid()) > 10**7
    assert free_memory.available_memory() > 10**7
    group = tmp_path / "memory"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text("1000\n")
    (group / "memory.usage_in_bytes").write_text("400\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    lines = "4:memory:/somewhere/else\n0::/\n"
    real = free_memory.Path.read_text
    monkeypatch.setattr(
        free_memory.Path,
        "read_text",
        lambda self, **k: lines if str(self) == "/proc/self/cgroup" else real(self, **k),
    )
    assert list(free_memory._left_in_groups(tmp_path)) == [600]
    assert json.dumps(free_memory.gibibytes(GIB)) == '"1.00 GiB"'
