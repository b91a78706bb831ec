"""Transforms that change colours or sharpness, and RandomApply."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls.data.transforms.apply import RandomApply
from ppcls.data.transforms.blur import BlurImage, GaussianBlur, motion_kernel
from ppcls.data.transforms.color import ColorJitter, PCALighting, RandomGrayscale
from ppcls.data.transforms.compression import RandomJPEGQuality
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.flip import RandFlipImage
from ppcls.data.transforms.normalize import NormalizeImage, ToCHWImage
from ppcls.errors import ArgumentError, DataError
from ppcls.registry import TRANSFORMS


def test_grayscale_is_the_luma(rng):
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 200, 90]]], np.uint8)
    grey = RandomGrayscale(p=1.0)(colours, rng)
    expected = np.rint(colours @ [0.299, 0.587, 0.114])  # 76, 150, 29, 131
    np.testing.assert_array_equal(grey, np.repeat(expected[..., None], 3, 2))


def test_grayscale_happens_with_its_probability(photo, rng):
    changed = [not np.array_equal(RandomGrayscale(p=0.3)(photo, rng), photo) for _ in range(500)]
    assert 110 < sum(changed) < 190


def test_lighting_adds_the_principal_components(rng):
    grey = np.full((2, 3, 3), 100, np.uint8)
    lit = PCALighting(alphastd=0.5)(grey, rng)
    draws = np.random.default_rng(0).normal(0, 0.5, 3) * [0.2175, 0.0188, 0.0045]
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    assert np.ptp(lit, axis=(0, 1)).max() == 0  # one colour for the whole picture
    np.testing.assert_array_equal(lit[0, 0], np.rint(100 + 255 * vectors @ draws))


def test_lighting_moves_bright_and_dark_mostly(rng):
    grey = np.full((1, 1, 3), 128, np.uint8)
    shifts = np.array([PCALighting()(grey, rng)[0, 0].astype(int) - 128 for _ in range(2000)])
    # red: 255 * 0.1 * sqrt((0.5675 * 0.2175)^2 + (0.7192 * 0.0188)^2 + (0.4009 * 0.0045)^2) = 3.17
    np.testing.assert_allclose(shifts.std(axis=0), [3.17, 3.24, 3.25], atol=0.25)
    assert np.corrcoef(shifts.T).min() > 0.9


def test_lighting_of_floats_is_not_cut_off(rng):
    lit = PCALighting(alphastd=10.0)(np.zeros((1, 1, 3), np.float32), rng)
    draws = np.random.default_rng(0).normal(0, 10.0, 3) * [0.2175, 0.0188, 0.0045]
    assert lit.dtype == np.float32
    assert lit[0, 0, 0] == pytest.approx(draws @ [-0.5675, 0.7192, 0.4009], rel=1e-5)


def test_lighting_stays_within_bytes_and_can_do_nothing(photo, rng):
    for _ in range(20):
        assert PCALighting(alphastd=5.0)(np.full((1, 1, 3), 250, np.uint8), rng).dtype == np.uint8
    np.testing.assert_array_equal(PCALighting(alphastd=0.0)(photo, rng), photo)


@pytest.mark.parametrize(
    ("argument", "value"), [("eigval", [1.0, 2.0]), ("eigvec", [[1.0, 2.0, 3.0], [1.0]])]
)
def test_lighting_checks_shapes(argument, value):
    with pytest.raises(ArgumentError, match="numbers, received") as caught:
        PCALighting(**{argument: value})
    assert caught.value.argument == argument


def test_gaussian_blur_spreads_a_point(rng):
    point = np.zeros((21, 21, 3), np.uint8)
    point[10, 10] = 255
    blurred = GaussianBlur(sigma=[1.0, 1.0])(point, rng)
    assert abs(blurred[10, 10, 0] - 255 / (2 * np.pi)) < 1  # 40.6, the density at the centre
    assert abs(blurred[10, 11, 0] - 255 / (2 * np.pi) * np.exp(-0.5)) < 1  # 24.6
    narrow = GaussianBlur(sigma=[2.0, 2.0], kernel_size=3)(point, rng)
    assert narrow[:, :, 0].astype(bool).sum() == 9


def test_gaussian_blur_draws_its_deviation(photo, rng):
    checks = np.indices((16, 16)).sum(0)[:, :, None].repeat(3, 2) % 2 * np.uint8(255)
    blur = GaussianBlur()
    spread = [float(np.std(blur(checks.astype(np.uint8), rng))) for _ in range(50)]
    assert min(spread) < 10
    assert max(spread) > 100
    np.testing.assert_array_equal(GaussianBlur(prob=0.0)(photo, rng), photo)


@pytest.mark.parametrize("angle", [0.0, 45.0, -45.0])
def test_motion_blur_follows_a_line(angle):
    kernel = motion_kernel(7, angle)
    assert abs(kernel.sum() - 1) < 1e-5
    lines = {0.0: np.eye(7, dtype=bool), 45.0: np.zeros((7, 7), bool)}
    lines[-45.0] = lines[45.0].copy()
    lines[45.0][3] = True  # 45 degrees counter-clockwise from the falling diagonal: level
    lines[-45.0][:, 3] = True
    assert kernel[lines[angle]].sum() > 0.6


def test_blur_image_blurs_as_often_as_told(photo, rng):
    changed = [not np.array_equal(BlurImage(ratio=0.4)(photo, rng), photo) for _ in range(300)]
    assert 90 < sum(changed) < 150


def test_blur_image_keeps_the_mean_and_has_two_kinds(rng):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    blurred = [BlurImage(ratio=1.0)(noise, rng) for _ in range(40)]
    assert all(abs(b.mean() - noise.mean()) < 2 and b.std() < 60 for b in blurred)
    sides = (5, 7, 9, 11)
    gaussian = {cv2.GaussianBlur(noise, (w, h), 0).tobytes() for w in sides for h in sides}
    assert 10 < sum(b.tobytes() in gaussian for b in blurred) < 30


def test_even_kernels_are_refused():
    with pytest.raises(ArgumentError, match="odd"):
        GaussianBlur(kernel_size=4)


def test_jpeg_quality_is_pillow_s(photo, rng):
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=20)
    result = RandomJPEGQuality(quality=[20, 20], prob=1.0)(photo, rng)
    np.testing.assert_array_equal(result, np.array(Image.open(file)))
    np.testing.assert_array_equal(RandomJPEGQuality(prob=0.0)(photo, rng), photo)


def test_jpeg_quality_draws_the_whole_range(photo, rng):
    compress = RandomJPEGQuality(quality=[30, 33], prob=1.0)
    assert len({compress(photo, rng).tobytes() for _ in range(60)}) == 4


@pytest.mark.parametrize("quality", [[0, 50], [50, 101], [60, 50], [50]])
def test_jpeg_quality_is_checked(quality):
    with pytest.raises(ArgumentError, match="received"):
        RandomJPEGQuality(quality=quality)


def test_random_apply_applies_all_or_none(photo, rng):
    darker = ColorJitter(brightness=[0.5, 0.5])
    apply = RandomApply(p=0.25, transforms=[RandFlipImage(prob=1.0), darker])
    both = darker(photo[:, ::-1], rng)
    results = [apply(photo, rng) for _ in range(400)]
    applied = [np.array_equal(result, both) for result in results]
    assert 70 < sum(applied) < 130
    assert all(
        a or np.array_equal(result, photo) for a, result in zip(applied, results, strict=True)
    )


def test_random_apply_gives_the_size_that_is_asked_for(photo, rng):
    apply = RandomApply(1.0, [RandCropImage(size=20)])
    assert apply.of_size((24, 16))(photo, rng).shape == (16, 24, 3)
    assert apply(photo, rng).shape == (20, 20, 3)


@pytest.mark.parametrize("transform", [DecodeImage(), NormalizeImage(order=""), ToCHWImage()])
def test_random_apply_takes_what_changes_pixels(transform):
    with pytest.raises(ArgumentError, match=type(transform).__name__):
        RandomApply(0.5, [transform])


def test_the_published_color_jitter_of_random_apply_has_its_name():
    assert isinstance(TRANSFORMS.build("RawColorJitter", {"brightness": 0.4}), ColorJitter)


@pytest.mark.parametrize(
    "name", ["ColorJitter", "RandomGrayscale", "RandomJPEGQuality", "RandAugment"]
)
def test_pictures_of_floats_are_reported(name, photo, rng):
    with pytest.raises(DataError, match=f"{name} expected a picture of uint8, received float32"):
        TRANSFORMS.build(name, {})(photo.astype(np.float32), rng)


def test_colour_transforms_draw_from_the_generator_only(photo):
    for name, arguments in {
        "RandomGrayscale": {"p": 0.5},
        "PCALighting": {"alphastd": 1.0},
        "GaussianBlur": {},
        "BlurImage": {},
        "RandomJPEGQuality": {},
        "RandomApply": {"p": 0.5, "transforms": [RandFlipImage()]},
    }.items():
        view, before = photo[:, ::-1], photo.copy()
        transform = TRANSFORMS.build(name, arguments)
        results = [transform(view, np.random.default_rng(s)) for s in (1, 1, 2, 3, 4, 5, 6)]
        np.testing.assert_array_equal(results[0], results[1])
        assert len({result.tobytes() for result in results}) > 1, name
        assert all(r.shape == view.shape and r.dtype == np.uint8 for r in results), name
        np.testing.assert_array_equal(photo, before)
