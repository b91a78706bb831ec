"""RandomRotation and RandomRot90, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ppcls.data.transforms.rotate import RandomRot90, RandomRotation
from ppcls.errors import ArgumentError


def turned(picture, angle, **arguments):
    rotation = RandomRotation(degrees=[angle, angle], prob=1.0, **arguments)
    return rotation(picture, np.random.default_rng(0))


@pytest.mark.parametrize("angle", [90, 180, -90, 270])
def test_quarter_turns_are_exact(angle, photo):
    square = photo[:, 5:65]
    np.testing.assert_array_equal(turned(square, angle), np.rot90(square, angle // 90))
    expanded = turned(photo, angle, expand=True)
    np.testing.assert_array_equal(expanded, np.rot90(photo, angle // 90))


@pytest.mark.parametrize("options", [{}, {"expand": True}, {"center": [10, 20]}])
def test_other_angles_are_pillow_s(options, photo):
    for picture in (photo, photo[:, ::-1]):
        result = turned(picture, 30, fill=[9, 8, 7], **options)
        expected = Image.fromarray(np.ascontiguousarray(picture)).rotate(
            30, fillcolor=(9, 8, 7), **options
        )
        np.testing.assert_array_equal(result, np.array(expected))


def test_interpolation_smooths(photo):
    expected = np.array(Image.fromarray(photo).rotate(30, Image.Resampling.BILINEAR))
    inner = np.s_[22:38, 22:58]  # away from the corners, which OpenCV blends and Pillow does not
    smooth = turned(photo, 30, interpolation="bilinear")[inner].astype(int)
    assert abs(smooth - expected[inner]).max() <= 2
    assert (turned(photo, 30)[inner] != smooth).any()


def test_floats_turn_as_bytes_do(photo):
    floats = turned(photo.astype(np.float32), 30, fill=-1.5)
    np.testing.assert_array_equal(floats[30], turned(photo, 30)[30].astype(np.float32))
    assert floats[0, 0].tolist() == [-1.5] * 3


def test_angles_are_drawn_from_the_interval():
    picture = np.zeros((201, 201, 3), np.uint8)
    picture[100, 195] = 255  # to the right of the middle
    rotation = RandomRotation(degrees=20, interpolation="bilinear", prob=1.0)
    rng, angles = np.random.default_rng(0), []
    for _ in range(300):
        y, x = np.unravel_index(rotation(picture, rng)[..., 0].argmax(), (201, 201))
        angles.append(np.degrees(np.arctan2(100 - y, x - 100)))
    assert -20.5 < min(angles) < -18.5
    assert 18.5 < max(angles) < 20.5
    assert abs(np.mean(angles)) < 2.5


def test_rotation_happens_half_the_time(photo, rng):
    rotation = RandomRotation(degrees=[10, 20])
    changed = [not np.array_equal(rotation(photo, rng), photo) for _ in range(300)]
    assert 120 < sum(changed) < 180


def test_rot90_turns_each_way_alike(photo):
    turns, counts = [np.rot90(photo, k).tobytes() for k in range(4)], [0] * 4
    rng = np.random.default_rng(0)
    for _ in range(800):
        counts[turns.index(RandomRot90()(photo, rng).tobytes())] += 1
    assert min(counts) > 150


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("degrees", [3.0, 1.0]),
        ("degrees", -3.0),
        ("center", [1.0]),
        ("interpolation", "box"),
        ("fill", [1, 2]),
    ],
)
def test_arguments_are_checked(argument, value):
    with pytest.raises(ArgumentError) as caught:
        RandomRotation(**{"degrees": 10, argument: value})
    assert caught.value.argument == argument
