"""Parts of a data set: fractions, few of each class, folds."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from ppcls.data.subsets import chosen, fold_of
from ppcls.errors import ArgumentError

COUNTS = [100, 37, 12, 4, 1]
LABELS = np.random.default_rng(7).permutation(np.repeat([0, 2, 3, 5, 9], COUNTS))
MULTI = np.random.default_rng(3).integers(0, 2, (30, 4)).astype(np.float32)


def keep(labels=LABELS, mode="Train", seed=0, **wanted) -> np.ndarray:
    kept = chosen(labels, mode=mode, seed=seed, **wanted)
    assert kept.dtype == np.int64
    assert (np.diff(kept) > 0).all(), "sorted, none twice"
    return kept


def per_class(kept: np.ndarray) -> list[int]:
    return [int((LABELS[kept] == label).sum()) for label in np.unique(LABELS)]


def test_nothing_wanted_is_the_whole():
    assert chosen(LABELS, mode="Train", seed=0) is None


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.1, [10, 3, 1, 1, 1]),  # shares 10, 3.7, 1.2, 0.4, 0.1; none below 1
        (0.5, [50, 18, 6, 2, 1]),  # shares 50, 18.5, 6, 2, 0.5
        (1.0, COUNTS),
        (1e-9, [1, 1, 1, 1, 1]),
    ],
)
def test_a_subset_has_this_part_of_each_class(fraction, expected):
    assert per_class(keep(subset=fraction)) == expected


def test_a_subset_is_as_large_as_its_fraction():
    labels = np.repeat(np.arange(10), 14)  # shares of 1.4: six classes get 1, four get 2
    kept = keep(labels, subset=0.1)
    assert np.sort(np.bincount(labels[kept])).tolist() == [1] * 6 + [2] * 4


def test_few_shot_takes_what_there_is_and_says_so(caplog):
    with caplog.at_level(logging.WARNING, "ppcls"):
        kept = keep(few_shot=12)
    assert per_class(kept) == [12, 12, 12, 4, 1]
    [record] = caplog.records
    assert "2 of 5 classes have fewer than 12 samples, the smallest 1" in record.getMessage()
    assert set(keep(few_shot=4)) <= set(kept)


@pytest.mark.parametrize("labels", [LABELS, MULTI], ids=["classes", "several targets"])
@pytest.mark.parametrize("folds", [2, 5, 30])
def test_folds_part_the_samples(labels, folds):
    parts = [keep(labels, "Eval", fold=f"{i + 1}/{folds}") for i in range(folds)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for i, part in enumerate(parts):
        train = keep(labels, "Train", fold=f"{i + 1}/{folds}")
        np.testing.assert_array_equal(train, np.setdiff1d(np.arange(len(labels)), part))


def test_folds_have_all_classes_alike():
    counts = np.array([per_class(keep(mode="Eval", fold=f"{i}/5")) for i in range(1, 6)])
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_a_class_that_is_not_in_every_fold_is_told(caplog):
    with caplog.at_level(logging.WARNING, "ppcls"):
        keep(fold="1/5")
    assert "2 of 5 classes have fewer than 5 samples" in caplog.text


@pytest.mark.parametrize("mode", ["Train", "Eval"])
@pytest.mark.parametrize("part", [{"subset": 0.25}, {"few_shot": 3}])
def test_the_fold_comes_first(mode, part):
    fold = keep(mode=mode, fold="3/4")
    both = keep(mode=mode, fold="3/4", **part)
    assert set(both) < set(fold)
    counts = np.array(per_class(fold))
    if "subset" in part:
        assert len(both) == pytest.approx(len(fold) / 4, abs=2)
    else:
        assert per_class(both) == np.minimum(counts, 3).tolist()


@pytest.mark.parametrize("wanted", [{"subset": 0.3}, {"few_shot": 5}, {"fold": "1/3"}])
def test_a_choice_is_random_and_of_the_seed_only(wanted):
    np.testing.assert_array_equal(keep(seed=4, **wanted), keep(seed=4, **wanted))
    choices = {tuple(keep(seed=seed, **wanted)) for seed in range(200)}
    assert len(choices) == 200
    assert len(set().union(*choices)) == len(LABELS), "every sample is chosen some time"


def test_several_targets_a_sample():
    assert len(keep(MULTI, subset=0.5)) == 15
    with pytest.raises(ArgumentError, match="several targets"):
        keep(MULTI, few_shot=2)


def test_a_fold_may_be_written_with_blanks():
    assert fold_of(" 2 / 5") == (2, 5)


@pytest.mark.parametrize(
    "fold", ["", "2", "2/", "0/5", "6/5", "1/1", "-1/5", "1/5/2", "1.0/5", "²/5", "1/9999999999"]
)
def test_wrong_folds(fold):
    with pytest.raises(ArgumentError, match="expected 'i/k'") as caught:
        keep(fold=fold)
    assert caught.value.argument == "fold"


@pytest.mark.parametrize(
    ("argument", "wanted"),
    [
        ("subset", {"subset": 0.0}),
        ("subset", {"subset": 1.5}),
        ("few_shot", {"few_shot": 0}),
        ("few_shot", {"few_shot": 1, "subset": 0.5}),
        ("fold", {"fold": f"1/{len(LABELS) + 1}"}),
    ],
)
def test_impossible_parts(argument, wanted):
    with pytest.raises(ArgumentError) as caught:
        keep(**wanted)
    assert caught.value.argument == argument
