"""The loader: equal bits, policies for bad pictures, and no way to hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppcls.data.loader import DataLoader
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.decode import DecodeImage
from ppcls.errors import ArgumentError, DataError

pytestmark = pytest.mark.timeout(60)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")


@pytest.fixture(autouse=True)
def no_children_left():
    yield
    assert multiprocessing.active_children() == []


def loader(dataset, workers: int = 0, batch: int = 4, shuffle: bool = True, **arguments):
    sampler = DistributedBatchSampler(batch, shuffle, sample_count=len(dataset), seed=3)
    return DataLoader(dataset, sampler, seed=3, num_workers=workers, **arguments)


def contents(batches) -> list[tuple[bytes, list[int], list[int]]]:
    return [(b.images.tobytes(), b.labels.tolist(), b.indices.tolist()) for b in batches]


def test_same_bits_for_any_number_of_workers(make_dataset):
    dataset = make_dataset()
    expected: list = []
    for workers in (0, 1, 2):
        with loader(dataset, workers) as reader:
            found = [contents(reader.epoch(epoch)) for epoch in (0, 1)]
            assert len(reader) == len(found[0]) == 6
        expected = expected or found
        assert found == expected
    assert expected[0] != expected[1]


def test_batches_hold_what_they_say(make_dataset):
    dataset = make_dataset()
    with loader(dataset, 1) as reader:
        seen = []
        for batch in reader.epoch(0):
            assert batch.images.shape == (len(batch.labels), 32, 32, 3)
            assert batch.images.dtype == np.uint8
            assert batch.labels.dtype == batch.indices.dtype == np.int64
            np.testing.assert_array_equal(batch.labels, dataset.labels[batch.indices])
            seen += batch.indices.tolist()
    assert sorted(seen) == list(range(23))


def test_augmentation_depends_on_the_epoch(make_dataset):
    with loader(make_dataset(), shuffle=False) as reader:
        first, second = (next(reader.epoch(epoch)) for epoch in (0, 1))
    np.testing.assert_array_equal(first.indices, second.indices)
    assert not np.array_equal(first.images, second.images)


class Fixed:
    """A sampler of given batches, and of given sizes of their pictures."""

    def __init__(self, batches: list[list[int]], sizes: list[tuple[int, int]] | None = None):
        self._batches = [np.asarray(batch, np.int64) for batch in batches]
        if sizes is not None:
            self.sizes = lambda epoch: sizes

    def batches(self, epoch: int) -> list[np.ndarray]:
        return self._batches


@pytest.mark.parametrize("workers", [0, 2])
def test_copies_of_a_picture_are_augmented_differently(make_dataset, workers):
    dataset = make_dataset()
    copies = [5, 5 + len(dataset), 5 + 2 * len(dataset)]
    with DataLoader(dataset, Fixed([copies, [5]]), seed=3, num_workers=workers) as reader:
        several, one = ((b.images.copy(), b.indices, b.labels) for b in reader.epoch(0))
    assert several[1].tolist() == [5, 5, 5]
    assert several[2].tolist() == [0, 0, 0]
    assert len({image.tobytes() for image in several[0]}) == 3
    np.testing.assert_array_equal(several[0][0], one[0][0])


def test_a_batch_that_cannot_be_read_keeps_its_number(make_dataset, list_file):
    for index in (4, 5, 6, 7):
        (list_file.parent / f"folder {index % 2}/ü #{index}.jpg").write_bytes(b"")
    dataset = make_dataset(on_error="skip", max_bad_ratio=1.0)
    with loader(dataset, shuffle=False) as reader:
        assert [batch.number for batch in reader.epoch(0)] == [0, 2, 3, 4, 5]
        assert [batch.number for batch in reader.epoch(0, start=3)] == [3, 4, 5]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_several_sizes(make_dataset, workers):
    sizes = [(48, 24), (16, 16), (8, 40)]
    sampler = Fixed([[0, 1], [2, 3, 4, 5, 6, 7], [8]], sizes)
    with DataLoader(make_dataset(), sampler, seed=3, num_workers=workers) as reader:
        shapes = [batch.images.shape for batch in reader.epoch(0)]
    assert shapes == [(2, 24, 48, 3), (6, 16, 16, 3), (1, 40, 8, 3)]


def test_the_largest_batch_fits_into_shared_memory(make_dataset):
    """Sizes and numbers are multiplied batch by batch, not largest by largest."""
    sampler = Fixed([[0, 1], [2, 3, 4, 5, 6, 7]], [(48, 24), (16, 16)])
    with DataLoader(make_dataset(), sampler, seed=3, num_workers=1) as reader:
        assert reader._pool._shared.pixel_bytes == 2 * 48 * 24 * 3


def test_a_data_set_is_told_what_will_be_read(make_dataset):
    dataset = make_dataset()
    told = []
    dataset.expect = lambda indices: told.append(indices.tolist())
    with DataLoader(dataset, Fixed([[3, 1], [2 + 23, 0]]), seed=3) as reader:
        list(reader.epoch(0))
        list(reader.epoch(0, start=1))
    assert told == [[3, 1, 2, 0], [2, 0]]


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_skips_batches(make_dataset, workers):
    with loader(make_dataset(), workers) as reader:
        whole = contents(reader.epoch(5))
        assert contents(reader.epoch(5, start=4)) == whole[4:]
        assert contents(reader.epoch(5, start=6)) == []


def test_workers_live_on_between_epochs(make_dataset):
    with loader(make_dataset(), 2) as reader:
        before = {child.pid for child in multiprocessing.active_children()}
        assert len(before) == 2
        for epoch in range(3):
            list(reader.epoch(epoch))
        assert {child.pid for child in multiprocessing.active_children()} == before


def test_abandoned_epoch_does_not_disturb_the_next(make_dataset):
    dataset = make_dataset()
    with loader(dataset) as reader:
        expected = contents(reader.epoch(1))
    with loader(dataset, 2) as reader:
        for _ in range(3):
            epoch = reader.epoch(0)
            next(epoch)
            epoch.close()
            assert contents(reader.epoch(1)) == expected


def test_two_epochs_at_once_are_refused(make_dataset):
    with loader(make_dataset(), 1) as reader:
        first = reader.epoch(0)
        next(first)
        next(reader.epoch(1))
        with pytest.raises(RuntimeError, match="one epoch"):
            next(first)


def test_close_is_quick_in_mid_epoch_and_may_be_repeated(make_dataset):
    reader = loader(make_dataset(), 2)
    epoch = reader.epoch(0)
    next(epoch)
    start = time.monotonic()
    reader.close()
    assert time.monotonic() - start < 20
    assert multiprocessing.active_children() == []
    epoch.close()
    reader.close()
    assert len(list(reader.epoch(1))) == 6  # starts them again
    reader.close()


def test_a_loader_that_is_dropped_ends_its_workers(make_dataset):
    reader = loader(make_dataset(), 1)
    child = multiprocessing.active_children()[0]
    del reader
    child.join(5)
    assert not child.is_alive()


def test_larger_pictures_than_the_first_travel_too(make_dataset, photo, encode):
    dataset = make_dataset(transform_ops=[DecodeImage()])
    for index in (0, 1, 2, 3):
        size = 8 if index == 0 else 60
        Path(dataset.path(index)).write_bytes(encode(photo[:size, :size]))
    expected = [(8, 8, 3), (60, 60, 3), (60, 60, 3), (60, 60, 3)] + [(60, 80, 3)] * 19
    with loader(dataset, 1, batch=1, shuffle=False) as reader:
        assert [batch.images.shape[1:] for batch in reader.epoch(0)] == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_different_shapes_in_a_batch_are_named(make_dataset, photo, encode, workers):
    dataset = make_dataset(transform_ops=[DecodeImage()], on_error="skip")
    Path(dataset.path(2)).write_bytes(encode(photo[:30]))
    with loader(dataset, workers, shuffle=False) as reader, pytest.raises(DataError) as caught:
        list(reader.epoch(0))
    message = str(caught.value)
    assert message.startswith(dataset.describe(2))
    assert dataset.describe(0) in message
    assert "[60, 80, 3]" in message
    assert "[30, 80, 3]" in message


@pytest.mark.parametrize("workers", [0, 2])
def test_stop_names_the_bad_picture(make_dataset, workers):
    dataset = make_dataset()
    Path(dataset.path(9)).write_bytes(b"no picture")
    with loader(dataset, workers) as reader:
        for _ in range(2):  # and again, in the same way
            with pytest.raises(DataError, match="expected a picture") as caught:
                list(reader.epoch(0))
            assert str(caught.value).startswith(dataset.describe(9))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_first_picture_bad(make_dataset, workers):
    dataset = make_dataset()
    Path(dataset.path(0)).write_bytes(b"")
    with (
        loader(dataset, workers, shuffle=False) as reader,
        pytest.raises(DataError, match="empty"),
    ):
        list(reader.epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_skip_leaves_out_and_reports_once(make_dataset, workers):
    dataset = make_dataset(on_error="skip", max_bad_ratio=0.1)
    for index in (0, 9):
        Path(dataset.path(index)).write_bytes(b"")
    told: list[str] = []
    with loader(dataset, workers, shuffle=False, on_bad_sample=told.append) as reader:
        for epoch in range(2):
            batches = list(reader.epoch(epoch))
            kept = np.concatenate([batch.indices for batch in batches])
            assert kept.tolist() == [i for i in range(23) if i not in (0, 9)]
            assert [len(batch.images) for batch in batches] == [3, 4, 3, 4, 4, 3]
    assert [text.split(" (")[0] for text in told] == [dataset.path(0), dataset.path(9)]
    assert all("empty" in text for text in told)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_pictures_stop_the_run(make_dataset, workers):
    dataset = make_dataset(on_error="skip", max_bad_ratio=0.1)
    for index in (0, 9, 17):
        Path(dataset.path(index)).write_bytes(b"")
    with (
        loader(dataset, workers, shuffle=False, on_bad_sample=lambda text: None) as reader,
        pytest.raises(DataError, match=r"3 of 23 .*\(max_bad_ratio 0.1\), e.g. ") as caught,
    ):
        list(reader.epoch(0))
    assert dataset.describe(17) in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_all_bad_pictures_stop_the_run(make_dataset, workers):
    dataset = make_dataset(on_error="skip", max_bad_ratio=1.0)
    for index in range(23):
        Path(dataset.path(index)).write_bytes(b"")
    with (
        loader(dataset, workers, on_bad_sample=lambda text: None) as reader,
        pytest.raises(DataError, match="none of the"),
    ):
        list(reader.epoch(0))


def test_skipped_pictures_are_logged_by_default(make_dataset, caplog):
    dataset = make_dataset(on_error="skip", max_bad_ratio=0.1)
    Path(dataset.path(3)).write_bytes(b"")
    list(loader(dataset).epoch(0))
    assert dataset.describe(3) in caplog.text


def stuck_at(dataset, index: int) -> None:
    path = Path(dataset.path(index))
    path.unlink()
    os.mkfifo(path)


def wait_for(condition, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("index", [0, 10])
def test_stuck_picture_times_out_with_its_name(make_dataset, index):
    dataset = make_dataset()
    stuck_at(dataset, index)
    with loader(dataset, 2, shuffle=False, timeout=0.6) as reader:
        start = time.monotonic()
        with pytest.raises(DataError, match=r"no picture was read for 0.6 s") as caught:
            list(reader.epoch(0))
        assert time.monotonic() - start < 50
        assert dataset.describe(index) in str(caught.value)
        assert multiprocessing.active_children() == []


def test_killed_worker_is_an_error_at_once(make_dataset):
    dataset = make_dataset()
    stuck_at(dataset, 10)
    with loader(dataset, 2, shuffle=False) as reader:
        children = {child.pid for child in multiprocessing.active_children()}
        current = reader._pool._shared.current
        epoch = reader.epoch(0)
        next(epoch)
        wait_for(lambda: 10 in current)
        pids = [worker.process.pid for worker in reader._pool._workers]
        number = current.tolist().index(10)
        assert set(pids) == children
        os.kill(pids[number], signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(DataError) as caught:
            list(epoch)
        assert time.monotonic() - start < 30
    assert str(caught.value) == (
        f"reader worker {number} ({pids[number]}) was killed by signal SIGKILL (out of memory?)"
        f" while reading {dataset.describe(10)}"
    )


def test_worker_killed_between_epochs(make_dataset):
    with loader(make_dataset(), 1) as reader:
        expected = contents(reader.epoch(0))
        child = multiprocessing.active_children()[0]
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        with pytest.raises(DataError, match=r"SIGKILL .* while idle"):
            list(reader.epoch(0))
        assert contents(reader.epoch(0)) == expected  # with new workers


class Leaves(Transform):
    """Ends the process, as a crash in a library would."""

    def __call__(self, image, rng):
        if multiprocessing.parent_process() is not None:
            os._exit(3)
        return image


def test_worker_that_exits(make_dataset):
    dataset = make_dataset(transform_ops=[DecodeImage(), Leaves()])
    with loader(dataset, 1) as reader, pytest.raises(DataError, match="exit code 3 while reading"):
        list(reader.epoch(0))


def test_workers_obey_sigterm_and_ignore_sigint(make_dataset):
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with loader(make_dataset(), 1) as reader:
            list(reader.epoch(0))
            child = multiprocessing.active_children()[0]
            os.kill(child.pid, signal.SIGINT)
            list(reader.epoch(1))
            os.kill(child.pid, signal.SIGTERM)
            with pytest.raises(DataError, match="SIGTERM"):
                list(reader.epoch(2))
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_fork_after_opencv_has_threads(make_dataset):
    cv2.setNumThreads(2)
    big = np.zeros((2000, 2000, 3), np.uint8)
    cv2.resize(big, (1500, 1500), interpolation=cv2.INTER_CUBIC)
    with loader(make_dataset(), 1, timeout=20) as reader:
        assert len(list(reader.epoch(0))) == 6


PARENT = """
import sys, time
from ppcls.data.datasets import ImageNetDataset
from ppcls.data.loader import DataLoader
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.decode import DecodeImage
dataset = ImageNetDataset(sys.argv[1], sys.argv[2], [DecodeImage()], class_num=5)
sampler = DistributedBatchSampler(1, sample_count=len(dataset))
reader = DataLoader(dataset, sampler, seed=0, num_workers=2)
epoch = reader.epoch(0)
next(epoch)
print(*[worker.process.pid for worker in reader._pool._workers], flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@linux_only
def test_killed_parent_leaves_no_worker(list_file):
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(list_file.parent), str(list_file)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    parent.kill()
    parent.communicate()
    wait_for(lambda: not any(map(alive, pids)), 3)


def test_empty_share_of_an_evaluation(make_dataset):
    dataset = make_dataset()
    sampler = DistributedBatchSampler(
        32, sample_count=23, rank=29, world_size=30
    )  # more ranks than samples: nothing is left for the last one
    with DataLoader(dataset, sampler, seed=0, num_workers=1) as reader:
        assert len(reader) == 0
        assert list(reader.epoch(0)) == []


@pytest.mark.parametrize(
    ("argument", "value"), [("seed", -1), ("num_workers", -1), ("timeout", 0.0)]
)
def test_checks(make_dataset, argument, value):
    dataset = make_dataset()
    sampler = DistributedBatchSampler(4, sample_count=len(dataset))
    with pytest.raises(ArgumentError) as caught:
        DataLoader(dataset, sampler, **{"seed": 0, argument: value})
    assert caught.value.argument == argument
