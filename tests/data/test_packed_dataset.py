"""Packed pictures in a folder: the same bits as unpacked ones, and damage that is named."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import support

from ppcls.data import shard_files, shard_writer
from ppcls.data.datasets.packed import PackedDataset
from ppcls.data.loader import DataLoader
from ppcls.data.pack import pack
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.data.samplers.packed import ShardSampler
from ppcls.data.subsets import chosen
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.flip import RandFlipImage
from ppcls.data.transforms.normalize import NormalizeImage
from ppcls.errors import ArgumentError, DataError, PPClsError
from ppcls.registry import DATASETS, SAMPLERS

pytestmark = pytest.mark.timeout(60)


def transforms() -> list:
    return [DecodeImage(), RandCropImage(size=32), RandFlipImage(), NormalizeImage(order="")]


@pytest.fixture
def packed(list_file, tmp_path) -> Path:
    """The 23 pictures of the list in their order, in several shards."""
    pack(list_file.parent, tmp_path / "packed", list_file=list_file, shard_mb=0.02, shuffle=False)
    assert len(list((tmp_path / "packed").glob("*.tar"))) > 3
    return tmp_path / "packed"


def shard_sampler(dataset, batch: int = 4, rank: int = 0, world: int = 1, **arguments):
    facts = {"sample_count": len(dataset), "shards": dataset.shards, "seed": 3}
    return ShardSampler(batch, **arguments, **facts, rank=rank, world_size=world)


def epoch(dataset, sampler, workers: int = 0) -> list[tuple[bytes, list[int], list[int]]]:
    with DataLoader(dataset, sampler, seed=3, num_workers=workers) as reader:
        batches = reader.epoch(1)
        return [(b.images.tobytes(), b.labels.tolist(), b.indices.tolist()) for b in batches]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["random", "shards"])
def test_same_bits_as_unpacked(packed, make_dataset, workers, kind):
    found, expected = PackedDataset(str(packed), transforms()), make_dataset()
    if kind == "shards":
        sampler = shard_sampler(found, buffer=8)
    else:
        sampler = DistributedBatchSampler(4, True, sample_count=23, seed=3)
    assert epoch(found, sampler, workers) == epoch(expected, sampler)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("split_by", ["batch", "shard"])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_exactly_once(packed, world, split_by, workers):
    seen: list[int] = []
    for rank in range(world):
        dataset = PackedDataset(str(packed), transforms())
        sampler = shard_sampler(dataset, 3, rank, world, buffer=6, split_by=split_by)
        batches = epoch(dataset, sampler, workers)
        assert len(batches) == len(sampler)
        seen += [index for _, _, indices in batches for index in indices]
    assert sorted(seen) == list(range(23))


@pytest.mark.parametrize("count", [3, 7, 24, 25, 26, 1000])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("split_by", ["batch", "shard"])
def test_orders_are_partitions(count, world, split_by):
    shards = np.arange(count) // 7
    facts = {"sample_count": count, "shards": shards, "world_size": world, "split_by": split_by}
    parts = [ShardSampler(4, 10, rank=rank, **facts).batches(2) for rank in range(world)]
    sizes = [[len(batch) for batch in part] for part in parts]
    plain = {"sample_count": count, "world_size": world, "shuffle": True}
    assert sizes == [
        [len(b) for b in DistributedBatchSampler(4, rank=rank, **plain).batches(0)]
        for rank in range(world)
    ]
    everything = np.concatenate([batch for part in parts for batch in part])
    np.testing.assert_array_equal(np.sort(everything), np.arange(count))


def order(count: int = 10_000, per_shard: int = 100, buffer: int = 250, at: int = 0, **facts):
    shards = np.arange(count) // per_shard
    sampler = ShardSampler(50, buffer, sample_count=count, shards=shards, **facts)
    return np.concatenate(sampler.batches(at))


def test_an_order_is_what_a_shuffle_buffer_gives():
    """Replayed with a buffer of 250 samples, no sample is asked for before it is read."""
    stream, mixed = order(buffer=1), order(buffer=250)
    by_shard = stream.reshape(100, 100)
    np.testing.assert_array_equal(by_shard - by_shard[:, :1], np.tile(np.arange(100), (100, 1)))
    place = np.empty(10_000, int)
    place[stream] = np.arange(10_000)
    # When the k-th sample leaves the buffer, only k + 250 of the stream have come in.
    ahead = np.maximum.accumulate(place[mixed]) - np.arange(10_000)
    assert 0 <= ahead.min() <= ahead.max() < 250
    moved = np.abs(place[mixed] - np.arange(10_000))
    assert moved.mean() == pytest.approx(250 / 4, rel=0.1)  # of two uniform delays' difference


def test_orders_differ_by_epoch_and_seed_only():
    assert np.array_equal(order(), order())
    orders = {tuple(order(1000, at=at, seed=seed)) for at in range(3) for seed in range(3)}
    assert len(orders) == 9
    assert len({tuple(order(1000, at=at)[:50] // 100) for at in range(5)}) > 3
    assert np.array_equal(order(100, shuffle=False), np.arange(100))


def test_ranks_share_a_step_or_have_shards_of_their_own():
    one = ShardSampler(40, 250, sample_count=10_000, shards=np.arange(10_000) // 100)
    for split_by, most in (("batch", 100), ("shard", 26)):
        ranks = [
            ShardSampler(
                10, 250, split_by=split_by, sample_count=10_000, shards=np.arange(10_000) // 100,
                rank=rank, world_size=4,
            ).batches(0)
            for rank in range(4)
        ]  # fmt: skip
        shards = [len(np.unique(np.concatenate(batches) // 100)) for batches in ranks]
        assert max(shards) <= most + 5, "the buffer reaches into neighbours"
        steps = [np.concatenate(shares) for shares in zip(*ranks, strict=True)]
        same = all(map(np.array_equal, steps, one.batches(0)))
        assert same == (split_by == "batch")


def test_shards_need_a_packed_data_set(make_dataset):
    with pytest.raises(ArgumentError, match="PackedDataset has shards"):
        ShardSampler(4, sample_count=23)
    assert SAMPLERS.entry("ShardSampler").context() >= {"shards", "sample_count", "rank"}
    assert DATASETS.entry("PackedDataset").context() == {"class_num", "mode"}


def test_a_part_can_be_chosen(packed):
    dataset = PackedDataset(str(packed), transforms())
    kept = chosen(dataset.labels, subset=0.5, mode="Train", seed=0)
    dataset.select(kept)
    seen = [i for _, _, indices in epoch(dataset, shard_sampler(dataset)) for i in indices]
    assert sorted(seen) == list(range(len(kept)))
    np.testing.assert_array_equal(dataset.shards, PackedDataset(str(packed)).shards[kept])


def test_truncated_shard_is_named(packed):
    shard = packed / "shard-000002.tar"
    size = shard.stat().st_size
    os.truncate(shard, size - 512)
    with pytest.raises(DataError) as caught:
        PackedDataset(str(packed))
    assert str(caught.value) == (
        f"{shard}: is truncated: expected {size} bytes, received {size - 512}"
    )
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard}: No such file"):
        PackedDataset(str(packed))


def test_shard_that_is_cut_off_while_it_is_read(packed):
    dataset = PackedDataset(str(packed))
    last = len(dataset) - 1
    shard = dataset.path(last).rpartition("/")[0]
    os.truncate(shard, 600)
    with pytest.raises(DataError, match=rf"{shard} is truncated: expected \d+ bytes at"):
        dataset.sample(last, np.random.default_rng())


def test_shards_in_the_wrong_places_are_noticed(packed):
    first, second = sorted(packed.glob("*.tar"))[:2]
    length = first.stat().st_size
    first.write_bytes(second.read_bytes().ljust(length, b"\0")[:length])
    with pytest.raises(DataError, match=r"shard-000000\.tar: expected the member '000000000\.jpg'"):
        PackedDataset(str(packed)).sample(0, np.random.default_rng())


@pytest.mark.parametrize("name", ["samples.npy", "names.bin"])
def test_damaged_tables_are_named(packed, name):
    path = packed / name
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:-1])
    with pytest.raises(DataError, match=rf"{path}: expected .*{len(data)} bytes"):
        PackedDataset(str(packed))
    path.unlink()
    with pytest.raises(DataError, match=str(path)):
        PackedDataset(str(packed))


def test_a_flipped_bit_of_the_table_is_found(packed):
    path = packed / "samples.npy"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{path}: is damaged: its SHA-256"):
        PackedDataset(str(packed))


def test_a_table_that_does_not_fit_the_shards(packed):
    table = np.load(packed / "samples.npy")
    table["offset"][-1] += 10**6
    np.save(packed / "samples.npy", table)
    tree = json.loads((packed / "index.json").read_text())
    digest = hashlib.sha256((packed / "samples.npy").read_bytes()).hexdigest()
    tree["files"]["samples.npy"]["sha256"] = digest
    (packed / "index.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"samples\.npy: does not fit the shards"):
        PackedDataset(str(packed))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "expected format ppcls-packed 1, received ppcls-packed 2"),
        ({"shardlist": None}, "is no index of packed pictures"),
        ({"shardlist": [{"url": "../x.tar"}]}, r"the name of a file, received '\.\./x\.tar'"),
        ({"suffixes": ["/etc"]}, "the name of a file"),
        ({"files": {}}, "expected the files"),
        ({"samples": float("inf")}, "is no index of packed pictures"),
        ({"samples": 24}, r"samples\.npy: expected"),
        ({"splits": {"val": "/etc"}}, "the name of a file"),
        ({"splits": {"val": "val"}}, "expected 'train' for mode Train, received only 'val'"),
    ],
)
def test_an_index_is_not_trusted(packed, change, reason):
    path = packed / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=reason):
        PackedDataset(str(packed))


def test_no_index_and_no_json(packed):
    (packed / "index.json").write_text("{")
    with pytest.raises(DataError, match=r"index\.json: is no index of packed pictures: "):
        PackedDataset(str(packed))
    with pytest.raises(DataError, match="root: expected a folder"):
        PackedDataset(str(packed / "nowhere"))


def test_classes_have_to_fit(packed):
    assert len(PackedDataset(str(packed), class_num=5)) == 23
    with pytest.raises(DataError, match=r"at most Arch\.class_num 4 classes, received 5"):
        PackedDataset(str(packed), class_num=4)


def test_bad_picture_in_a_shard_is_skipped_or_named(packed, list_file, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "_check_decodes", lambda data: None)  # damaged afterwards
    (list_file.parent / "folder 1/ü #5.jpg").write_bytes(b"no picture")
    pack(list_file.parent, tmp_path / "bad", list_file=list_file, shuffle=False)
    with pytest.raises(DataError, match=r"000000005\.jpg \(folder 1/ü #5\.jpg\): expected a pic"):
        PackedDataset(str(tmp_path / "bad")).sample(5, np.random.default_rng())
    dataset = PackedDataset(str(tmp_path / "bad"), transforms(), "skip", 0.1)
    seen = [i for _, _, indices in epoch(dataset, shard_sampler(dataset), 1) for i in indices]
    assert sorted(seen) == [i for i in range(23) if i != 5]


def test_a_disk_is_asked_for_whole_pieces_only_in_sequence(packed, monkeypatch):
    monkeypatch.setattr(shard_files, "RECENT", 4)
    monkeypatch.setattr(shard_files, "NEAR", 2)
    monkeypatch.setattr(shard_files, "CHUNK", 4096)
    dataset = PackedDataset(str(packed))
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(shard_files, "advise", lambda fd, start, size: asked.append((fd, start)))
    files = dataset.source.origin
    monkeypatch.setattr(files, "_ahead", shard_files.ReadAhead())
    for index in range(len(dataset)):
        dataset.source.read(index)
    offsets = dataset.source._table["offset"]
    later = [(int(s), o) for s, o in zip(dataset.shards, offsets, strict=True)][4:]
    handles = {shard: file.fileno() for shard, file in files._files.items()}
    assert {(handles[s], int(o) // 4096 * 4096) for s, o in later} <= set(asked)
    assert len(asked) == len(set(asked)), "once each"
    asked.clear()
    monkeypatch.setattr(files, "_ahead", shard_files.ReadAhead())
    for index in range(0, 23 * 7, 7):
        dataset.source.read(index % 23)
    assert asked == []


def test_open_files_are_few(packed, monkeypatch):
    monkeypatch.setattr(shard_files, "OPEN_FILES", 2)
    dataset = PackedDataset(str(packed))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for index in [*range(23), *range(22, -1, -1)]:
        dataset.source.read(index)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_opening_copies_little(packed):
    """1.3 million samples are mapped, not read: only labels and shards are arrays of their own."""
    source = PackedDataset(str(packed)).source
    assert isinstance(source._table, np.memmap)
    assert isinstance(source._names, np.memmap)


def test_a_configuration_trains_from_shards(tmp_path):
    """A whole run: the same losses as from the folder, and a sampler that does not fit."""
    pytest.importorskip("paddle")
    for split, counts in (("train", [8, 8, 8]), ("val", [3, 3, 3])):
        support.write_pictures(tmp_path / "pictures" / split, counts)
    pack(tmp_path / "pictures", tmp_path / "packed", shuffle=False, shard_mb=0.011)
    losses = {}
    for kind in ("ImageFolder", "PackedDataset", "ShardSampler"):
        tree = support.config_tree(tmp_path / "pictures", tmp_path / kind)
        if kind != "ImageFolder":
            for reader in tree["DataLoader"].values():
                ops = reader["dataset"]["transform_ops"]
                root = str(tmp_path / "packed")
                reader["dataset"] = {"name": "PackedDataset", "root": root, "transform_ops": ops}
        if kind == "ShardSampler":
            sampler = {"name": kind, "batch_size": 8, "buffer": 6}
            tree["DataLoader"]["Train"]["sampler"] = sampler
        support.train(support.write_config(tmp_path / f"{kind}.yaml", tree))
        lines = (tmp_path / kind / support.NET / "metrics.jsonl").read_text().splitlines()
        logged = [json.loads(line) for line in lines]
        losses[kind] = [line["loss"] for line in logged if "loss" in line]
    assert losses["ImageFolder"] == losses["PackedDataset"] != losses["ShardSampler"]
    assert len(losses["ShardSampler"]) == len(losses["ImageFolder"]) > 0
    tree = support.config_tree(tmp_path / "pictures", tmp_path / "none")
    tree["DataLoader"]["Train"]["sampler"] = {"name": "ShardSampler", "batch_size": 8}
    with pytest.raises(PPClsError, match=r"DataLoader\.Train\.sampler\.name: .*PackedDataset has"):
        support.train(support.write_config(tmp_path / "wrong.yaml", tree))
