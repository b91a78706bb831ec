"""Looking at pictures that may kill, or stop, who looks at them."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
import support

from ppcls.errors import EnvironmentProblem
from ppcls.report.scan import FAILED, FORMAT_NAMES, READ, Scan, look


class Pictures:
    """Pixels, or bytes; some make ``hostile`` do what a broken library might."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def read(self, index):
        return self.items[index]


def hostile(data, facts):
    kind = data if isinstance(data, bytes) else b""
    if kind == b"crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == b"exit":
        os._exit(7)
    if kind == b"stuck":
        time.sleep(600)
    look(data, facts)


def run(items, workers, **arguments):
    scan = Scan(Pictures(items), workers, looks=hostile, **arguments)
    assert list(scan.run())[-1] == len(items)
    return scan


@pytest.fixture
def good():
    return [support.picture("red", number) for number in range(50)]


@pytest.mark.parametrize("workers", [1, 3])
def test_pictures_that_kill_are_named_and_the_rest_is_read(good, workers, no_leftovers):
    items = [*good]
    items[3], items[20], items[21], items[49] = b"crash", b"exit", b"stuck", b"no picture"
    scan = run(items, workers, timeout=1.5)
    assert sorted(scan.errors) == [3, 20, 21, 49]
    assert scan.errors[3] == (
        "the process that read it was killed by signal SIGKILL (out of memory?)"
    )
    assert scan.errors[20] == "the process that read it ended with exit code 7"
    assert scan.errors[21] == "was not read within 1.5 s"
    assert scan.errors[49].startswith("expected a picture")
    assert np.flatnonzero(scan.facts["state"] == FAILED).tolist() == [3, 20, 21, 49]
    assert (scan.facts["state"] == READ).sum() == 46


def test_facts_are_the_same_for_any_number_of_workers(good):
    alone = run(good, 0).facts
    assert (alone["width"] == support.SIDE).all()
    assert [FORMAT_NAMES[number] for number in set(alone["format"].tolist())] == [""]
    assert len(np.unique(alone["digest"], axis=0)) == len(good)
    for workers in (1, 3):
        np.testing.assert_array_equal(run(good, workers).facts, alone)


def test_workers_that_never_live_end_the_scan(good, monkeypatch, no_leftovers):
    monkeypatch.setattr(Scan, "_work", lambda *_: os._exit(3))
    with pytest.raises(EnvironmentProblem, match="exit code 3"):
        list(Scan(Pictures(good), 2).run())


def test_a_scan_that_is_given_up_leaves_nothing(good, no_leftovers):
    scan = Scan(Pictures([*good, b"stuck"]), 2, looks=hostile).run()
    next(scan)
    scan.close()
