"""The operations of augmentation policies on pixels, and what a magnitude gives them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ppcls.data.transforms import augmix, autoaugment, randaugment, trivialaugment
from ppcls.data.transforms.operations import OPERATIONS, Canvas
from ppcls.data.transforms.policy import Action
from ppcls.data.transforms.timm_tables import PLAIN


class Fixed:
    """A generator whose draws are known; ``random()`` below a half makes a sign negative."""

    def __init__(self, value: float):
        self.value = value

    def random(self) -> float:
        return self.value


NEGATIVE, POSITIVE = Fixed(0.0), Fixed(0.9)


def operated(photo, name, amount, canvas=None, seed=0):
    picture = Image.fromarray(photo)
    canvas = Canvas() if canvas is None else canvas
    return np.array(OPERATIONS[name](picture, amount, canvas, np.random.default_rng(seed)))


# Operations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "amount", "expected"),
    [
        ("brightness", 1.4, lambda p: ImageEnhance.Brightness(p).enhance(1.4)),
        ("color", 0.3, lambda p: ImageEnhance.Color(p).enhance(0.3)),
        ("contrast", 1.9, lambda p: ImageEnhance.Contrast(p).enhance(1.9)),
        ("sharpness", 0.1, lambda p: ImageEnhance.Sharpness(p).enhance(0.1)),
        ("posterize", 3, lambda p: ImageOps.posterize(p, 3)),
        ("solarize", 100, lambda p: ImageOps.solarize(p, 100)),
        ("invert", 0, ImageOps.invert),
        ("autocontrast", 0, ImageOps.autocontrast),
        ("equalize", 0, ImageOps.equalize),
        ("gaussian_blur", 1.5, lambda p: p.filter(ImageFilter.GaussianBlur(1.5))),
        ("rotate", 20, lambda p: p.rotate(20, fillcolor=(128, 128, 128))),
    ],
)
def test_operations_are_pillow_s(name, amount, expected, photo):
    textured = photo // (1 + np.indices((60, 80)).sum(0) % 2)[:, :, None].astype(np.uint8)
    ours = operated(textured, name, amount)
    np.testing.assert_array_equal(ours, expected(Image.fromarray(textured)))
    assert not np.array_equal(ours, textured)


def test_solarize_add_touches_the_dark_half(photo):
    wide = photo.astype(int)
    expected = np.where(wide < 128, np.minimum(wide + 60, 255), wide)
    np.testing.assert_array_equal(operated(photo, "solarize_add", 60), expected)


@pytest.mark.parametrize(("bits", "mask"), [(0, 0), (1, 128), (4, 240), (8, 255), (11, 255)])
def test_posterize_keeps_bits(bits, mask, photo):
    np.testing.assert_array_equal(operated(photo, "posterize", bits), photo & np.uint8(mask))


@pytest.mark.parametrize(("name", "amount"), [("translate_x", 0.125), ("translate_x_pixels", 10)])
def test_translation_fills_what_comes_in(name, amount, photo):
    moved = operated(photo, name, amount, Canvas((1, 2, 3)))
    np.testing.assert_array_equal(moved[:, :70], photo[:, 10:])
    np.testing.assert_array_equal(moved[:, 70:], np.broadcast_to([1, 2, 3], (60, 10, 3)))


def test_vertical_translation_is_a_part_of_the_height(photo):
    moved = operated(photo, "translate_y", -0.5)
    np.testing.assert_array_equal(moved[30:], photo[:30])
    assert (moved[:30] == 128).all()
    whole = operated(photo, "translate_y_whole", 0.26)  # 15.6 pixels
    np.testing.assert_array_equal(whole[:45], photo[15:])


def test_shear_moves_each_row_further(photo):
    sheared = operated(photo, "shear_x", 0.5, Canvas((0, 0, 0)))
    for row in (0, 10, 40):
        shift = int(0.5 * (row + 0.5))  # the centre of the row
        np.testing.assert_array_equal(sheared[row, : 80 - shift - 1], photo[row, shift : 80 - 1])
    upright = operated(photo.transpose(1, 0, 2), "shear_y", 0.5, Canvas((0, 0, 0)))
    np.testing.assert_array_equal(upright.transpose(1, 0, 2), sheared)


def test_resampling_is_drawn_among_several(photo):
    canvas = Canvas(resampling=("bilinear", "bicubic"))
    drawn = {operated(photo, "rotate", 20, canvas, seed).tobytes() for seed in range(12)}
    fixed = {
        operated(photo, "rotate", 20, Canvas(resampling=(r,))).tobytes()
        for r in ("bilinear", "bicubic")
    }
    assert drawn == fixed


def test_cutout_is_a_square_of_the_colour_within_the_picture():
    white, areas = np.full((60, 80, 3), 255, np.uint8), []
    for seed in range(200):
        cut = operated(white, "cutout", 8, Canvas((7, 8, 9)), seed) == [7, 8, 9]
        rows, columns = (cut.all(axis=2).any(axis=axis).sum() for axis in (1, 0))
        assert cut.all(axis=2).sum() == rows * columns
        areas.append(rows * columns)
    assert max(areas) == 16 * 16
    assert min(areas) < 16 * 16


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("identity", 0),
        ("shear_x", 0),
        ("translate_x", 0),
        ("rotate", 0),
        ("brightness", 1),
        ("color", 1),
        ("contrast", 1),
        ("sharpness", 1),
        ("posterize", 8),
        ("solarize", 256),
        ("solarize_add", 0),
        ("cutout", 0),
    ],
)
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "bicubic"])
def test_operations_can_change_nothing(name, amount, resampling, photo):
    canvas = Canvas(resampling=(resampling,))
    np.testing.assert_array_equal(operated(photo, name, amount, canvas), photo)


# Amounts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "name", "level", "expected"),
    [
        # AutoAugment, ten steps: the paper's ranges, as np.linspace(low, high, 10) gives them.
        (autoaugment.ACTIONS, "shear_x", 1, 0.3),
        (autoaugment.ACTIONS, "rotate", 3 / 9, 10),
        (autoaugment.ACTIONS, "translate_y", 1, 150 / 331),
        (autoaugment.ACTIONS, "color", 1, 1.9),
        (autoaugment.ACTIONS, "posterize", 7 / 9, 5),
        (autoaugment.ACTIONS, "solarize", 8 / 9, 256 / 9),
        # PaddleClas's RandAugment at magnitude 5, and at 20 as EfficientNetV2-L trains.
        (randaugment.V1, "shear_y", 0.5, 0.15),
        (randaugment.V1, "posterize", 0.5, 2),
        (randaugment.V1, "solarize", 0.5, 128),
        (randaugment.V1, "posterize", 2.0, 8),
        (randaugment.V1, "rotate", 2.0, 60),
        (randaugment.V2, "translate_x", 0.5, 50),
        (randaugment.V2, "contrast", 0.5, 1.0),
        (randaugment.V2, "solarize_add", 0.5, 55),
        (randaugment.V2, "cutout", 0.5, 20),
        (randaugment.V3, "posterize", 0.3, 7),
        (randaugment.V3, "solarize", 0.3, 178.5),
        (randaugment.V4, "cutout", 1, 20),
        (trivialaugment.WIDE, "rotate", 1, 135),
        (trivialaugment.WIDE, "posterize", 1, 2),
        (trivialaugment.WIDE, "translate_x", 0.5, 16),
        (trivialaugment.WIDE, "brightness", 1, 1.99),
        (augmix.ACTIONS, "rotate", 0.25, 7),
        (augmix.ACTIONS, "solarize", 0.1, 231),
    ],
)
def test_what_a_magnitude_means(table, name, level, expected):
    assert table[name].amount(level, POSITIVE) == pytest.approx(expected)


def test_signs():
    rotate, color = autoaugment.ACTIONS["rotate"], autoaugment.ACTIONS["color"]
    assert rotate.amount(1, NEGATIVE) == -30
    assert color.amount(1, NEGATIVE) == pytest.approx(0.1)
    assert randaugment.V2["color"].amount(1, NEGATIVE) == pytest.approx(1.9)  # has no sign


def test_both_signs_occur_equally_often(rng):
    action = Action("rotate", scale=30, signed=True)
    amounts = [action.amount(1, rng) for _ in range(400)]
    assert set(amounts) == {30, -30}
    assert 160 < amounts.count(30) < 240


def test_every_action_has_its_operation():
    tables = [autoaugment.ACTIONS, randaugment.V1, randaugment.V2, randaugment.V3, PLAIN]
    tables += [randaugment.V4, trivialaugment.WIDE, augmix.ACTIONS]
    assert [len(table) for table in tables] == [14, 14, 16, 14, 15, 15, 14, 9]
    assert {action.operation for table in tables for action in table.values()} <= set(OPERATIONS)
