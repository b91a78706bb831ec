"""Each transform, pixel by pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ppcls.data.transforms.color import ColorJitter
from ppcls.data.transforms.crop import CropImage, RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.flip import RandFlipImage
from ppcls.data.transforms.normalize import NormalizeImage, ToCHWImage
from ppcls.data.transforms.resize import ResizeImage
from ppcls.errors import ArgumentError, DataError
from ppcls.registry import TRANSFORMS

both_backends = pytest.mark.parametrize("backend", ["cv2", "pil"])


@both_backends
def test_decode_orders_channels_and_axes(backend, photo, encode, rng):
    data = encode(photo, "PNG")
    np.testing.assert_array_equal(DecodeImage(backend=backend)(data, rng), photo)
    bgr = DecodeImage(to_rgb=False, backend=backend)(data, rng)
    np.testing.assert_array_equal(bgr, photo[:, :, ::-1])
    first = DecodeImage(channel_first=True, backend=backend)
    np.testing.assert_array_equal(first(data, rng), photo.transpose(2, 0, 1))
    assert first.gives == "chw"


def test_decode_passes_decoded_pictures_on(photo, rng):
    np.testing.assert_array_equal(DecodeImage()(photo, rng), photo)
    for wrong in (photo[:, :, :2], photo[:, :, 0], photo.astype(np.float32)):
        with pytest.raises(ArgumentError, match="received"):
            DecodeImage()(wrong, rng)


@both_backends
def test_resize_short(backend, photo, rng):
    resized = ResizeImage(resize_short=31, interpolation="bicubic", backend=backend)(photo, rng)
    assert resized.shape == (31, round(80 * 31 / 60), 3)
    upright = ResizeImage(resize_short=31, backend=backend)(photo.transpose(1, 0, 2), rng)
    assert upright.shape == (41, 31, 3)


def test_resize_to_width_and_height(photo, rng):
    assert ResizeImage(size=20)(photo, rng).shape == (20, 20, 3)
    resized = ResizeImage(size=[30, 20], interpolation="area")(photo, rng)
    expected = cv2.resize(photo, (30, 20), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resized, expected)


def test_resize_backends_differ(photo, rng):
    by_cv2, by_pil = (ResizeImage(size=20, backend=b)(photo, rng) for b in ("cv2", "pil"))
    assert not np.array_equal(by_cv2, by_pil)  # Pillow smooths when it shrinks, OpenCV does not


@pytest.mark.parametrize("arguments", [{}, {"size": 3, "resize_short": 3}, {"resize_short": 0}])
def test_resize_wants_exactly_one_size(arguments):
    with pytest.raises(ArgumentError) as caught:
        ResizeImage(**arguments)
    assert caught.value.argument == "resize_short"


@pytest.mark.parametrize("size", [0, [3], [3, 0], [1, 2, 3], [1.5, 2]])
def test_sizes_are_checked(size):
    for transform in (ResizeImage, CropImage, RandCropImage):
        with pytest.raises(ArgumentError, match="received") as caught:
            transform(size=size)
        assert caught.value.argument == "size"


def test_crop_is_the_centre(photo, rng):
    np.testing.assert_array_equal(CropImage(size=[40, 20])(photo, rng), photo[20:40, 20:60])
    np.testing.assert_array_equal(CropImage(size=59)(photo, rng), photo[0:59, 10:69])


@pytest.mark.parametrize("size", [61, [81, 10], [10, 61]])
def test_crop_larger_than_the_picture_is_an_error(size, photo, rng):
    with pytest.raises(DataError, match="received 80 x 60"):
        CropImage(size=size)(photo, rng)


@both_backends
def test_random_crop_is_a_resized_part(backend, photo, rng):
    crop = RandCropImage(size=[24, 16], interpolation="bilinear", backend=backend)
    box = crop.box(80, 60, np.random.default_rng(5))
    left, top, width, height = box
    part = photo[top : top + height, left : left + width]
    expected = ResizeImage(size=[24, 16], interpolation="bilinear", backend=backend)(part, rng)
    np.testing.assert_array_equal(crop(photo, np.random.default_rng(5)), expected)


@pytest.mark.parametrize("size", [(80, 60), (500, 20), (1, 300), (1, 1)])
def test_random_boxes_lie_within_the_picture(size):
    width, height = size
    crop, rng = RandCropImage(size=8), np.random.default_rng(1)
    for _ in range(300):
        left, top, w, h = crop.box(width, height, rng)
        assert w >= 1
        assert h >= 1
        assert 0 <= left <= width - w
        assert 0 <= top <= height - h


def test_random_boxes_follow_scale_and_ratio():
    crop, rng = RandCropImage(size=8, scale=[0.25, 0.5], ratio=[0.5, 2.0]), np.random.default_rng(1)
    boxes = np.array([crop.box(1000, 1000, rng) for _ in range(2000)])
    area = boxes[:, 2] * boxes[:, 3] / 1e6
    aspect = boxes[:, 2] / boxes[:, 3]
    assert area.min() > 0.245
    assert area.max() <= 0.5
    assert abs(area.mean() - 0.375) < 0.01
    assert aspect.min() > 0.49
    assert aspect.max() < 2.01
    assert abs(aspect.mean() - 1.25) < 0.03  # uniform in the aspect ratio itself
    assert boxes[:, 0].max() > 400
    assert boxes[:, 1].max() > 400


def test_log_aspect_makes_upright_and_wide_equally_likely():
    crop = RandCropImage(size=8, scale=[0.1, 0.3], ratio=[0.5, 2.0], use_log_aspect=True)
    rng = np.random.default_rng(1)
    boxes = np.array([crop.box(1000, 1000, rng) for _ in range(2000)])
    assert abs(np.mean(boxes[:, 2] > boxes[:, 3]) - 0.5) < 0.04


@both_backends
def test_random_interpolation_draws_both(backend, photo):
    crop = RandCropImage(size=32, interpolation="random", backend=backend)
    found = set()
    for seed in range(12):
        result = crop(photo, np.random.default_rng(seed))
        for name in ("bilinear", "bicubic"):
            fixed = RandCropImage(size=32, interpolation=name, backend=backend)
            if np.array_equal(result, fixed(photo, np.random.default_rng(seed))):
                found.add(name)
    assert found == {"bilinear", "bicubic"}


@pytest.mark.parametrize(
    ("argument", "value"), [("scale", [0.5, 0.1]), ("scale", [0.5]), ("ratio", [0.0, 1.0])]
)
def test_random_crop_checks_ranges(argument, value):
    with pytest.raises(ArgumentError) as caught:
        RandCropImage(size=8, **{argument: value})
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("code", "expected"),
    [(1, np.s_[:, ::-1]), (0, np.s_[::-1]), (-1, np.s_[::-1, ::-1])],
)
def test_flip(code, expected, photo, rng):
    np.testing.assert_array_equal(RandFlipImage(code, prob=1.0)(photo, rng), photo[expected])
    np.testing.assert_array_equal(RandFlipImage(code, prob=0.0)(photo, rng), photo)


def test_flip_happens_half_the_time(photo, rng):
    flips = [not np.array_equal(RandFlipImage()(photo, rng), photo) for _ in range(400)]
    assert 160 < sum(flips) < 240


@pytest.mark.parametrize(
    ("argument", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_color_factor_is_pillow_s(argument, enhancer, photo, rng):
    ours = ColorJitter(**{argument: [1.4, 1.4]})(photo, rng)
    np.testing.assert_array_equal(ours, enhancer(Image.fromarray(photo)).enhance(1.4))
    assert not np.array_equal(ours, photo)


def test_hue_turns_the_colour_circle(rng):
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    green = ColorJitter(hue=[1 / 3, 1 / 3])(red, rng)[0, 0].astype(int)
    blue = ColorJitter(hue=[-1 / 3, -1 / 3])(red, rng)[0, 0].astype(int)
    assert abs(green - [0, 255, 0]).max() <= 8  # a step of the circle
    assert abs(blue - [0, 0, 255]).max() <= 8


def test_color_factors_are_drawn_around_one():
    grey, means = np.full((2, 2, 3), 100, np.uint8), []
    jitter, rng = ColorJitter(brightness=0.4), np.random.default_rng(0)
    means = [jitter(grey, rng).mean() for _ in range(500)]
    assert 60 <= min(means) < 63
    assert 137 < max(means) <= 140


def test_color_order_is_random(photo):
    jitter = ColorJitter(brightness=[0.5, 0.5], contrast=[1.9, 1.9])
    results = {jitter(photo, np.random.default_rng(seed)).tobytes() for seed in range(20)}
    assert len(results) == 2


def test_color_prob(photo, rng):
    never, always = (ColorJitter(brightness=[0.5, 0.5], prob=p) for p in (0.0, 2.0))
    np.testing.assert_array_equal(never(photo, rng), photo)
    assert all(not np.array_equal(always(photo, rng), photo) for _ in range(20))


@pytest.mark.parametrize("hue", [0.6, [-0.6, 0.0], [0.1], -0.1])
def test_hue_is_checked(hue):
    with pytest.raises(ArgumentError) as caught:
        ColorJitter(hue=hue)
    assert caught.value.argument == "hue"


def test_normalize(photo, rng):
    normalize = NormalizeImage(scale=0.5, mean=[1.0, 2.0, 3.0], std=[2.0, 4.0, 8.0], order="")
    result = normalize(photo, rng)
    assert result.dtype == np.float32
    expected = (photo * 0.5 - np.array([1, 2, 3])) / np.array([2, 4, 8])
    np.testing.assert_array_equal(result, expected.astype(np.float32))
    first = NormalizeImage(0.5, [1.0, 2.0, 3.0], [2.0, 4.0, 8.0], "chw")
    np.testing.assert_array_equal(first(photo.transpose(2, 0, 1), rng), result.transpose(2, 0, 1))


def test_normalize_defaults_are_imagenet_s(rng):
    white = NormalizeImage()(np.full((1, 1, 3), 255, np.uint8), rng)
    np.testing.assert_allclose(
        white[0, 0], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], rtol=1e-6
    )


def test_normalize_reads_a_quotient(photo, rng):
    expected = NormalizeImage()(photo, rng)
    np.testing.assert_array_equal(NormalizeImage(scale="1.0/255.0")(photo, rng), expected)
    with pytest.raises(ArgumentError):
        NormalizeImage(scale="__import__('os')")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("scale", 0.0),
        ("mean", [0.5]),
        ("std", [1.0, 0.0, 1.0]),
        ("order", "wch"),
        ("channel_num", 4),
        ("output_fp16", True),
    ],
)
def test_normalize_checks(argument, value):
    with pytest.raises(ArgumentError) as caught:
        NormalizeImage(**{argument: value})
    assert caught.value.argument == argument


def test_to_chw(photo, rng):
    np.testing.assert_array_equal(ToCHWImage()(photo, rng), photo.transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["DecodeImage", "ResizeImage", "RandCropImage"])
def test_unknown_backend(name):
    arguments = {} if name == "DecodeImage" else {"size": 8}
    with pytest.raises(ArgumentError) as caught:
        TRANSFORMS.build(name, {**arguments, "backend": "skimage"})
    assert caught.value.argument == "backend"


def test_transforms_draw_from_the_generator_only(photo):
    for name, arguments in {
        "RandCropImage": {"size": 16, "interpolation": "random"},
        "RandFlipImage": {},
        "ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    }.items():
        transform = TRANSFORMS.build(name, arguments)
        results = [transform(photo, np.random.default_rng(seed)) for seed in (1, 1, 2, 3, 4)]
        np.testing.assert_array_equal(results[0], results[1])
        assert len({result.tobytes() for result in results}) > 1
