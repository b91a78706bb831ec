"""RandomErasing, Cutout, HideAndSeek and GridMask: what they hide, how often, and with what."""

from __future__ import annotations

import numpy as np
import pytest

from ppcls.data.pipeline import Pipeline
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.erase import Cutout, GridMask, HideAndSeek, RandomErasing
from ppcls.data.transforms.normalize import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalize,
    NormalizeImage,
    ToCHWImage,
    ToTensor,
)
from ppcls.errors import ArgumentError

WHITE = np.full((100, 160, 3), 255, np.uint8)
ALWAYS = {
    "RandomErasing": RandomErasing(EPSILON=1.0),
    "Cutout": Cutout(length=40),
    "HideAndSeek": HideAndSeek(grid_sizes=[16]),
    "GridMask": GridMask(d1=20, d2=40, rotate=90),
}


def hidden(transform, seed, picture=WHITE):
    return (transform(picture, np.random.default_rng(seed)) != picture).any(axis=2)


def extent(mask):
    """(left, top, width, height) of what is hidden, and whether that is a full rectangle."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    return (columns[0], rows[0], width, height), mask.sum() == width * height


@pytest.mark.parametrize("name", ALWAYS)
def test_layouts_and_types_hide_the_same(name):
    transform, picture = ALWAYS[name], np.full((100, 160, 3), 0.5, np.float32)
    mask = hidden(transform, 1)
    assert 0 < mask.mean() < 1
    floats = transform(picture, np.random.default_rng(1))
    assert floats.dtype == np.float32
    assert picture.min() == 0.5  # the argument stays as it was
    np.testing.assert_array_equal((floats == 0).all(axis=2), mask)
    first = transform(picture.transpose(2, 0, 1), np.random.default_rng(1))
    np.testing.assert_array_equal(first, floats.transpose(2, 0, 1))
    mirrored = transform(picture[:, ::-1], np.random.default_rng(1))
    np.testing.assert_array_equal(mirrored, floats)


@pytest.mark.parametrize("name", ALWAYS)
def test_lists_may_hide_before_and_behind_the_normalisation(name):
    normalize = NormalizeImage(order="")
    for middle in ([ALWAYS[name], normalize], [normalize, ALWAYS[name]]):
        pipeline = Pipeline([DecodeImage(), *middle, ToCHWImage()])
        image = pipeline.image(WHITE, np.random.default_rng(1))
        batch = pipeline.batch(image[None])
        value = -0.485 / 0.229 if middle[1] is normalize else 0.0
        covered = abs(batch[0, 0] - value) < 1e-6
        np.testing.assert_array_equal(covered, hidden(ALWAYS[name], 1))


def test_erasing_draws_as_torchvision():
    erasing = RandomErasing(EPSILON=1.0, use_log_aspect=True)
    drawn = [extent(hidden(erasing, seed)) for seed in range(4000)]
    assert all(full for _, full in drawn)
    # left, top, width, height: torchvision 0.29, RandomErasing.get_params on 160 x 100 pixels
    # with scale (0.02, 0.4) and ratio (0.3, 1 / 0.3), which is log-uniform: 50 000 draws.
    means = np.array([box for box, _ in drawn]).mean(axis=0)
    assert abs(means / (49.825, 23.690, 60.346, 52.598) - 1).max() < 0.04


def test_erasing_draws_the_aspect_itself_by_default():
    boxes = [extent(hidden(RandomErasing(EPSILON=1.0, sh=0.05), seed))[0] for seed in range(2000)]
    tall = np.mean([height > width for _, _, width, height in boxes])
    # Uniform in [0.3, 1 / 0.3]: 0.77 lies above 1, but half on a logarithmic scale.
    assert abs(tall - 0.77) < 0.04


def test_erasing_happens_as_often_as_epsilon_says():
    erased = [hidden(RandomErasing(EPSILON=0.25), seed).any() for seed in range(1000)]
    assert 210 < sum(erased) < 290


def test_erasing_gives_up_on_what_cannot_fit():
    for thin in (WHITE[:1], WHITE[:, :1]):  # a rectangle is smaller than the picture on both sides
        assert not hidden(RandomErasing(EPSILON=1.0, sl=0.3), 0, thin).any()


def test_erasing_modes_on_floats():
    picture, seed = np.full((60, 80, 3), 5.0, np.float32), np.random.default_rng(3)

    def colours(mode, **arguments):
        result = RandomErasing(1.0, 0.2, 0.4, mode=mode, **arguments)(picture, seed)
        return result[(result != 5).all(axis=2)]

    assert np.unique(colours("const", mean=[0.1, 0.2, 0.3]), axis=0).tolist() == [
        np.float32([0.1, 0.2, 0.3]).tolist()
    ]
    assert len(np.unique(colours("rand"), axis=0)) == 1
    pixels = np.concatenate([colours("pixel") for _ in range(20)])
    assert len(np.unique(pixels, axis=0)) == len(pixels)
    assert abs(pixels.mean()) < 0.03
    assert abs(pixels.std() - 1) < 0.03


def test_erasing_bytes_look_like_normal_numbers_behind_the_normalisation(rng):
    grey = np.full((200, 200, 3), 128, np.uint8)
    result = RandomErasing(1.0, 0.3, 0.4, mode="pixel")(grey, rng)
    erased = NormalizeImage(order="")(result, rng)[(result != grey).any(axis=2)]
    assert abs(erased.mean()) < 0.05  # a little off, because bytes end at 0 and 255
    assert abs(erased.std() - 0.95) < 0.05


def test_cutout_hides_squares_around_any_pixel():
    covered = np.zeros((100, 160))
    cut_off = {"left": set(), "right": set(), "top": set(), "bottom": set()}
    for seed in range(1500):
        mask = hidden(Cutout(length=31), seed)
        (left, top, width, height), full = extent(mask)
        assert full
        assert width == 31 or left == 0 or left + width == 160
        assert height == 31 or top == 0 or top + height == 100
        if left == 0 or left + width == 160:
            cut_off["right" if left else "left"].add(int(width))
        if top == 0 or top + height == 100:
            cut_off["bottom" if top else "top"].add(int(height))
        covered += mask
    # In the paper the centre lies within the picture, so that half a square is left at least.
    assert all(lengths == set(range(16, 32)) for lengths in cut_off.values())
    # Of the 16 000 centres 256 cover a corner, and 961 a pixel far from the border.
    assert max(abs(covered[row, column] - 24) for row in (0, -1) for column in (0, -1)) < 18
    assert abs(covered[40:60, 60:100].mean() - 90) < 15


def test_cutout_fills(photo):
    one = Cutout(length=20, fill_value=[7, 8, 9])(WHITE, np.random.default_rng(0))
    assert np.unique(one.reshape(-1, 3), axis=0).tolist() == [[7, 8, 9], [255, 255, 255]]
    for fill in (None, "none"):
        many = Cutout(n_holes=5, length=8, fill_value=fill)(WHITE, np.random.default_rng(0))
        assert len(np.unique(many.reshape(-1, 3), axis=0)) > 3
    default = Cutout()(photo, np.random.default_rng(0))  # the published one raised here
    assert (default == 0).all(axis=2).mean() > 0.2


def test_hide_and_seek_hides_cells_of_a_grid():
    mask = hidden(HideAndSeek(grid_sizes=[32], hide_prob=0.5), 0)
    cells = mask[16::32, 16::32]
    np.testing.assert_array_equal(mask[:96], cells[:3].repeat(32, 0).repeat(32, 1))
    assert (mask[96:] == mask[96]).all()  # the last row of cells is cut off
    shares = [
        hidden(HideAndSeek(grid_sizes=[16], hide_prob=0.3), seed).mean() for seed in range(99)
    ]
    assert abs(np.mean(shares) - 0.3) < 0.02


def test_hide_and_seek_leaves_a_fifth_of_the_pictures():
    whole = [not hidden(HideAndSeek(), seed).any() for seed in range(500)]
    assert 80 < sum(whole) < 140  # and a few of which no large square was hidden


@pytest.mark.parametrize(("mode", "kept"), [(0, 0.25), (1, 0.75)])
@pytest.mark.parametrize("rotate", [1, 90])
def test_grid_mask_keeps_what_the_ratio_says(mode, kept, rotate):
    mask = GridMask(d1=10, d2=30, rotate=rotate, ratio=0.5, mode=mode)
    shares = [1 - hidden(mask, seed).mean() for seed in range(60)]
    assert abs(np.mean(shares) - kept) < 0.03
    assert min(shares) > kept - 0.15  # no black corners when turned


def test_grid_mask_is_periodic():
    mask = hidden(GridMask(d1=20, d2=21, ratio=0.3), 4)
    np.testing.assert_array_equal(mask[20:], mask[:-20])
    np.testing.assert_array_equal(mask[:, 20:], mask[:, :-20])
    columns, rows = mask.all(axis=0), mask.all(axis=1)
    assert columns[:20].sum() == rows[:20].sum() == 6
    np.testing.assert_array_equal(mask, rows[:, None] | columns)


def test_grid_mask_draws_place_distance_and_angle():
    first, distances, aligned = set(), set(), 0
    for seed in range(200):
        mask = hidden(GridMask(d1=20, d2=24), seed)
        columns = np.flatnonzero(np.diff(mask.all(axis=0).astype(int)) == 1) + 1
        distances.update(np.diff(columns).tolist())
        first.add(int(columns[0]))
        turned = hidden(GridMask(d1=20, d2=24, rotate=45), seed)
        aligned += turned.all(axis=0).any()
    assert distances == {20, 21, 22, 23}
    assert len(first) > 18
    assert aligned < 80  # of 200: those turned by a few degrees, which a thick bar still spans


def test_grid_mask_probability():
    masked = [hidden(GridMask(d1=10, d2=30, prob=0.7), seed).any() for seed in range(500)]
    assert 310 < sum(masked) < 390
    growing = GridMask(prob=0.6, ramp=0.8)
    assert [growing.at(progress).prob for progress in (0, 0.4, 0.8, 1)] == [0, 0.3, 0.6, 0.6]
    assert GridMask(prob=0.6).at(0).prob == 0.6


@pytest.mark.parametrize(
    ("transform", "given", "argument"),
    [
        (RandomErasing, {"sl": 0.5, "sh": 0.4}, "sh"),
        (RandomErasing, {"mode": "noise"}, "mode"),
        (RandomErasing, {"mean": [0.0]}, "mean"),
        (Cutout, {"fill_value": [1, 2]}, "fill_value"),
        (HideAndSeek, {"grid_sizes": []}, "grid_sizes"),
        (GridMask, {"d1": 50, "d2": 50}, "d2"),
        (GridMask, {"mode": 2}, "mode"),
    ],
)
def test_arguments_are_checked(transform, given, argument):
    with pytest.raises(ArgumentError) as caught:
        transform(**given)
    assert caught.value.argument == argument


def test_a_published_list_may_erase_behind_channels_first():
    """As the re-identification recipes do: ToTensor, Normalize, RandomErasing."""
    ops = [DecodeImage(), ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    erasing = RandomErasing(EPSILON=1.0, sl=0.2, sh=0.3)
    image = np.full((8, 9, 3), 255, np.uint8)
    pictures = Pipeline([*ops, erasing]).image(image, np.random.default_rng(0))
    assert pictures.shape == (3, 8, 9)
    hidden = (pictures == 0).all(0)
    assert 0.15 * 72 < hidden.sum() < 0.35 * 72
    assert (pictures[:, ~hidden] != 0).all()
