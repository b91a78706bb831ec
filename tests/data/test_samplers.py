"""Order and partition of the samples."""

from __future__ import annotations

import numpy as np
import pytest

from ppcls.data.samplers import DistributedBatchSampler
from ppcls.errors import ArgumentError
from ppcls.registry import SAMPLERS


def ranks(count: int, world: int, batch: int, epoch: int = 0, **arguments):
    samplers = [
        DistributedBatchSampler(batch, sample_count=count, rank=r, world_size=world, **arguments)
        for r in range(world)
    ]
    result = [sampler.batches(epoch) for sampler in samplers]
    assert [len(s) for s in samplers] == [len(batches) for batches in result]
    return result


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [3, 7, 12, 23, 24, 25, 26])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_exactly_once(count, world, shuffle):
    parts = ranks(count, world, 4, shuffle=shuffle)
    everything = np.concatenate([batch for part in parts for batch in part])
    np.testing.assert_array_equal(np.sort(everything), np.arange(count))
    sizes = [[len(batch) for batch in part] for part in parts]
    assert all(size > 0 for part in sizes for size in part)
    assert all(size == 4 for part in sizes for size in part[:-1])
    if shuffle:
        assert len({len(part) for part in sizes}) == 1
        assert max(map(max, sizes)) <= 5
        last = [part[-1] for part in sizes]
        assert max(last) - min(last) <= 1


@pytest.mark.parametrize("world", [1, 2, 3])
def test_drop_last_gives_full_batches(world):
    parts = ranks(26, world, 4, shuffle=True, drop_last=True)
    everything = np.concatenate([batch for part in parts for batch in part])
    assert len(np.unique(everything)) == len(everything) == 26 // (4 * world) * 4 * world
    assert {len(batch) for part in parts for batch in part} == {4}


def test_global_batch_does_not_depend_on_the_ranks():
    one = ranks(24, 1, 6, shuffle=True, seed=5)[0]
    two = ranks(24, 2, 3, shuffle=True, seed=5)
    for whole, *shares in zip(one, *two, strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(shares))


def test_order_depends_on_seed_and_epoch_and_nothing_else():
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        return tuple(np.concatenate(ranks(50, 1, 7, epoch, shuffle=True, seed=seed)[0]))

    assert order(1, 0) == order(1, 0)
    assert len({order(seed, epoch) for seed in range(4) for epoch in range(4)}) == 16


def test_without_shuffle_the_order_is_the_list_s():
    assert np.concatenate(ranks(10, 1, 3, epoch=4)[0]).tolist() == list(range(10))


def test_evaluation_may_leave_a_rank_without_work():
    assert [len(part) for part in ranks(2, 3, 4)] == [1, 1, 0]


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("batch_size", {"batch_size": 6, "sample_count": 11, "world_size": 2, "drop_last": True}),
        ("batch_size", {"batch_size": 2, "sample_count": 2, "world_size": 3, "shuffle": True}),
        ("batch_size", {"batch_size": 0, "sample_count": 2}),
        ("rank", {"batch_size": 1, "sample_count": 2, "rank": 2, "world_size": 2}),
        ("seed", {"batch_size": 1, "sample_count": 2, "seed": -1}),
        ("sample_count", {"batch_size": 1, "sample_count": 0}),
    ],
)
def test_checks(argument, arguments):
    with pytest.raises(ArgumentError) as caught:
        DistributedBatchSampler(**arguments)
    assert caught.value.argument == argument


def test_both_names_are_one_sampler():
    for name in ("BatchSampler", "DistributedBatchSampler"):
        entry = SAMPLERS.entry(name)
        assert entry.builder is DistributedBatchSampler
        assert list(entry.arguments()) == ["batch_size", "shuffle", "drop_last"]
        assert entry.context() == {"sample_count", "seed", "rank", "world_size", "training"}
