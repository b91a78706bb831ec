"""Pad and Padv2, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from ppcls.data.transforms.pad import Pad, Padv2
from ppcls.errors import ArgumentError, DataError
from ppcls.registry import TRANSFORMS


@pytest.mark.parametrize("backend", ["pil", "cv2"])
def test_pad_puts_a_border_on_every_side(backend, photo, rng):
    result = Pad(padding=10, fill=3, backend=backend)(photo, rng)
    assert result.shape == (80, 100, 3)
    np.testing.assert_array_equal(result[10:-10, 10:-10], photo)
    result[10:-10, 10:-10] = 3
    assert (result == 3).all()


def test_pad_takes_sides_and_colours(photo, rng):
    result = TRANSFORMS.build("Pad_paddle_vision", {"padding": [1, 2, 3, 4], "fill": [7, 8, 9]})(
        photo, rng
    )
    np.testing.assert_array_equal(result[2:-4, 1:-3], photo)
    assert result[0, 0].tolist() == [7, 8, 9]
    assert Pad(padding=[5, 1])(photo, rng).shape == (62, 90, 3)


@pytest.mark.parametrize(
    ("mode", "padding", "rows"),
    [  # torchvision 0.29, functional.pad, of three rows of 0 1 2, 10 11 12, 20 21 22
        ("reflect", [2, 1], [[12, 11, 10, 11, 12, 11, 10], [2, 1, 0, 1, 2, 1, 0]]),
        ("symmetric", [2, 1, 1, 0], [[1, 0, 0, 1, 2, 2], [1, 0, 0, 1, 2, 2]]),
        ("edge", [1, 1], [[0, 0, 1, 2, 2], [0, 0, 1, 2, 2]]),
    ],
)
def test_pad_modes(mode, padding, rows, rng):
    numbers = np.add.outer([0, 10, 20], [0, 1, 2]).astype(np.uint8)
    picture = np.repeat(numbers[..., None], 3, axis=2)
    result = Pad(padding=padding, padding_mode=mode)(picture, rng)
    assert result[:2, :, 1].tolist() == rows


def test_pad_takes_views_and_floats(photo, rng):
    for picture in (photo[:, ::-1], photo.astype(np.float32) / 3):
        result = Pad(padding=2, fill=1)(picture, rng)
        np.testing.assert_array_equal(result[2:-2, 2:-2], picture)
        assert result.dtype == picture.dtype


@pytest.mark.parametrize(
    ("mode", "corner"),
    [({"pad_mode": 0}, (0, 0)), ({"pad_mode": 1}, (10, 17)), ({"pad_mode": 2}, (20, 35)),
     ({"pad_mode": -1, "offsets": [3, 4]}, (3, 4))],
)  # fmt: skip
def test_padv2_places_the_picture(mode, corner, photo, rng):
    result = Padv2(size=[100, 95], fill_value=[1, 2, 3], **mode)(photo, rng)
    assert result.shape == (95, 100, 3)
    left, top = corner
    part = np.s_[top : top + 60, left : left + 80]
    np.testing.assert_array_equal(result[part], photo)
    outside = np.ones(result.shape[:2], bool)
    outside[part] = False
    assert (result[outside] == [1, 2, 3]).all()


def test_padv2_without_a_size_pads_to_multiples(photo, rng):
    assert Padv2()(photo, rng).shape == (64, 96, 3)
    assert Padv2(size_divisor=20)(photo, rng).shape == (60, 80, 3)
    assert Padv2().size is None


def test_padv2_stays_bytes_or_floats(photo, rng):
    assert Padv2()(photo, rng)[-1, -1].tolist() == [128, 128, 128]
    floats = Padv2()(photo.astype(np.float32), rng)
    assert floats.dtype == np.float32
    assert floats[-1, -1].tolist() == [127.5, 127.5, 127.5]


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_padv2_refuses_larger_pictures(mode, photo, rng):
    with pytest.raises(DataError, match="received 80 x 60"):
        Padv2(size=[79, 100], pad_mode=mode)(photo, rng)
    with pytest.raises(DataError, match=r"at \[25, 0\]"):
        Padv2(size=100, pad_mode=-1, offsets=[25, 0])(photo, rng)


@pytest.mark.parametrize(
    ("transform", "argument", "value"),
    [
        (Pad, "padding", [1, 2, 3]),
        (Pad, "padding", -1),
        (Pad, "padding_mode", "wrap"),
        (Padv2, "pad_mode", 3),
        (Padv2, "size", [1]),
        (Padv2, "fill_value", [1, 2]),
    ],
)
def test_arguments_are_checked(transform, argument, value):
    given = {"padding": 1} if transform is Pad else {}
    with pytest.raises(ArgumentError) as caught:
        transform(**{**given, argument: value})
    assert caught.value.argument == argument


def test_padv2_at_offsets_wants_offsets():
    with pytest.raises(ArgumentError) as caught:
        Padv2(size=100, pad_mode=-1)
    assert caught.value.argument == "offsets"
