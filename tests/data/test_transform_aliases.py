"""Transforms under the names and in the units of paddle.vision."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ppcls.data.image import resize
from ppcls.data.pipeline import Pipeline
from ppcls.data.transforms import resize as module
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.flip import RandomHorizontalFlip
from ppcls.data.transforms.normalize import Normalize, NormalizeImage, ToCHWImage, ToTensor
from ppcls.data.transforms.resize import RandomInterpolationAugment, Resize, ResizeImage
from ppcls.errors import ArgumentError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZED = [DecodeImage(), ResizeImage(size=[20, 16])]
LISTS = {
    "paddle.vision": [*SIZED, ToTensor(), Normalize(MEAN, STD)],
    "normalised bytes": [*SIZED, Normalize(127.5, 50.0, "HWC"), ToCHWImage()],
    "floats before": [*SIZED, NormalizeImage(order=""), ToTensor()],
    "floats travel": [*SIZED, Normalize(3.0, 2.0, "HWC"), Resize([9, 8]), ToTensor(), Normalize(1)],
}


def test_resize_counts_as_paddle_vision(photo, rng):
    # paddle.vision 3.3: the long side is rounded down (41.3), where ResizeImage rounds it.
    assert Resize(size=31)(photo, rng).shape == (31, 41, 3)
    assert Resize(size=31)(photo.transpose(1, 0, 2), rng).shape == (41, 31, 3)
    assert Resize(size=32)(photo, rng).shape == (32, 42, 3)  # of 42.67
    assert Resize(size=32)(photo.transpose(1, 0, 2), rng).shape == (42, 32, 3)
    resized = Resize(size=[30, 20], interpolation="area")(photo, rng)
    expected = cv2.resize(photo, (20, 30), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resized, expected)
    assert Resize(size=[30, 20]).size == (20, 30)
    assert Resize(size=30).size is None


def test_resize_default_is_bilinear(photo, rng):
    expected = cv2.resize(photo, (20, 30), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(Resize(size=[30, 20])(photo, rng), expected)


def test_horizontal_flip(photo, rng):
    np.testing.assert_array_equal(RandomHorizontalFlip(prob=1.0)(photo, rng), photo[:, ::-1])
    flipped = [not np.array_equal(RandomHorizontalFlip()(photo, rng), photo) for _ in range(300)]
    assert 120 < sum(flipped) < 180


def test_to_tensor_divides_by_255(photo, rng):
    result = ToTensor()(photo, rng)
    expected = photo.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(result, expected)
    floats = expected.transpose(1, 2, 0)
    np.testing.assert_array_equal(ToTensor()(floats, rng), expected)


def test_normalize_does_not_scale(photo, rng):
    result = Normalize(mean=[1.0, 2.0, 3.0], std=2.0)(photo.transpose(2, 0, 1), rng)
    assert result.dtype == np.float32
    expected = (photo.astype(np.float32) - np.float32([1, 2, 3])) / 2
    np.testing.assert_array_equal(result, expected.transpose(2, 0, 1))
    last = Normalize(mean=[1.0, 2.0, 3.0], std=2.0, data_format="HWC")
    np.testing.assert_array_equal(last(photo, rng), expected)


@pytest.mark.parametrize("name", LISTS)
def test_batch_equals_one_picture_at_a_time(name, photo, rng):
    pictures = [np.roll(photo, shift, axis=0) for shift in range(3)]
    pipeline = Pipeline(LISTS[name])
    travelling = np.stack([pipeline.image(picture, rng) for picture in pictures])
    assert travelling.dtype == (np.float32 if name == "floats travel" else np.uint8)
    batch = pipeline.batch(travelling)
    for picture, got in zip(pictures, batch, strict=True):
        image = picture
        for transform in LISTS[name]:
            image = transform(image, rng)
        np.testing.assert_array_equal(got, image)


@pytest.mark.parametrize("name", LISTS)
def test_paddle_tensors_give_the_same_bits(name, photo):
    paddle = pytest.importorskip("paddle")
    pipeline = Pipeline(LISTS[name])
    images = pipeline.image(photo)[None]
    tensor = pipeline.batch(paddle.to_tensor(images), paddle.to_tensor)
    np.testing.assert_array_equal(tensor.numpy(), pipeline.batch(images))


def test_tables_of_bytes_give_the_same_bits(photo):
    pytest.importorskip("paddle")
    from ppcls.engine.batch import _byte_table

    pipeline = Pipeline(LISTS["paddle.vision"])
    images = pipeline.image(photo)[None]
    table = _byte_table(pipeline)
    looked_up = np.stack([table[images[..., channel], channel] for channel in range(3)], axis=1)
    np.testing.assert_array_equal(looked_up, pipeline.batch(images))


@pytest.mark.parametrize(
    ("transform", "argument", "value"),
    [
        (Normalize, "to_rgb", True),
        (Normalize, "data_format", "NCHW"),
        (Normalize, "std", 0.0),
        (Normalize, "mean", [1.0]),
        (ToTensor, "data_format", "HWC"),
    ],
)
def test_arguments_are_checked(transform, argument, value):
    with pytest.raises(ArgumentError) as caught:
        transform(**{argument: value})
    assert caught.value.argument == argument


def test_interpolation_augment_loses_detail(rng):
    noise = rng.integers(256, size=(60, 80, 3), dtype=np.uint8)
    always, never = RandomInterpolationAugment(prob=1.0), RandomInterpolationAugment(prob=0.0)
    results = [always(noise, np.random.default_rng(seed)) for seed in range(40)]
    assert {result.shape for result in results} == {(60, 80, 3)}
    assert all(not np.array_equal(result, noise) for result in results)
    # At a fifth of the sides hardly anything is left of the noise.
    assert min(result.astype(float).std() for result in results) < 0.5 * noise.std()
    np.testing.assert_array_equal(never(noise, rng), noise)
    assert always(noise[:1, :2], rng).shape == (1, 2, 3)


def test_interpolation_augment_draws_all_ways_there_and_back(photo, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "resize", lambda *given: calls.append(given) or resize(*given))
    rng = np.random.default_rng(0)
    for _ in range(100):
        RandomInterpolationAugment(prob=1.0)(photo, rng)
    names = {"nearest", "bilinear", "area", "bicubic", "lanczos"}
    assert {given[3] for given in calls[::2]} == {given[3] for given in calls[1::2]} == names
    widths, heights = np.array([given[1:3] for given in calls[::2]]).T
    assert 16 <= widths.min() < 20
    assert 76 < widths.max() < 80
    assert abs(heights - widths * 60 / 80).max() <= 1
