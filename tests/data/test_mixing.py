"""Batch transforms: what becomes of pixels and targets, on arrays and on tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ppcls.data.mixing.base import BatchTransform, batch_generator
from ppcls.data.mixing.cutmix import CutmixOperator
from ppcls.data.mixing.fmix import FmixOperator
from ppcls.data.mixing.hybrid import MixupCutmixHybrid
from ppcls.data.mixing.mixup import MixupOperator
from ppcls.data.mixing.sampler import OpSampler
from ppcls.data.worker import sample_generator
from ppcls.errors import ArgumentError

MakeTransform = Callable[[], BatchTransform]

CLASSES = 7
TRANSFORMS: dict[str, MakeTransform] = {
    "mixup": lambda: MixupOperator(0.8),
    "cutmix": lambda: CutmixOperator(1.0),
    "fmix": lambda: FmixOperator(),
    "soft fmix": lambda: FmixOperator(max_soft=0.2),
    "sampler": lambda: OpSampler([(MixupOperator(0.8), 0.5), (CutmixOperator(1.0), 0.5)]),
    "hybrid batch": lambda: MixupCutmixHybrid(0.8, 1.0, label_smoothing=0.0),
    "hybrid pair": lambda: MixupCutmixHybrid(0.8, 1.0, mode="pair", label_smoothing=0.0),
    "hybrid elem": lambda: MixupCutmixHybrid(0.8, 1.0, mode="elem", label_smoothing=0.0),
    "hybrid range": lambda: MixupCutmixHybrid(0.8, cutmix_minmax=[0.2, 0.8], label_smoothing=0.0),
}
CUTTING: dict[str, MakeTransform] = {
    "cutmix": TRANSFORMS["cutmix"],
    "fmix": TRANSFORMS["fmix"],
    "hybrid batch": lambda: MixupCutmixHybrid(0.0, 1.0, label_smoothing=0.0),
    "hybrid pair": lambda: MixupCutmixHybrid(0.0, 1.0, mode="pair", label_smoothing=0.0),
    "hybrid elem": lambda: MixupCutmixHybrid(0.0, 1.0, mode="elem", label_smoothing=0.0),
    "hybrid range": lambda: MixupCutmixHybrid(0.0, cutmix_minmax=[0.2, 0.8], label_smoothing=0.0),
}


def batch(count: int, height: int = 12, width: int = 17) -> tuple[np.ndarray, np.ndarray]:
    """Pictures that are all 1 in the channel of their own number; each is a class of its own."""
    identity = np.eye(count, dtype=np.float32)
    images = np.broadcast_to(identity[:, :, None, None], (count, count, height, width)).copy()
    return images, identity.copy()


def drawn(make: MakeTransform, count: int, number: int, **size: int) -> Any:
    return make()(*batch(count, **size), np.random.default_rng(number))


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_targets_are_the_shares_of_the_pixels(name: str, count: int) -> None:
    mixtures = 0
    for number in range(20):
        images, targets = drawn(TRANSFORMS[name], count, number)
        assert images.dtype == targets.dtype == np.float32
        np.testing.assert_allclose(images.mean(axis=(2, 3), dtype=np.float64), targets, atol=1e-6)
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
        mixtures += ((targets > 0).sum(axis=1) > 1).any()
    assert (mixtures > 0) == (count > 1)


@pytest.mark.parametrize("name", CUTTING)
def test_a_pixel_is_of_one_picture_and_stays_at_its_place(name: str) -> None:
    rng = np.random.default_rng(0)
    given = rng.normal(size=(5, 3, 12, 17)).astype(np.float32)
    targets = np.eye(5, dtype=np.float32)
    for number in range(20):
        images, mixture = CUTTING[name]()(given, targets, np.random.default_rng(number))
        same = (images[:, None] == given[None]).all(axis=2)  # [N, which, H, W]
        assert (same.sum(axis=1) == 1).all()
        np.testing.assert_array_equal(same.mean(axis=(2, 3)).astype(np.float32), mixture)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_tensor_is_mixed_as_an_array_is(name: str) -> None:
    paddle = pytest.importorskip("paddle")
    given, targets = np.random.default_rng(1).normal(size=(5, 3, 9, 8)), np.eye(5)
    arrays = given.astype(np.float32), targets.astype(np.float32)
    tensors = paddle.to_tensor(arrays[0]), paddle.to_tensor(arrays[1])
    for number in range(5):
        expected = TRANSFORMS[name]()(*arrays, np.random.default_rng(number))
        found = TRANSFORMS[name]()(*tensors, np.random.default_rng(number))
        for array, tensor in zip(expected, found, strict=True):
            assert tensor.dtype == paddle.float32
            np.testing.assert_allclose(tensor.numpy(), array, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_given_is_not_written_to(name: str) -> None:
    images, targets = batch(4)
    images.flags.writeable = targets.flags.writeable = False
    TRANSFORMS[name]()(images, targets, np.random.default_rng(3))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_generator_decides_all(name: str) -> None:
    np.random.seed(0)
    first = drawn(TRANSFORMS[name], 4, number=5)
    np.random.seed(1)
    again, other = drawn(TRANSFORMS[name], 4, number=5), drawn(TRANSFORMS[name], 4, number=6)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any()


def test_several_classes_of_one_picture_are_mixed_too() -> None:
    images, _ = batch(2)
    targets = np.array([[1, 1, 0], [0, 1, 1]], np.float32)
    hybrid = MixupCutmixHybrid(label_smoothing=0.0)
    _, mixture = hybrid(images, targets, np.random.default_rng(1))
    own = mixture[0, 0]
    assert 0 < own < 1
    np.testing.assert_allclose(mixture, [[own, 1, 1 - own], [1 - own, 1, own]], atol=1e-6)


# Distributions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "variance"), [(0.2, 0.25 / 1.4), (1.0, 1 / 12)])
def test_the_share_of_mixup_is_drawn_from_a_beta_distribution(
    alpha: float, variance: float
) -> None:
    """Of Beta(a, a) the mean is 1/2 and the variance 1 / (4 (2 a + 1))."""
    rng = np.random.default_rng(0)
    images, targets = batch(2, height=1, width=1)
    mixtures = [MixupOperator(alpha)(images, targets, rng)[1] for _ in range(4000)]
    # Half of the orders leave each picture at its place: its target is that of a single class.
    shares = np.array([m[0, 0] for m in mixtures if (m[0] < 1).all()])
    assert 1800 < len(shares) < 2200
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(variance, abs=0.01)


def test_the_box_is_of_the_drawn_area_about_any_pixel() -> None:
    """Section 3.1: sides W sqrt(1 - share) and H sqrt(1 - share), the centre uniform."""
    rng = np.random.default_rng(0)
    boxes = [CutmixOperator(1.0)(*batch(2, 40, 60), rng)[0][0, 1] for _ in range(400)]
    cut = [box for box in boxes if 0 < box.mean() < 1]
    extents = []
    for box in cut:
        rows, columns = np.flatnonzero(box.any(axis=1)), np.flatnonzero(box.any(axis=0))
        assert box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        if rows[0] > 0 and rows[-1] < 39 and columns[0] > 0 and columns[-1] < 59:
            extents.append((len(rows), len(columns)))
    ratios = [width / height for height, width in extents if height > 10]
    assert len(ratios) > 10
    assert np.allclose(ratios, 60 / 40, atol=0.15)
    touched = np.mean(cut, axis=0)
    assert touched.min() > 0, "a corner may be in the box too"
    assert touched[20, 30] > touched[0, 0]


def test_masks_of_fmix_are_coherent_and_of_any_share() -> None:
    """Section 4.1: a steeper decay leaves fewer edges; the share comes from Beta(1, 1)."""
    edges = {}
    for decay in (0.0, 1.5, 3.0):
        make = lambda decay=decay: FmixOperator(decay_power=decay)  # noqa: E731
        masks = [drawn(make, 2, i, height=32, width=48)[0][0, 0] for i in range(150)]
        mixed = [mask for mask in masks if 0 < mask.mean() < 1]
        edges[decay] = np.mean([np.abs(np.diff(m, axis=a)).mean() for m in mixed for a in (0, 1)])
        shares = [mask.mean() for mask in mixed]
        assert np.mean(shares) == pytest.approx(0.5, abs=0.1)
        assert np.std(shares) == pytest.approx(12**-0.5, abs=0.06)
    assert edges[0.0] > 3 * edges[1.5] > 6 * edges[3.0]


def test_soft_edges_and_the_reformulation_of_fmix() -> None:
    images, targets = drawn(lambda: FmixOperator(max_soft=0.25), 2, 5, height=32, width=32)
    steps = np.unique(images[0, 0])
    share = targets[0, 0]
    assert 0 < share < 1
    assert len(steps) == pytest.approx(2 * 32 * 32 * min(0.25, share, 1 - share), abs=3)

    def kept(**arguments: Any) -> float:
        pairs = [drawn(lambda: FmixOperator(**arguments), 2, i)[1][0] for i in range(400)]
        return float(np.mean([own for own, other in pairs if other > 0]))

    assert kept() == pytest.approx(1 / 2, abs=0.07)
    assert kept(reformulate=True) == pytest.approx(2 / 3, abs=0.07)  # the mean of Beta(2, 1)


# The choice among several -------------------------------------------------------------------------


class Adds(BatchTransform):
    def __init__(self, number: float):
        self.number = number

    def __call__(self, images: Any, targets: Any, rng: np.random.Generator) -> Any:
        return images + np.float32(self.number), targets


def test_one_of_several_or_none_is_chosen_as_likely_as_it_should() -> None:
    sampler = OpSampler([(Adds(1), 0.2), (Adds(2), 0.5)])
    rng = np.random.default_rng(0)
    given = batch(1, 1, 1)
    found = [int(sampler(*given, rng)[0][0, 0, 0, 0]) - 1 for _ in range(5000)]
    counts = np.bincount(found) / len(found)
    np.testing.assert_allclose(counts, [0.3, 0.2, 0.5], atol=0.02)


def test_probabilities_of_one_leave_no_batch_as_it_is() -> None:
    sampler = OpSampler([(Adds(1), 0.1), (Adds(2), 0.2), (Adds(3), 0.7)])
    rng = np.random.default_rng(0)
    assert all(sampler(*batch(1, 1, 1), rng)[0].max() > 1 for _ in range(500))
    with pytest.raises(ArgumentError, match=r"at most 1, received 0\.8 \+ 0\.5"):
        OpSampler([(Adds(1), 0.8), (Adds(2), 0.5)])


# The hybrid ---------------------------------------------------------------------------------------


def test_the_hybrid_draws_for_the_batch_for_pairs_or_for_each() -> None:
    def own(mode: Any) -> np.ndarray:
        make = lambda: MixupCutmixHybrid(0.8, mode=mode, label_smoothing=0.0)  # noqa: E731
        return np.diag(drawn(make, 6, number=0)[1])

    assert len(np.unique(own("batch"))) == 1
    pairs = own("pair")
    np.testing.assert_array_equal(pairs, pairs[::-1])
    assert len(np.unique(pairs)) == 3
    assert len(np.unique(own("elem"))) == 6


def test_a_pair_shares_one_box() -> None:
    images, _ = drawn(CUTTING["hybrid pair"], 4, number=1)
    boxes = [images[i, 3 - i] for i in range(4)]
    assert 0 < boxes[0].mean() < 1
    np.testing.assert_array_equal(boxes[0], boxes[3])
    np.testing.assert_array_equal(boxes[1], boxes[2])


def test_the_probabilities_of_the_hybrid() -> None:
    def kinds(**arguments: Any) -> np.ndarray:
        """Shares of pictures that are whole, mixed all over, and cut."""
        hybrid = MixupCutmixHybrid(mode="elem", label_smoothing=0.0, **arguments)
        images, _ = hybrid(*batch(300, 4, 4), np.random.default_rng(0))
        own = images[np.arange(300), np.arange(300)].reshape(300, -1)
        cut = ((own == 0) | (own == 1)).all(axis=1) & (own == 0).any(axis=1)
        whole = (own == 1).all(axis=1)
        return np.array([whole.mean(), 1 - whole.mean() - cut.mean(), cut.mean()])

    np.testing.assert_allclose(kinds(prob=0.4), [0.6, 0.4, 0], atol=0.08)
    both = kinds(prob=1.0, cutmix_minmax=[0.5, 0.5], switch_prob=0.3)
    np.testing.assert_allclose(both, [0, 0.7, 0.3], atol=0.08)
    assert kinds(mixup_alpha=0.0, cutmix_minmax=[0.5, 0.5])[2] == 1.0


def test_smoothing_and_the_uncorrected_share() -> None:
    make = lambda: MixupCutmixHybrid(label_smoothing=0.1)  # noqa: E731
    plain = lambda: MixupCutmixHybrid(label_smoothing=0.0)  # noqa: E731
    smooth, sharp = drawn(make, 4, 0)[1], drawn(plain, 4, 0)[1]
    np.testing.assert_allclose(smooth, 0.9 * sharp + 0.1 / 4, atol=1e-6)
    clipped = 0
    for number in range(20):
        make = lambda: MixupCutmixHybrid(0, 1, correct_lam=False, label_smoothing=0)  # noqa: E731
        images, targets = drawn(make, 2, number)
        clipped += targets[0, 1] > images[0, 1].mean() + 0.05
    assert clipped > 5, "a box at the edge counts as if it were whole"


@pytest.mark.parametrize("sides", [[0.5], [0.8, 0.2], [-0.1, 0.5], [0.5, 1.5]])
def test_sides_that_are_no_range(sides: list[float]) -> None:
    with pytest.raises(ArgumentError, match=r"expected \[min, max\] with 0 <= min <= max <= 1"):
        MixupCutmixHybrid(cutmix_minmax=sides)


def test_a_hybrid_of_nothing() -> None:
    with pytest.raises(ArgumentError, match="received none of them"):
        MixupCutmixHybrid(0.0, 0.0)


# Streams ------------------------------------------------------------------------------------------


def test_every_batch_has_random_numbers_of_its_own() -> None:
    keys = [(s, e, b, r) for s in (0, 7) for e in (1, 2) for b in (0, 1) for r in (0, 1)]
    numbers = {batch_generator(*key).integers(2**63) for key in keys}
    numbers |= {sample_generator(*key[:3]).integers(2**63) for key in keys if key[3] == 0}
    assert len(numbers) == 16 + 8
    assert batch_generator(7, 2, 1, 0).random() == batch_generator(7, 2, 1, 0).random()
