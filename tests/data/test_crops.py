"""The crops beside CropImage and RandCropImage, pixel by pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ppcls.data.transforms.crops import (
    CenterCrop,
    CropImageAtRatio,
    CropWithPadding,
    RandomCropImage,
    RandomResizedCrop,
)
from ppcls.data.transforms.resize import ResizeImage
from ppcls.errors import ArgumentError, DataError
from ppcls.registry import TRANSFORMS


def boxes(crop, width, height, count=20000):
    rng = np.random.default_rng(1)
    return np.array([crop.box(width, height, rng) for _ in range(count)]).T


def test_center_crop_takes_height_first_and_rounds_as_paddle_vision(rng):
    numbers = np.arange(70, dtype=np.uint8).reshape(7, 10)
    picture = np.repeat(numbers[..., None], 3, axis=2)
    # First and last pixels that paddle.vision 3.3 and torchvision 0.29 both keep: margins of 1.5
    # and 2.5 pixels become 2.
    for size, first, last in (([4, 5], 22, 56), ([2, 3], 24, 36)):
        part = CenterCrop(size=size)(picture, rng)
        assert part.shape[:2] == tuple(size)
        assert (part[0, 0, 0], part[-1, -1, 0]) == (first, last)
    assert CenterCrop(size=[4, 5]).size == (5, 4)
    assert CenterCrop(size=6)(picture, rng).shape == (6, 6, 3)


@pytest.mark.parametrize("size", [61, [61, 10], [10, 81]])
def test_crops_larger_than_the_picture_are_errors(size, photo, rng):
    across = size if isinstance(size, int) else size[::-1]
    for crop in (CenterCrop(size), RandomCropImage(across)):
        with pytest.raises(DataError, match="received 80 x 60"):
            crop(photo, rng)


@pytest.mark.parametrize("size", [0, [3], [3, 0], [1, 2, 3]])
def test_height_first_sizes_are_checked(size):
    for name in ("CenterCrop", "RandomResizedCrop", "Resize"):
        with pytest.raises(ArgumentError, match=r"\[height, width\]") as caught:
            TRANSFORMS.build(name, {"size": size})
        assert caught.value.argument == "size"


def test_crop_at_ratio_is_resize_and_crop_in_one(photo, rng):
    crop = CropImageAtRatio(size=28, pad=4)
    part = photo[4:56, 14:66]  # 28 / (28 + 4) of 60 is 52
    expected = cv2.resize(part, (28, 28), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(crop(photo, rng), expected)
    tiny = photo[:3, :2]  # where the published rule would keep 224 / 256 of 2 pixels: one
    assert CropImageAtRatio(size=224, pad=32)(tiny, rng).shape == (224, 224, 3)


@pytest.mark.parametrize("name", ["RandCropImageV2", "RandomCropImage"])
def test_random_crop_is_a_part_of_the_size(name, photo):
    crop = TRANSFORMS.build(name, {"size": [30, 20]})
    left, top, *_ = crop.box(80, 60, np.random.default_rng(3))
    part = crop(photo, np.random.default_rng(3))
    np.testing.assert_array_equal(part, photo[top : top + 20, left : left + 30])
    whole = TRANSFORMS.build(name, {"size": [80, 60]})
    np.testing.assert_array_equal(whole(photo, np.random.default_rng(3)), photo)


def test_random_crop_reaches_every_position_alike():
    left, top, width, height = boxes(RandomCropImage(size=[6, 4]), 8, 5)
    assert set(width) == {6}
    assert set(height) == {4}
    positions, counts = np.unique(np.stack([left, top]), axis=1, return_counts=True)
    assert positions.T.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    assert abs(counts / 20000 - 1 / 6).max() < 0.012


def test_resized_crop_is_a_resized_part(photo, rng):
    crop = RandomResizedCrop(size=[16, 24])
    assert crop.size == (24, 16)
    left, top, width, height = crop.box(80, 60, np.random.default_rng(5))
    part = photo[top : top + height, left : left + width]
    expected = ResizeImage(size=[24, 16], interpolation="bilinear")(part, rng)
    np.testing.assert_array_equal(crop(photo, np.random.default_rng(5)), expected)


@pytest.mark.parametrize(
    ("size", "means"),
    [  # left, top, width, height: torchvision 0.29, RandomResizedCrop.get_params, 100 000 draws
        ((400, 200), (122.248, 25.599, 155.451, 148.843)),
        ((1000, 200), (402.113, 13.248, 196.278, 173.516)),
    ],
)
def test_resized_crop_draws_as_torchvision(size, means):
    drawn = boxes(RandomResizedCrop(size=224), *size)
    assert abs(drawn.mean(axis=1) / means - 1).max() < 0.035
    left, top, width, height = drawn
    assert (left + width).max() <= size[0]
    assert (top + height).max() <= size[1]


def test_resized_crop_falls_back_to_the_centre():
    never = {"scale": [1.0, 1.0], "ratio": [0.5, 0.5]}
    rng = np.random.default_rng(0)
    assert RandomResizedCrop(8, **never).box(100, 60, rng) == (35, 0, 30, 60)
    assert RandomResizedCrop(8, **never).box(10, 100, rng) == (0, 40, 10, 20)
    assert RandomResizedCrop(8).box(1, 1, rng) == (0, 0, 1, 1)


def test_crop_with_padding_keeps_the_part_where_it_was(photo):
    crop = CropWithPadding(padding_num=7)
    left, top, width, height = RandomResizedCrop(224).box(80, 60, _behind_one_draw(2))
    result = crop(photo, np.random.default_rng(2))
    part = np.s_[top : top + height, left : left + width]
    np.testing.assert_array_equal(result[part], photo[part])
    assert result.shape == photo.shape
    outside = np.ones(photo.shape[:2], bool)
    outside[part] = False
    assert outside.any()
    assert (result[outside] == 7).all()
    never = CropWithPadding(prob=0.0)
    np.testing.assert_array_equal(never(photo, np.random.default_rng(2)), photo)
    assert crop.size is None


def _behind_one_draw(seed):
    rng = np.random.default_rng(seed)
    rng.random()  # whether to crop at all
    return rng


@pytest.mark.parametrize("name", ["RandCropImageV2", "RandomResizedCrop"])
def test_of_a_file_only_the_part_is_decoded(name, photo, encode):
    # Parts of less than twice the size: the pixels are those of the whole picture.
    crop = TRANSFORMS.build(name, {"size": 48})
    data = encode(photo, quality=90)
    decoded = TRANSFORMS.build("DecodeImage", {})(data, np.random.default_rng(0))
    part = crop.from_file(data, np.random.default_rng(4))
    np.testing.assert_array_equal(part, crop(decoded, np.random.default_rng(4)))
    with pytest.raises(DataError, match="received 80 x 60"):
        RandomCropImage(size=61).from_file(data, np.random.default_rng(4))


def test_sizes_of_batches_reach_the_crops(photo, rng):
    for name, arguments in {
        "CenterCrop": {"size": 8},
        "CropImageAtRatio": {"size": 8, "pad": 2},
        "RandCropImageV2": {"size": 8},
        "RandomResizedCrop": {"size": 8},
    }.items():
        resized = TRANSFORMS.build(name, arguments).of_size((30, 20))
        assert resized(photo, rng).shape == (20, 30, 3), name
