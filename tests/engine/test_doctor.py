"""The doctor names the limit that was put there, and its model gives what arithmetic says."""

import os
import re
import time

import numpy as np
import pytest
import support
from PIL import Image

from ppcls.data.datasets.base import Table
from ppcls.data.transforms.resize import ResizeImage
from ppcls.engine.diagnosis import DECODING, READING, Figures, Pictures, suggestions, verdict
from ppcls.engine.diagnosis_table import report
from ppcls.errors import DataError

pytest.importorskip("paddle")


def diagnosed(config_file, *overrides, batches=4):
    from ppcls.engine.doctor import diagnose

    return diagnose(support.load(config_file, *overrides), batches)


def slowed(function, seconds):
    def slow(*arguments):
        time.sleep(seconds)
        return function(*arguments)

    return slow


# Real runs ---------------------------------------------------------------------------------------


def test_a_slow_transform_is_the_limit_and_the_cure_works(config_file, monkeypatch, tmp_path):
    monkeypatch.setattr(ResizeImage, "__call__", slowed(ResizeImage.__call__, 0.03))
    support.write_pictures(tmp_path / "many/train", [40, 40, 40])  # 15 batches
    root = f"DataLoader.Train.dataset.image_root={tmp_path}/many/train"
    text = diagnosed(config_file, root)
    delivers = re.search(r"The reader is the limit: the reader delivers (\d+) img/s with 0", text)
    assert 10 < int(delivers[1]) <= 33
    assert "augmenting (most of all ResizeImage) takes 9" in text
    # It sleeps, so that more workers than cores help; leaving it out is no cure: it gives the size.
    estimated, number = re.search(r"(\d+) img/s  -o DataLoader\S+num_workers=(\d+)", text).groups()
    assert int(number) > 2 and "of a worker's time is waiting" in text
    assert "without ResizeImage" not in text
    before = support.children(os.getpid())
    cured = diagnosed(
        config_file, root, f"DataLoader.Train.loader.num_workers={number}", batches=30
    )
    assert support.children(os.getpid()) == before
    together = re.search(r"reader and network +\S+ +(\d+)", cured)[1]
    assert int(estimated) > 3 * int(delivers[1])
    assert int(together) > 1.3 * int(delivers[1])  # whatever else this machine has to do


def test_slow_files_are_the_limit(config_file, monkeypatch):
    monkeypatch.setattr(Table, "read", slowed(Table.read, 0.02))
    text = diagnosed(config_file)
    assert "The reader is the limit" in text
    assert re.search(r"; reading files takes 9\d % of reading\.", text.replace("%", " %"))
    assert "with the pictures packed into few large files (ppcls data pack)" in text


def test_a_heavy_network_is_the_limit(config_file):
    text = diagnosed(
        config_file,
        "Arch.name=ResNet50",
        "DataLoader.Train.loader.num_workers=1",
        batches=2,
    )
    assert "The network is the limit: the network takes" in text
    assert "an epoch of 24 pictures" in text


def test_nothing_is_written(config_file, tmp_path, lively):
    before = sorted(tmp_path.rglob("*"))
    diagnosed(config_file, "Global.eval_during_train=true", f"Global.checkpoints={lively}")
    assert sorted(tmp_path.rglob("*")) == before


def test_mixing_is_measured_with_the_training_process(config_file, monkeypatch):
    from ppcls.engine.batch import Mixing

    monkeypatch.setattr(Mixing, "__call__", slowed(Mixing.__call__, 0.1))
    text = diagnosed(config_file, batches=2)
    share = re.search(r"copying, normalising, mixing +(\S+)", text)[1]
    assert float(share) > 1000 * 0.1 / 8  # milliseconds a picture in batches of eight


def test_pictures_that_cannot_be_read(config_file, pictures, tmp_path):
    import shutil

    root = shutil.copytree(pictures, tmp_path / "broken")
    bad = sorted((root / "train" / "red").iterdir())[0]
    bad.write_bytes(b"no picture")
    where = f"DataLoader.Train.dataset.image_root={root}"
    with pytest.raises(DataError, match=bad.name):
        diagnosed(config_file, where)
    skipped = ("DataLoader.Train.dataset.on_error=skip", "DataLoader.Train.dataset.max_bad_ratio=1")
    text = diagnosed(config_file, where, *skipped)
    assert f"1 picture cannot be read, e.g. {bad}" in text


def test_photos_are_described_and_a_crop_that_is_decoded_counts_as_decoding(config_file, tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in {"one": (400, 300, 3), "two": (350, 500, 3), "xyz": (400, 300, 3)}.items():
        (tmp_path / "jpegs" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, shape, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "jpegs" / name / f"{i}.jpg", quality=95)
    crop = "DataLoader.Train.dataset.transform_ops.1={RandCropImage: {size: 32}}"
    root = f"DataLoader.Train.dataset.image_root={tmp_path}/jpegs"
    fast = diagnosed(config_file, root, crop)
    assert "367 x 383 pixels on average" in fast
    assert "only what RandCropImage keeps" in fast
    assert not re.search(r"augmenting .*RandCropImage", fast)
    exact = diagnosed(config_file, root, crop, "DataLoader.Train.loader.decode=exact")
    assert "only what RandCropImage keeps" not in exact
    assert re.search(r"augmenting .*RandCropImage \d", exact)


# The model ---------------------------------------------------------------------------------------


def figures(stages, network, workers=1, cores=8, device="gpu", together=None, **pictures):
    """Of one picture; ``stages`` in milliseconds, all of them work of the processor."""
    seconds = {name: ms / 1000 for name, ms in stages.items()}
    given = {"short": 256, "target": 224, **pictures}
    one = Pictures(count=1, seconds=seconds, busy=dict(seconds), bytes=100_000, **given)
    rate = min(workers or 1, cores) / sum(seconds.values())
    return Figures(
        pictures=one,
        workers=workers,
        cores=cores,
        device=device,
        batch=32,
        epoch=1000,
        delivered=rate,
        copying=0.0,
        computing=1 / network,
        together=together or min(rate, network),
    )


def rates(given):
    return {text.split(" (")[0]: round(rate) for text, rate in suggestions(given)}


WORKERS = "-o DataLoader.Train.loader.num_workers={}"


def test_as_many_workers_as_the_network_needs():
    # One worker takes 5 ms: 200 img/s. The GPU takes 900, which five workers (1000) reach.
    given = figures({READING: 1, DECODING: 4}, network=900)
    assert rates(given)[WORKERS.format(5)] == 900
    assert "The reader is the limit: the reader delivers 200 img/s with 1 worker" in verdict(given)
    assert "decoding takes 80% of reading" in verdict(given)
    # With four cores, 4 / 5 ms is the most.
    given = figures({READING: 1, DECODING: 4}, network=900, cores=4)
    assert rates(given)[WORKERS.format(4)] == 800


def test_what_reading_costs_on_the_cpu():
    # 10 ms a picture in the network, on all cores; 4 ms of one of two cores in the reader.
    stages = {READING: 2, DECODING: 2}
    given = figures(stages, 100, workers=2, cores=2, device="cpu", together=80)
    assert "The network is the limit" in verdict(given) and "share the cores" in verdict(given)
    found = rates(given)
    # 12 ms become 11 without the reading of files.
    assert found["at best, with the pictures packed into few large files"] == round(80 * 12 / 11)
    assert not any("num_workers" in text for text in found)


def test_not_more_workers_than_there_are_batches():
    from dataclasses import replace

    given = replace(figures({DECODING: 5}, network=900), epoch=96)  # three batches of 32
    assert rates(given)[WORKERS.format(3)] == 600


def test_without_workers_they_take_turns():
    given = figures({DECODING: 5}, network=200, workers=0, together=100)
    assert rates(given)[WORKERS.format(1)] == 200


def test_smaller_files_save_reading_and_decoding():
    # A short side of 512 is twice the 256 that crops of 224 need: a quarter of the pixels.
    given = figures({READING: 2, DECODING: 6}, 5000, cores=1, short=512)
    assert rates(given)["with a short side of 256 pixels, not 512"] == 500
    enough = figures({READING: 2, DECODING: 6}, 5000, cores=1)
    assert not any("short side" in text for text in rates(enough))


def test_fast_decoding_is_offered_with_the_time_that_was_measured():
    # Decoding and cropping take 8 ms of 10, decoding the crop only 3.
    stages = {READING: 2, DECODING: 6, "RandCropImage": 2}
    given = figures(stages, 5000, cores=1, part=0.003)
    assert rates(given)["-o DataLoader.Train.loader.decode=fast"] == 200


def test_the_slowest_transform_is_named_with_what_it_costs():
    stages = {READING: 1, "RandCropImage": 5, "ColorJitter": 4}
    given = figures(stages, 5000, cores=1, needed={"RandCropImage"})
    assert rates(given)["without ColorJitter, which takes 4.0 ms a picture"] == round(1000 / 6)
    assert "augmenting (most of all RandCropImage) takes 90% of reading" in verdict(given)


def test_nothing_is_suggested_that_would_not_help():
    given = figures({READING: 1, DECODING: 1}, network=50, workers=4)
    assert suggestions(given) == []
    assert verdict(given).startswith("The network is the limit: the network takes 50 img/s")
    assert "No change of reading would make training noticeably faster." in report(given)


@pytest.mark.parametrize(("network", "together"), [(100, 56), (5000, None)])
def test_costly_reading_that_nothing_cures_is_not_called_harmless(network, together):
    stages = {READING: 0.1, DECODING: 10}
    given = figures(stages, network, 2, 2, "cpu", together, packed=True)
    assert suggestions(given) == []
    text = report(given)
    assert ("reading costs 44%" if together else "The reader is the limit") in text
    assert "No change of reading" not in text
    assert "Reading costs time, but none of the usual changes" in text
