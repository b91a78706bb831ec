"""Samplers that repeat pictures, balance classes, or choose the size of a batch."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ppcls.config import ConfigError, load_config
from ppcls.data.loader import DataLoader
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.data.samplers.balanced import ClassBalancedSampler, WeightedSampler
from ppcls.data.samplers.base import Classes, cut, occurrences, step_bounds
from ppcls.data.samplers.identity import PKSampler
from ppcls.data.samplers.multi_scale import MultiScaleSampler
from ppcls.data.samplers.repeated import RASampler
from ppcls.errors import ArgumentError
from ppcls.registry import SAMPLERS

COUNTS = {0: 60, 1: 25, 3: 10, 7: 4, 8: 1}
LABELS = np.random.default_rng(5).permutation(np.repeat([*COUNTS], [*COUNTS.values()]))
COUNT = len(LABELS)

# Smallest arguments of each sampler that is random in every epoch, on COUNT samples.
SHUFFLING = {
    "BatchSampler": {"batch_size": 8, "shuffle": True},
    "RASampler": {"batch_size": 8, "selected_round": 0},
    "MultiScaleSampler": {"scales": [96, 64, 32], "first_bs": 3},
    "ClassBalancedSampler": {"batch_size": 8},
    "WeightedSampler": {"batch_size": 8},
    "PKSampler": {"batch_size": 8, "sample_per_id": 2},
}
TRAINING_ONLY = ["RASampler", "ClassBalancedSampler", "WeightedSampler", "PKSampler"]


def ranks(sampler, world: int = 1, count: int = COUNT, epoch: int = 0, **arguments):
    """The batches of each rank in an epoch."""
    if isinstance(sampler, str):
        sampler = SAMPLERS.entry(sampler).builder
    takes = SAMPLERS.entry(sampler.__name__).context()
    context = {"labels": LABELS} if "labels" in takes and "labels" not in arguments else {}
    samplers = [
        sampler(sample_count=count, rank=r, world_size=world, **context, **arguments)
        for r in range(world)
    ]
    result = [one.batches(epoch) for one in samplers]
    assert [len(one) for one in samplers] == [len(batches) for batches in result]
    return result


def draws(parts) -> np.ndarray:
    return np.concatenate([batch for part in parts for batch in part])


def refused(sampler, argument: str, **arguments) -> None:
    with pytest.raises(ArgumentError) as caught:
        ranks(sampler, **arguments)
    assert caught.value.argument == argument


# All of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHUFFLING)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_have_equally_many_batches_in_every_epoch(name, world):
    shapes = set()
    for epoch in range(5):
        parts = ranks(name, world, epoch=epoch, **SHUFFLING[name])
        assert all(len(batch) and batch.dtype == np.int64 for part in parts for batch in part)
        shapes |= {len(part) for part in parts}
    assert len(shapes) == 1


@pytest.mark.parametrize("name", SHUFFLING)
def test_an_order_depends_on_seed_and_epoch_and_nothing_else(name):
    def order(seed: int, epoch: int) -> bytes:
        return draws(ranks(name, 1, epoch=epoch, seed=seed, **SHUFFLING[name])).tobytes()

    assert order(1, 2) == order(1, 2)
    assert len({order(seed, epoch) for seed in range(4) for epoch in range(4)}) == 16


@pytest.mark.parametrize("name", TRAINING_ONLY)
@pytest.mark.parametrize("world", [1, 2])
def test_no_two_draws_of_an_epoch_are_the_same(name, world):
    """The same draw would be the same augmentation of the same picture."""
    arguments = {**SHUFFLING[name]}
    if name != "PKSampler" and name != "RASampler":
        arguments["samples_per_epoch"] = 500
    everything = draws(ranks(name, world, **arguments))
    assert len(np.unique(everything)) == len(everything)
    assert len(np.unique(everything % COUNT)) < len(everything), "there are copies"


@pytest.mark.parametrize("name", TRAINING_ONLY)
def test_an_evaluation_is_refused(name):
    with pytest.raises(ArgumentError, match=f"DistributedBatchSampler, received {name}") as caught:
        ranks(name, training=False, **SHUFFLING[name])
    assert caught.value.argument == "name"


@pytest.mark.parametrize("name", ["ClassBalancedSampler", "WeightedSampler", "PKSampler"])
def test_without_shuffle_epochs_are_alike(name):
    arguments = {**SHUFFLING[name], "shuffle": False}
    first, second = (draws(ranks(name, epoch=epoch, **arguments)) for epoch in (0, 1))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["ClassBalancedSampler", "WeightedSampler", "PKSampler"])
def test_classes_are_needed(name):
    refused(name, "name", labels=np.zeros((COUNT, 3), np.float32), **SHUFFLING[name])
    refused(name, "name", labels=None, **SHUFFLING[name])


@pytest.mark.parametrize("name", ["ClassBalancedSampler", "WeightedSampler", "RASampler"])
def test_drop_last_gives_full_batches(name):
    parts = ranks(name, 2, drop_last=True, **SHUFFLING[name])
    assert {len(batch) for part in parts for batch in part} == {8}
    refused(name, "batch_size", drop_last=True, **{**SHUFFLING[name], "batch_size": COUNT + 1})


# What they are made of ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "sizes", "drop_last", "least", "expected"),
    [
        (12, [5], False, 1, [0, 5, 10, 12]),
        (12, [5], True, 1, [0, 5, 10]),
        (12, [5], False, 3, [0, 5, 12]),  # two are too few for three ranks
        (10, [5], False, 3, [0, 5, 10]),
        (2, [5], False, 3, [0, 2]),
        (17, [2, 5], False, 1, [0, 2, 7, 9, 14, 16, 17]),
    ],
)
def test_bounds_of_steps(count, sizes, drop_last, least, expected):
    assert step_bounds(count, sizes, drop_last, least).tolist() == expected


def test_a_step_is_split_evenly():
    parts = [cut(np.arange(11), np.array([0, 6, 11]), rank, 3) for rank in range(3)]
    assert [[batch.tolist() for batch in part] for part in parts] == [
        [[0, 1], [6, 7]],
        [[2, 3], [8, 9]],
        [[4, 5], [10]],
    ]


def test_occurrences():
    assert occurrences(np.array([7, 4, 7, 7, 4])).tolist() == [0, 0, 1, 2, 1]


def test_passes_are_permutations_of_each_class(rng):
    classes = Classes(LABELS)
    numbers = np.array([1, 0, 3, 2, 4])
    indices, starts = classes.passes(numbers, rng)
    orders = []
    for c, (label, count) in enumerate(COUNTS.items()):
        for t in range(numbers[c]):
            one = indices[starts[c] + t * count :][:count]
            np.testing.assert_array_equal(np.sort(one), np.flatnonzero(np.isin(LABELS, label)))
            orders.append(tuple(one))
    assert len(indices) == 60 + 3 * 10 + 2 * 4 + 4
    assert len(set(orders[1:4])) == 3, "each pass has another order"


# RASampler ------------------------------------------------------------------------------------

# Pictures of each rank by timm 1.0.31, RepeatAugSampler(range(count), world, rank, shuffle=False,
# num_repeats, selected_round).
TIMM = [
    (10, 3, 256, [[0, 0, 1, 2, 2], [0, 1, 1, 2, 3]]),
    (10, 3, 4, [[0, 1], [0, 1], [0, 2], [1, 2]]),
    (5, 1, 256, [[0, 2, 4], [1, 3, 0]]),
    (7, 2, 0, [[0, 1, 3], [0, 2, 3], [1, 2, 4]]),
]


@pytest.mark.parametrize(("count", "repeats", "selected_round", "expected"), TIMM)
def test_repeats_are_spread_over_the_ranks_as_in_timm(count, repeats, selected_round, expected):
    arguments = {"num_repeats": repeats, "selected_round": selected_round, "batch_size": 2}
    parts = ranks(RASampler, len(expected), count, **arguments)
    order = list(dict.fromkeys(_in_turn(parts, count)))  # of the pictures in this epoch
    for part, pictures in zip(parts, expected, strict=True):
        assert (draws([part]) % count).tolist() == [order[i] for i in pictures]
    everything = draws(parts)
    assert len(np.unique(everything)) == len(everything), "none is augmented twice alike"


def _in_turn(parts, count: int) -> list[int]:
    lanes = [draws([part]) % count for part in parts]
    return np.stack(lanes, axis=1).ravel().tolist()


def test_an_epoch_of_imagenet_is_as_long_as_published():
    sampler = RASampler(64, sample_count=1281167, rank=7, world_size=8)
    assert sum(map(len, sampler.batches(0))) == 1281167 // 256 * 256 // 8
    assert len(sampler) == 160128 // 64


def test_copies_of_a_picture_are_numbered():
    everything = draws(ranks(RASampler, 3, 300, batch_size=16, selected_round=256))
    assert len(everything) == 255  # 256 over 3 ranks, rounded down
    copies = Counter(everything % 300)
    assert len(copies) == 85
    for picture, number in copies.items():
        assert {picture + 300 * copy for copy in range(number)} <= set(everything)


def test_repeating_without_shuffling_would_lose_pictures():
    refused(RASampler, "shuffle", batch_size=4, shuffle=False)
    [part] = ranks(RASampler, 1, 5, batch_size=4, shuffle=False, num_repeats=1)
    assert draws([part]).tolist() == [0, 1, 2, 3, 4]


def test_too_few_pictures_to_repeat():
    with pytest.raises(ArgumentError) as caught:
        RASampler(1, sample_count=256, world_size=300)
    assert caught.value.argument == "batch_size"


# MultiScaleSampler ------------------------------------------------------------------------------


def scaled(world: int = 1, count: int = 1000, epoch: int = 0, **arguments):
    arguments = {"scales": [160, 192, 224, 288, 320], "first_bs": 50, **arguments}
    samplers = [
        MultiScaleSampler(sample_count=count, rank=rank, world_size=world, **arguments)
        for rank in range(world)
    ]
    sizes = [sampler.sizes(epoch) for sampler in samplers]
    same = all(own == sizes[0][: len(own)] for own in sizes)
    assert same, "all ranks have the same sizes; in an evaluation some may have a batch fewer"
    return ranks(MultiScaleSampler, world, count, epoch, **arguments), sizes[0]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [3, 40, 999, 1000, 1001, 1002])
@pytest.mark.parametrize("training", [True, False])
def test_every_picture_once_at_some_size(world, count, training):
    parts, _ = scaled(world, count, is_training=training, training=training)
    np.testing.assert_array_equal(np.sort(draws(parts)), np.arange(count))
    if training:
        lengths = np.array([[len(batch) for batch in part] for part in parts])
        assert (np.ptp(lengths, axis=0) <= 1).all(), "ranks share each step evenly"


def test_batches_grow_as_pictures_shrink():
    """PP-LCNetV2's sizes: 50 x 160 x 160 pixels a batch, rounded down to whole pictures."""
    [batches], sizes = scaled(epoch=3)
    full = {160: 50, 192: 34, 224: 25, 288: 15, 320: 12}
    rest = [
        (size, len(batch))
        for size, batch in zip(sizes, batches, strict=True)
        if len(batch) != full[size[0]] or size[0] != size[1]
    ]
    # 1000 = 7 x (50 + 34 + 25 + 15 + 12) + 48: seven batches of each size, and one of the first.
    assert rest == [((160, 160), 48)]
    assert Counter(size for size, _ in sizes) == {160: 8, 192: 7, 224: 7, 288: 7, 320: 7}


def test_the_order_of_sizes_is_random():
    orders = {tuple(scaled(epoch=epoch)[1]) for epoch in range(5)}
    assert len(orders) == 5
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_sides_are_rounded_down_to_the_stride():
    [batches], sizes = scaled(scales=[[100, 70], 40], first_bs=4, epoch=1)
    assert set(sizes) == {(96, 64), (32, 32)}
    largest = dict.fromkeys(sizes, 0)
    for size, batch in zip(sizes, batches, strict=True):
        largest[size] = max(largest[size], len(batch))
    # 100 x 70 x 4 pixels: before the first size was rounded, as published.
    assert largest == {(96, 64): 4, (32, 32): 27}


def test_without_training_there_is_one_size_in_the_order_of_the_list():
    [batches], sizes = scaled(count=9, scales=[100, 64], first_bs=4, is_training=False)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert sizes == [(100, 100)] * 3
    parts, sizes = scaled(2, 9, scales=[100], first_bs=4, is_training=False, training=False)
    assert [len(part) for part in parts] == [2, 1]


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("scales", {"scales": [160, 31]}),
        ("scales", {"scales": [[160, 160, 160]]}),
        ("is_training", {"training": False}),
        ("batch_size", {"count": 2, "world": 3}),
    ],
)
def test_mistakes_of_a_multi_scale_sampler(argument, arguments):
    with pytest.raises(ArgumentError) as caught:
        scaled(**arguments)
    assert caught.value.argument == argument


# ClassBalancedSampler and WeightedSampler -------------------------------------------------------


def seen(everything: np.ndarray) -> list[int]:
    labels = LABELS[everything % COUNT]
    return [int((labels == label).sum()) for label in COUNTS]


@pytest.mark.parametrize("world", [1, 2])
def test_balanced_classes_are_equally_frequent(world):
    parts = ranks(ClassBalancedSampler, world, batch_size=7)
    everything = draws(parts)
    assert seen(everything) == [20, 20, 20, 20, 20]
    times = np.bincount(everything % COUNT, minlength=COUNT)
    for label in COUNTS:
        own = times[np.isin(LABELS, label)]
        assert own.max() - own.min() <= 1, "no picture again before all others of its class"


def test_an_epoch_may_have_another_length():
    everything = draws(ranks(ClassBalancedSampler, 2, batch_size=7, samples_per_epoch=33))
    assert len(everything) == 33
    assert min(seen(everything)) >= 6 and max(seen(everything)) <= 7


def frequencies(**arguments) -> np.ndarray:
    everything = draws(ranks(WeightedSampler, batch_size=64, samples_per_epoch=40_000, **arguments))
    return np.array(seen(everything)) / len(everything)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("inverse_frequency", np.ones(5)),
        ("sqrt", np.sqrt([60, 25, 10, 4, 1])),
        # A weight for each label from 0 to 8; only those of 0, 1, 3, 7 and 8 have pictures.
        ([1, 2, 9, 4, 9, 9, 9, 0, 50, 9], np.array([60, 50, 40, 0, 50])),
    ],
)
def test_classes_are_drawn_by_their_weights(weights, expected):
    deviation = frequencies(weights=weights) - expected / expected.sum()
    assert np.abs(deviation).max() < 0.01  # four standard deviations of 40,000 draws
    assert (frequencies(weights=weights)[expected == 0] == 0).all()


def test_the_pictures_of_a_class_are_drawn_alike():
    arguments = {"weights": "inverse_frequency", "samples_per_epoch": 60_000}
    times = np.bincount(draws(ranks(WeightedSampler, batch_size=64, **arguments)) % COUNT)
    own = times[np.isin(LABELS, 0)]  # 12,000 draws of 60 pictures
    assert own.mean() == pytest.approx(200, rel=0.04)
    assert np.abs(own - 200).max() < 60  # four standard deviations


def test_draws_without_replacement():
    everything = draws(
        ranks(WeightedSampler, batch_size=8, replacement=False, samples_per_epoch=30)
    )
    assert len(np.unique(everything)) == len(everything) == 30
    assert everything.max() < COUNT


def test_the_first_draws_without_replacement_follow_the_weights():
    """Of weights 3 and 1: the first is of weight 3 with 3/4, the second then with 1."""
    firsts = Counter()
    for seed in range(4000):
        sampler = WeightedSampler(
            3,
            [3, 1, 1],
            replacement=False,
            samples_per_epoch=2,
            sample_count=3,
            labels=np.arange(3),
            seed=seed,
        )
        firsts[tuple(sampler.batches(0)[0].tolist())] += 1
    # P(first = a, second = b) = w_a / 5 * w_b / (5 - w_a)
    weights = [3, 1, 1]
    for (a, b), number in firsts.items():
        expected = Fraction(weights[a], 5) * Fraction(weights[b], 5 - weights[a])
        assert number / 4000 == pytest.approx(float(expected), abs=0.035)
    assert len(firsts) == 6


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("weights", {"weights": [1.0] * 8}),
        ("weights", {"weights": [0.0] * 9}),
        ("samples_per_epoch", {"replacement": False}),
        ("samples_per_epoch", {"replacement": False, "samples_per_epoch": COUNT + 1}),
        (
            "samples_per_epoch",
            {"weights": [0, *[1] * 8], "replacement": False, "samples_per_epoch": 41},
        ),
    ],
)
def test_mistakes_of_weights(argument, arguments):
    refused(WeightedSampler, argument, batch_size=4, **arguments)


def test_fewer_draws_than_ranks_are_refused():
    with pytest.raises(ArgumentError, match="each of 3 processes"):
        ranks(ClassBalancedSampler, 3, batch_size=4, samples_per_epoch=2)


# PKSampler ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sample_avg_prob", "id_avg_prob"])
@pytest.mark.parametrize("world", [1, 2])
def test_batches_have_p_classes_of_k_pictures(method, world):
    for part in ranks(PKSampler, world, batch_size=12, sample_per_id=3, sample_method=method):
        for batch in part:
            labels = LABELS[batch % COUNT].reshape(4, 3)
            assert (labels == labels[:, :1]).all() and len(set(labels[:, 0])) == 4
            for group in batch.reshape(4, 3) % COUNT:
                size = COUNTS[LABELS[group[0]]]
                assert len(set(group)) == min(3, size), "different pictures, if there are so many"


def test_ranks_draw_different_batches():
    first, second = ranks(PKSampler, 2, batch_size=12, sample_per_id=3)
    for one, other in zip(first, second, strict=True):
        assert set(one % COUNT) != set(other % COUNT)


def test_a_batch_keeps_the_classes_that_it_has(rng):
    """Where the candidates run out, the other classes are drawn from those that are left."""
    sampler = PKSampler(3, 1, sample_count=COUNT, labels=LABELS)
    candidates, taken = np.full((200, 4), 4), np.tile([True, False, False, False], (200, 1))
    completed = sampler._completed(candidates, taken, rng)
    assert completed.shape == (200, 3)
    assert all(4 in row and len(set(row)) == 3 for row in completed.tolist())


def test_pictures_of_a_small_class_take_turns():
    [part] = ranks(PKSampler, batch_size=20, sample_per_id=10, sample_method="id_avg_prob")
    groups = np.concatenate(part).reshape(-1, 10) % COUNT
    small = [group for group in groups if LABELS[group[0]] == 7]
    assert small
    for group in small:
        assert sorted(Counter(group).values()) == [2, 2, 3, 3]


def test_a_class_is_read_through_before_it_begins_again():
    [part] = ranks(PKSampler, batch_size=6, sample_per_id=3, sample_method="id_avg_prob")
    groups = np.concatenate(part).reshape(-1, 3) % COUNT
    own = [group for group in groups if LABELS[group[0]] == 3]  # ten pictures: three groups a pass
    assert len(own) >= 6
    for start in range(0, len(own) - len(own) % 3, 3):
        assert len(np.unique(own[start : start + 3])) == 9


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [0.6, 0.25, 0.1, 0.04, 0.01]),
        ({"sample_method": "id_avg_prob"}, [0.2] * 5),
        # Labels 1 to 3 three times, 3 to 8 (without 3, which is in the first range) never.
        (
            {"sample_method": "id_avg_prob", "id_list": [1, 3, 3, 8], "ratio": [3, 0]},
            [1 / 7, 3 / 7, 3 / 7, 0, 0],
        ),
    ],
)
def test_classes_are_drawn_by_the_method(arguments, expected):
    labels = np.tile(LABELS, 100)
    [part] = ranks(
        PKSampler, 1, len(labels), labels=labels, batch_size=2, sample_per_id=2, **arguments
    )
    found = Counter(labels[batch[0] % len(labels)] for batch in part)
    shares = [found[label] / len(part) for label in COUNTS]
    assert shares == pytest.approx(expected, abs=0.03)  # 4 standard deviations of 5,000 draws


@pytest.mark.parametrize("large", [3, 3000], ids=["enough candidates", "candidates run out"])
def test_classes_of_a_batch_are_drawn_one_after_the_other(large):
    """P(a and b) = p_a p_b / (1 - p_a) + p_b p_a / (1 - p_b)."""
    counts = np.array([large, 3, 2, 1])
    labels = np.tile(np.repeat(np.arange(4), counts), -(-40_000 // counts.sum()))
    [part] = ranks(PKSampler, 1, len(labels), labels=labels, batch_size=2, sample_per_id=1)
    found = Counter(tuple(sorted(labels[batch % len(labels)])) for batch in part)
    p = counts / counts.sum()
    for a in range(4):
        for b in range(a):
            expected = p[a] * p[b] * (1 / (1 - p[a]) + 1 / (1 - p[b]))
            assert found[b, a] / len(part) == pytest.approx(expected, abs=0.015)
    assert all(a != b for a, b in found)


def test_the_number_of_batches_is_that_of_a_plain_sampler():
    for world in (1, 2, 3):
        plain = DistributedBatchSampler(6, sample_count=COUNT, world_size=world, training=True)
        up = PKSampler(6, 2, drop_last=False, sample_count=COUNT, labels=LABELS, world_size=world)
        assert len(up) == len(plain)
    assert len(PKSampler(6, 2, sample_count=COUNT, labels=LABELS)) == COUNT // 6


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("batch_size", {"batch_size": 7, "sample_per_id": 2}),
        ("batch_size", {"batch_size": 12, "sample_per_id": 2}),  # six classes
        ("batch_size", {"batch_size": 104, "sample_per_id": 26}),  # more than there are
        ("id_list", {"batch_size": 4, "sample_per_id": 2, "id_list": [0, 1]}),
        ("batch_size", {"batch_size": 4, "sample_per_id": 2, "id_list": [1, 9], "ratio": [0]}),
    ],
)
def test_mistakes_of_a_pk_sampler(argument, arguments):
    refused(PKSampler, argument, **arguments)


# As a configuration writes them -----------------------------------------------------------------

SAMPLER = """\
Arch: {{name: MobileNeXt_x0_1, class_num: 10}}
DataLoader:
  Train:
    dataset: {{name: ImageNetDataset, image_root: ./pictures}}
    sampler: {sampler}
"""


def configured(folder: Path, sampler: str):
    path = folder / "config.yaml"
    path.write_text(SAMPLER.format(sampler=sampler), encoding="utf-8")
    return load_config(path).DataLoader.Train.sampler


@pytest.mark.parametrize(
    "sampler",
    [
        "{name: MultiScaleSampler, scales: [160, 192, 224, 288, 320], first_bs: 50,"
        " divided_factor: 32, is_training: True}",
        "{name: MultiScaleSampler, scales: [[160, 128]], first_bs: 4}",
        "{name: PKSampler, batch_size: 8, sample_per_id: 4, drop_last: False, shuffle: True,"
        " sample_method: id_avg_prob, id_list: [0, 1], ratio: [4]}",
        "{name: RASampler, batch_size: 8, drop_last: False, shuffle: True, num_repeats: 3}",
        "{name: WeightedSampler, batch_size: 8, weights: sqrt}",
        "{name: WeightedSampler, batch_size: 8, weights: [1, 2.5, 1, 1, 1, 1, 1, 1, 1]}",
        "{name: ClassBalancedSampler, batch_size: 8, shuffle: True}",
    ],
)
def test_sections_are_accepted(tmp_path, sampler):
    spec = configured(tmp_path, sampler)
    built = spec.build(
        sample_count=COUNT, labels=LABELS, seed=0, rank=1, world_size=2, training=True
    )
    assert len(built) > 0


@pytest.mark.parametrize(
    ("key", "sampler"),
    [
        ("scales", "{name: MultiScaleSampler, scales: [16], first_bs: 5}"),
        ("batch_size", "{name: PKSampler, batch_size: 8, sample_per_id: 3}"),
        ("shuffle", "{name: RASampler, batch_size: 8, shuffle: False}"),
        ("samples_per_epoch", "{name: WeightedSampler, batch_size: 8, replacement: False}"),
        ("weights", "{name: WeightedSampler, batch_size: 8, weights: cube}"),
    ],
)
def test_mistakes_are_found_before_data_is_read(tmp_path, key, sampler):
    with pytest.raises(ConfigError, match=rf"config\.yaml:5: DataLoader\.Train\.sampler\.{key}"):
        configured(tmp_path, sampler)


# With the loader --------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_copies_of_a_picture_are_augmented_differently(make_dataset, num_workers):
    dataset = make_dataset()
    sampler = RASampler(6, sample_count=len(dataset), num_repeats=3)
    with DataLoader(dataset, sampler, seed=0, num_workers=num_workers) as loader:
        images, indices = [], []
        for batch in loader.epoch(0):
            images += list(batch.images.copy())
            indices += batch.indices.tolist()
            np.testing.assert_array_equal(batch.labels, dataset.labels[batch.indices])
    assert indices == (draws([sampler.batches(0)]) % len(dataset)).tolist()
    assert max(Counter(indices).values()) == 3
    assert len({image.tobytes() for image in images}) == len(images)
