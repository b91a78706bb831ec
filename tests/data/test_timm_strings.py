"""TimmAutoAugment: its strings, and what timm makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ppcls.data.transforms.autoaugment import IMAGENET
from ppcls.data.transforms.timm_autoaugment import TimmAutoAugment, noisy
from ppcls.data.transforms.timm_strings import Settings, parse
from ppcls.data.transforms.timm_tables import (
    AUGMIX,
    INCREASING,
    OF_THREE_AUGMENT,
    PLAIN,
    POLICIES,
    W0,
    WEIGHTS,
)
from ppcls.errors import ArgumentError


class Fixed:
    """A generator whose draws are known; ``random()`` below a half makes a sign negative."""

    def __init__(self, value: float):
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "rand-m9-mstd0.5-inc1",
            Settings("rand", magnitude=9, deviation=0.5, increasing=1),
        ),
        (
            "rand-m9-n3-w0-mstd0.5",
            Settings("rand", magnitude=9, deviation=0.5, layers=3, weight_set=0),
        ),
        ("rand", Settings("rand", magnitude=10, layers=2, probability=0.5, limit=10)),
        ("rand-p0.25-mmax15-m12", Settings("rand", magnitude=12, probability=0.25, limit=15)),
        ("rand-mstd101-tweights", Settings("rand", deviation=math.inf, choice="weights")),
        ("rand-mstdinf-t3aw-inc0", Settings("rand", deviation=math.inf, choice="3aw")),
        ("original-mstd0.5", Settings("original", deviation=0.5)),
        ("v0", Settings("v0")),
        ("3a", Settings("3a")),
        (
            "augmix-m5-w4-d2",
            Settings("augmix", magnitude=5, width=4, depth=2, deviation=math.inf),
        ),
        ("augmix-mstd0-a0.5-b1", Settings("augmix", 3, 0, alpha=0.5, blended=1)),
    ],
)
def test_strings(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("rnd-m9", "'rnd' in 'rnd-m9'; did you mean 'rand'?"),
        ("rand-m9-q3", "expected a key of m, n, p, mstd, mmax, inc, w, t and its value"),
        ("rand-m9-q3", "received 'q3' in 'rand-m9-q3'"),
        ("rand-m", "received 'm' in"),
        ("rand-m9-", "received '' in"),
        ("rand-n1.5", "expected an integer >= 1 behind 'n', received 'n1.5'"),
        ("rand-p2", "expected a number from 0 to 1 behind 'p', received 'p2'"),
        ("rand-minf", "behind 'm', received 'minf'"),
        ("rand-w1", "expected an integer from 0 to 0 behind 'w', received 'w1'"),
        ("rand-tnone", "expected one of weights, 3a, 3aw behind 't', received 'tnone'"),
        ("rand-m9-m5", "expected each key once"),
        ("rand-w0-t3aw", "either w or t"),
        ("original-m9", "expected a key of mstd and its value, received 'm9'"),
        ("augmix-n3", "expected a key of m, mstd, a, b, w, d and its value, received 'n3'"),
        ("rand-n14-w0", "expected at most n13 with weights, received n14"),
    ],
)
def test_wrong_strings_are_named(text, wrong):
    with pytest.raises(ArgumentError) as caught:
        TimmAutoAugment(config_str=text)
    assert caught.value.argument == "config_str"
    assert wrong in str(caught.value)


@pytest.mark.parametrize(
    ("table", "name", "magnitude", "expected"),
    [  # timm 1.0's `level_to_arg` at the magnitude
        (PLAIN, "posterize", 9, 3),
        (PLAIN, "solarize", 9, 230),
        (PLAIN, "solarize_add", 9, 99),
        (PLAIN, "color", 9, 1.72),
        (PLAIN, "translate_x", 10, 0.45),
        (PLAIN, "solarize", 15, 256),
        (PLAIN, "solarize_add", 15, 128),
        (INCREASING, "posterize", 9, 1),
        (INCREASING, "solarize", 9, 26),
        (INCREASING, "solarize", 15, 0),
        (INCREASING, "color", 9, 1.81),
        (INCREASING, "rotate", 9, 27),
        (POLICIES["original"][1], "posterize", 8, 7),
        (POLICIES["originalr"][1], "posterize", 8, 1),
        (POLICIES["v0"][1], "posterize", 6, 2),
        (POLICIES["v0r"][1], "posterize", 6, 2),
        (AUGMIX, "translate_y", 5, 0.15),
        (OF_THREE_AUGMENT, "desaturate", 10, 0),
        (OF_THREE_AUGMENT, "desaturate", 0, 0.5),
        (OF_THREE_AUGMENT, "gaussian_blur", 5, 1.05),
    ],
)
def test_what_a_magnitude_means_to_timm(table, name, magnitude, expected):
    assert table[name].amount(magnitude / 10, Fixed(0.9)) == pytest.approx(expected)


def test_enhancements_stay_above_a_tenth(rng):
    amounts = {INCREASING["contrast"].amount(1.5, rng) for _ in range(20)}
    assert amounts == {0.1, 2.35}


def test_noise_on_the_magnitude(rng):
    draws = np.array([noisy(5, Settings("rand", deviation=0.5), rng) for _ in range(2000)])
    assert abs(draws.mean() - 5) < 0.05
    assert abs(draws.std() - 0.5) < 0.03
    cut = [noisy(9.8, Settings("rand", deviation=0.5), rng) for _ in range(200)]
    assert max(cut) == 10  # cut off, unless `mmax` says otherwise
    assert max(noisy(12, Settings("rand", limit=15, deviation=1), rng) for _ in range(99)) > 13
    assert min(noisy(0.1, Settings("rand", deviation=1), rng) for _ in range(99)) == 0
    assert noisy(15, Settings("rand"), rng) == 10
    uniform = np.array([noisy(8, Settings("rand", deviation=math.inf), rng) for _ in range(2000)])
    assert uniform.max() < 8
    assert abs(uniform.mean() - 4) < 0.2


def test_tables_are_timm_s():
    assert [len(table) for table, _ in POLICIES.values()] == [25, 25, 25, 25, 3]
    assert POLICIES["original"][0] is IMAGENET
    v0, _ = POLICIES["v0"]
    assert v0[0] == (("equalize", 0.8, 1), ("shear_y", 0.8, 4))
    assert v0[15] == (("rotate", 1.0, 7), ("translate_y", 0.8, 9))
    assert v0[22] == (("posterize", 0.8, 2), ("solarize", 0.6, 10))
    assert len(PLAIN) == len(INCREASING) == len(W0) == len(WEIGHTS) == 15
    assert sum(W0.values()) == pytest.approx(1)
    assert len(AUGMIX) == 13


def applied(text, photo, seeds, table, level):
    """Names of what one-layer policies did, from the pictures that they gave."""
    expected = {}
    for name, action in table.items():
        for value in (0.1, 0.9):
            canvas = TimmAutoAugment()._canvas
            changed = action.apply(Image.fromarray(photo), level, canvas, Fixed(value))
            expected.setdefault(np.array(changed).tobytes(), name)
    policy = TimmAutoAugment(config_str=text)
    return [expected.get(policy(photo, np.random.default_rng(s)).tobytes()) for s in seeds]


def test_rand_applies_half_of_its_layers(photo):
    policy = TimmAutoAugment(config_str="rand-m9-n1-inc1")
    kept = [np.array_equal(policy(photo, np.random.default_rng(s)), photo) for s in range(300)]
    assert 120 < sum(kept) < 195
    always = TimmAutoAugment(config_str="rand-m9-n1-p1-inc1")
    kept = [np.array_equal(always(photo, np.random.default_rng(s)), photo) for s in range(100)]
    assert sum(kept) < 20  # the photo is contrasty and sharp already


def test_rand_follows_the_weights(photo):
    names = applied("rand-m9-n1-p1-w0", photo, range(400), PLAIN, 0.9)
    assert None not in names
    assert "invert" not in names
    assert abs(names.count("rotate") - 120) < 30
    moved = sum(name in ("shear_x", "shear_y", "translate_x", "translate_y") for name in names)
    assert abs(moved - 240) < 30


@pytest.mark.parametrize(
    ("text", "table"), [("rand-m2-n1-p1", PLAIN), ("rand-m2-n1-p1-inc1", INCREASING)]
)
def test_inc_chooses_what_magnitudes_mean(text, table, photo):
    names = applied(text, photo, range(200), table, 0.2)
    assert None not in names
    assert {"posterize", "solarize", "color", "contrast", "rotate"} <= set(names)


def test_three_augment_by_name(rng):
    noise = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    policy = TimmAutoAugment(config_str="3a")
    results = {policy(noise, np.random.default_rng(seed)).tobytes() for seed in range(30)}
    assert ImageOps.solarize(Image.fromarray(noise), 128).tobytes() in results
    assert ImageEnhance.Color(Image.fromarray(noise)).enhance(0).tobytes() in results
    assert len(results) > 8  # blurs of many widths


@pytest.mark.parametrize(
    "text", ["augmix-m5-w4-d2", "augmix", "original-mstd0.5", "originalr", "v0r", "rand-t3a-m5"]
)
@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (1, 7)])
def test_any_shape(text, shape, photo):
    picture = np.resize(photo, (*shape, 3))
    policy = TimmAutoAugment(config_str=text)
    results = [policy(picture, np.random.default_rng(seed)) for seed in (1, 1, *range(2, 12))]
    np.testing.assert_array_equal(results[0], results[1])
    assert {result.shape for result in results} == {picture.shape}
    if shape != (1, 7):
        assert len({result.tobytes() for result in results}) > 3


def test_the_mean_comes_in():
    white = np.full((40, 40, 3), 255, np.uint8)
    for arguments, colour in (
        ({}, (124, 116, 104)),  # 255 times ImageNet's mean, rounded
        ({"mean": [0.5, 0.5, 0.5]}, (128, 128, 128)),
    ):
        policy = TimmAutoAugment(config_str="rand-m9-n1-p1-w0", **arguments)
        found = set()
        for seed in range(10):
            found |= set(map(tuple, policy(white, np.random.default_rng(seed)).reshape(-1, 3)))
        assert colour in found


def test_prob(photo):
    policy = TimmAutoAugment(prob=0.3, config_str="rand-m9-n3-p1-inc1")
    kept = [np.array_equal(policy(photo, np.random.default_rng(s)), photo) for s in range(200)]
    assert 110 < sum(kept) < 170


@pytest.mark.parametrize(("argument", "value"), [("mean", [0.5]), ("img_size", [1, 2, 3])])
def test_arguments_are_checked(argument, value):
    with pytest.raises(ArgumentError) as caught:
        TimmAutoAugment(**{argument: value})
    assert caught.value.argument == argument
