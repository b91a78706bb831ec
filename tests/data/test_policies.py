"""Augmentation policies: the published tables, and what a policy draws from them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ppcls.data.loader import DataLoader
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.data.transforms import augmix, autoaugment, randaugment
from ppcls.data.transforms.augmix import AugMix, Mixer
from ppcls.data.transforms.autoaugment import AutoAugment
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.operations import Canvas
from ppcls.data.transforms.policy import Action, apply_sub_policy
from ppcls.data.transforms.randaugment import RandAugment, RandAugmentV3
from ppcls.data.transforms.resize import ResizeImage
from ppcls.data.transforms.three_augment import ThreeAugment
from ppcls.data.worker import sample_generator
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS

POLICIES = {
    "AutoAugment": {},
    "RandAugment": {},
    "RandAugmentV2": {},
    "RandAugmentV3": {},
    "RandAugmentV4": {},
    "TrivialAugment": {},
    "AugMix": {"prob": 1.0},
    "ThreeAugment": {},
    "TimmAutoAugment": {},
}


class Fixed:
    """A generator whose draws are known; ``random()`` below a half makes a sign negative."""

    def __init__(self, value: float):
        self.value = value

    def random(self) -> float:
        return self.value


NEGATIVE, POSITIVE = Fixed(0.0), Fixed(0.9)


# Tables ----------------------------------------------------------------------------------------


def test_autoaugment_tables_are_the_paper_s():
    # arXiv:1805.09501, appendix: sub-policies 0, 10 and 24 of each of the three tables.
    rows = {
        "imagenet": [
            (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
            (("rotate", 0.8, 8), ("color", 0.4, 0)),
            (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
        ],
        "cifar10": [
            (("invert", 0.1, 7), ("contrast", 0.2, 6)),
            (("color", 0.7, 7), ("translate_x", 0.5, 8)),
            (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
        ],
        "svhn": [
            (("shear_x", 0.9, 4), ("invert", 0.2, 3)),
            (("shear_x", 0.9, 4), ("solarize", 0.3, 3)),
            (("shear_x", 0.7, 2), ("invert", 0.1, 5)),
        ],
    }
    for name, expected in rows.items():
        table = AutoAugment(policy=name).sub_policies
        assert len(table) == 25
        assert [table[row] for row in (0, 10, 24)] == expected
        used = {action for sub_policy in table for action, _, _ in sub_policy}
        assert used <= set(autoaugment.ACTIONS)


def test_a_sub_policy_goes_by_its_probabilities(photo, rng):
    picture = Image.fromarray(photo)
    actions = {"invert": Action("invert"), "solarize": Action("solarize", offset=100)}
    results = [
        apply_sub_policy(
            picture, (("invert", 0.3, 1), ("solarize", 0.6, 1)), actions, Canvas(), rng, 9
        ).tobytes()
        for _ in range(1000)
    ]
    solarized = ImageOps.solarize(picture, 100)
    for expected, count in (
        (picture, 280),  # 0.7 * 0.4 * 1000
        (ImageOps.invert(picture), 120),
        (solarized, 420),
        (ImageOps.solarize(ImageOps.invert(picture), 100), 180),
    ):
        assert abs(results.count(expected.tobytes()) - count) < 50


# Policies --------------------------------------------------------------------------------------


def test_rand_augment_draws_every_operation(photo):
    policy = RandAugment(num_layers=1, magnitude=5)
    picture, seen = Image.fromarray(photo), set()
    expected = {}
    for name, action in randaugment.V1.items():
        for sign in (NEGATIVE, POSITIVE):
            changed = action.apply(picture, 0.5, Canvas(), sign)
            expected[np.array(changed).tobytes()] = name
    for seed in range(300):
        seen.add(expected[policy(photo, np.random.default_rng(seed)).tobytes()])
    assert seen == set(expected.values())
    assert len(seen) >= 13  # on a smooth picture two may do the same


def test_rand_augment_applies_all_layers(photo):
    one, three = (RandAugment(num_layers=n)(photo, np.random.default_rng(4)) for n in (1, 3))
    assert not np.array_equal(one, three)
    np.testing.assert_array_equal(RandAugment(num_layers=0)(photo, np.random.default_rng(4)), photo)


def test_magnitude_grows_over_the_run(photo):
    first = RandAugment(num_layers=3, magnitude=[5, 15])
    assert (first.magnitude, first.magnitudes) == (5, (5, 15))
    later = first.at(0.7)
    assert (later.magnitude, first.magnitude) == (12, 5)
    for seed in range(5):
        fixed = RandAugment(num_layers=3, magnitude=12)(photo, np.random.default_rng(seed))
        np.testing.assert_array_equal(later(photo, np.random.default_rng(seed)), fixed)


@pytest.mark.parametrize("workers", [0, 1])
def test_readers_go_through_the_run(make_dataset, workers):
    ops = [DecodeImage(), ResizeImage(size=32), RandAugment(num_layers=3, magnitude=[0, 20])]
    dataset = make_dataset(transform_ops=ops)
    dataset.epochs = 11
    sampler = DistributedBatchSampler(4, sample_count=len(dataset))
    with DataLoader(dataset, sampler, seed=3, num_workers=workers) as reader:
        first, later = (next(reader.epoch(epoch)).images.copy() for epoch in (1, 6))
    for images, epoch, magnitude in ((first, 1, 0), (later, 6, 10)):
        fixed = make_dataset(transform_ops=[*ops[:2], RandAugment(3, magnitude)])
        expected = fixed.sample(0, sample_generator(3, epoch, 0))[0]
        np.testing.assert_array_equal(images[0], expected)


@pytest.mark.parametrize("magnitude", [[5], [9, 3], [-1, 4], [1, 2, 3]])
def test_magnitude_ranges_are_checked(magnitude):
    with pytest.raises(ArgumentError) as caught:
        RandAugment(magnitude=magnitude)
    assert caught.value.argument == "magnitude"


def test_the_fill_colour_comes_in(photo):
    white = np.full((40, 40, 3), 255, np.uint8)
    for fillcolor in ([9, 8, 7], None):
        policy = RandAugmentV3(num_layers=1, magnitude=10, fillcolor=fillcolor)
        policy._actions = (randaugment.V3["translate_x"],)
        for seed in range(10):
            moved = policy(white, np.random.default_rng(seed))
            outside = {tuple(pixel) for pixel in moved.reshape(-1, 3)} - {(255, 255, 255)}
            assert tuple(fillcolor or (0, 0, 0)) in outside


@pytest.mark.parametrize("fillcolor", [[1, 2], [1, 2, 256], [0.5, 0, 0]])
@pytest.mark.parametrize("name", ["AutoAugment", "RandAugment", "RandAugmentV2", "TrivialAugment"])
def test_fill_colours_are_checked(name, fillcolor):
    with pytest.raises(ArgumentError) as caught:
        TRANSFORMS.build(name, {"fillcolor": fillcolor})
    assert caught.value.argument == "fillcolor"


def test_augmix_weighs_its_copies(rng):
    black, white = np.zeros((4, 4, 3), np.uint8), Image.new("RGB", (4, 4), (255, 255, 255))
    shares = [
        np.array(Mixer(1.0, 3, 1).mixed(Image.fromarray(black), lambda p, r: white, rng))[0, 0, 0]
        for _ in range(600)
    ]
    # The copies have Beta(1, 1) together: uniform, of mean 127.5 and deviation 255 / sqrt(12).
    assert abs(np.mean(shares) - 127.5) < 9
    assert abs(np.std(shares) - 73.6) < 6


def test_augmix_of_unchanged_copies_is_the_picture(photo, rng):
    for depth in (1, 3, -1):
        mixed = Mixer(0.1, 4, depth).mixed(Image.fromarray(photo), lambda p, r: p, rng)
        np.testing.assert_array_equal(np.array(mixed), photo)


@pytest.mark.parametrize(("depth", "expected"), [(2, {6}), (-1, set(range(3, 10)))])
def test_augmix_chains_have_their_depth(depth, expected, rng):
    counts = set()
    for _ in range(200):
        calls: list[Image.Image] = []

        def operation(picture, rng, calls=calls):
            calls.append(picture)
            return picture

        Mixer(1.0, 3, depth).mixed(Image.new("RGB", (2, 2)), operation, rng)
        counts.add(len(calls))
    assert counts == expected


def test_augmix_prob_and_severity(photo):
    np.testing.assert_array_equal(AugMix(prob=0.0)(photo, np.random.default_rng(0)), photo)
    far = {1: 0.0, 10: 0.0}
    for severity in far:
        policy = AugMix(prob=1.0, aug_prob_coeff=1.0, aug_severity=severity)
        policy._actions = (augmix.ACTIONS["rotate"],)
        far[severity] = np.mean(
            [
                np.abs(policy(photo, np.random.default_rng(s)) - photo.astype(int)).mean()
                for s in range(20)
            ]
        )
    assert far[10] > 3 * far[1]


def test_three_augment_is_one_of_three(photo):
    picture, kinds = Image.fromarray(photo), []
    for seed in range(90):
        result = ThreeAugment(sigma=[1.5, 1.5])(photo, np.random.default_rng(seed))
        expected = {
            "grey": ImageEnhance.Color(picture).enhance(0),
            "solarized": ImageOps.solarize(picture, 128),
            "blurred": picture.filter(ImageFilter.GaussianBlur(1.5)),
        }
        [kind] = [k for k, e in expected.items() if np.array_equal(result, np.array(e))]
        kinds.append(kind)
    assert all(18 < kinds.count(kind) < 44 for kind in set(kinds))
    assert len(set(kinds)) == 3


@pytest.mark.parametrize("name", POLICIES)
def test_policies_draw_from_the_generator_only(name, photo):
    policy, view, before = TRANSFORMS.build(name, POLICIES[name]), photo[:, ::-1], photo.copy()
    results = [policy(view, np.random.default_rng(seed)) for seed in (1, 1, *range(2, 20))]
    np.testing.assert_array_equal(results[0], results[1])
    assert len({result.tobytes() for result in results}) > 5
    assert {(result.shape, result.dtype) for result in results} == {((60, 80, 3), photo.dtype)}
    np.testing.assert_array_equal(photo, before)


@pytest.mark.parametrize("name", POLICIES)
def test_draws_do_not_depend_on_the_pixels(name, photo):
    policy = TRANSFORMS.build(name, POLICIES[name])
    for seed in range(20):
        first, second = np.random.default_rng(seed), np.random.default_rng(seed)
        policy(photo, first)
        policy(np.zeros_like(photo), second)
        assert first.random() == second.random()
