"""A part of a picture: the pixels of the whole, or close to them where it is decoded smaller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from ppcls.data import jpeg
from ppcls.data.image import DecodeError, decode, decode_part, resize
from ppcls.data.pipeline import Pipeline
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.normalize import ToCHWImage

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "photos-fullsize"
ORIENTATION = 0x0112
LARGE = 10**5  # a target that no part is twice as large as


@pytest.fixture
def noise(rng) -> np.ndarray:
    """Colours that differ from pixel to pixel, uint8 [147, 203, 3]."""
    return rng.integers(0, 256, (147, 203, 3), np.uint8)


@pytest.fixture
def scene() -> np.ndarray:
    """Smooth colours with some edges, as in a photograph; uint8 [600, 800, 3]."""
    rows, columns = np.mgrid[0:600, 0:800]
    waves = [np.sin(rows / a + columns / b) for a, b in ((31, 47), (53, -37), (-41, 29))]
    picture = 127 + 90 * np.stack(waves, -1)
    picture[200:420, 300:520] += 60
    return picture.clip(0, 255).astype(np.uint8)


def part_of(data: bytes, box: tuple[int, int, int, int], size: tuple[int, int]):
    return decode_part(data, lambda width, height: box, *size)


KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 5},
    "optimised": {"optimize": True, "quality": 50},
}


@pytest.mark.parametrize(
    "box", [(0, 0, 203, 147), (60, 20, 50, 40), (3, 101, 200, 46), (7, 0, 1, 1)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_has_the_pixels_of_the_whole(kind, box, noise, encode):
    data = encode(noise, **KINDS[kind])
    left, top, width, height = box
    part, rest = part_of(data, box, (LARGE, LARGE))
    assert rest == (0, 0, 0, 0)
    np.testing.assert_array_equal(part, decode(data)[top : top + height, left : left + width])


def test_a_grey_part(noise, encode):
    data = encode(noise[:, :, 0])
    part, _ = part_of(data, (60, 20, 50, 40), (LARGE, LARGE))
    np.testing.assert_array_equal(part, decode(data)[20:60, 60:110])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_of_a_turned_picture(orientation, noise, encode):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(noise, exif=exif)
    asked = []

    def box(width: int, height: int) -> tuple[int, int, int, int]:
        asked.append((width, height))
        return 11, 23, 70, 90

    part, _ = decode_part(data, box, LARGE, LARGE)
    whole = decode(data)
    assert asked == [(whole.shape[1], whole.shape[0])]
    np.testing.assert_array_equal(part, whole[23:113, 11:81])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP"])
def test_other_formats_are_decoded_as_a_whole(kind, noise, encode):
    data = encode(noise, kind)
    part, rest = part_of(data, (11, 23, 70, 90), (4, 4))
    assert rest == (0, 0, 0, 0)
    np.testing.assert_array_equal(part, decode(data)[23:113, 11:81])


def test_rows_below_a_part_are_not_decoded(noise, encode, monkeypatch):
    decoded = spied(monkeypatch)
    part_of(encode(noise, subsampling=0), (0, 0, 203, 40), (LARGE, LARGE))
    assert decoded == [(40, 203)]


@pytest.mark.parametrize(
    ("side", "scale"), [(301, 1), (300, 2), (151, 2), (150, 4), (75, 8), (9, 8)]
)
def test_a_part_is_decoded_at_the_smallest_size_that_is_large_enough(
    side, scale, scene, encode, monkeypatch
):
    decoded = spied(monkeypatch)
    part, _ = part_of(encode(scene), (0, 0, 600, 600), (side, side))
    assert decoded == [(600 // scale, 800 // scale)]
    assert min(part.shape[:2]) >= min(side, 600)


def spied(monkeypatch) -> list[tuple[int, int]]:
    """Heights and widths of what is decoded from now on."""
    decoded = []

    def spy(*arguments: object, **options: object) -> np.ndarray:
        pixels = original(*arguments, **options)
        decoded.append(pixels.shape[:2])
        return pixels

    original = simplejpeg.decode_jpeg
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", spy)
    return decoded


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("backend", ["cv2", "pil"])
@pytest.mark.parametrize("box", [(0, 0, 600, 600), (13, 27, 517, 501), (60, 1, 331, 590)])
def test_a_smaller_part_lies_where_the_whole_one_does(box, backend, orientation, scene, encode):
    """Half a pixel of the result aside, a smooth scene differs by some 8 levels at its steepest."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(scene, quality=95, exif=exif)
    left, top, width, height = box
    if orientation > 4:
        left, top, width, height = top, left, height, width
    whole = decode(data)[top : top + height, left : left + width]
    expected = resize(whole, 96, 96, "bilinear", backend)
    part, rest = part_of(data, (left, top, width, height), (96, 96))
    assert part.size < whole.size / 3
    result = resize(part, 96, 96, "bilinear", backend, rest)
    assert np.abs(result.astype(int) - expected).mean() < 0.8


def exact_and_fast(seed: int, size: int, backend: str) -> tuple[Pipeline, Pipeline]:
    transforms = [
        DecodeImage(),
        RandCropImage(size, interpolation="bilinear", backend=backend),
        ToCHWImage(),
    ]
    exact, fast = Pipeline(transforms), Pipeline(transforms)
    fast.decodes_parts = True
    return exact, fast


@pytest.mark.skipif(
    not PHOTOS.is_dir(), reason="needs the photographs of ../shared, not part of it"
)
@pytest.mark.parametrize(
    ("size", "backend", "mean", "equal"),
    [
        (224, "cv2", 0.2, 0.9),
        (224, "pil", 0.1, 0.9),
        (112, "cv2", 5.0, 0.2),
        (112, "pil", 1.0, 0.2),
    ],
)
def test_photographs_within_the_stated_error(size, backend, mean, equal):
    """At 224 nine of ten crops have the same bits; smaller ones differ as the docs say.

    OpenCV's bilinear skips pixels when it shrinks, so that its own result is the one that is off.
    """
    exact, fast = exact_and_fast(0, size, backend)
    differences = []
    for seed, path in enumerate(sorted(PHOTOS.glob("*.JPEG"))[:80]):
        data = path.read_bytes()
        images = [p.image(data, np.random.default_rng(seed)).astype(int) for p in (exact, fast)]
        differences.append(np.abs(images[0] - images[1]).mean())
    assert np.mean(np.equal(differences, 0)) >= equal
    assert np.mean(differences) < mean


def test_the_fast_path_draws_the_same_random_numbers(scene, encode):
    exact, fast = exact_and_fast(0, 224, "cv2")
    data = encode(scene)
    draws = [np.random.default_rng(3), np.random.default_rng(3)]
    for pipeline, rng in zip((exact, fast), draws, strict=True):
        pipeline.image(data, rng)
    assert draws[0].random() == draws[1].random()


def test_pixels_are_not_decoded_again(scene):
    exact, fast = exact_and_fast(0, 224, "cv2")
    images = [p.image(scene, np.random.default_rng(1)) for p in (exact, fast)]
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_file_is_an_error_even_if_the_part_is_whole(keep, scene, encode):
    data = encode(scene)
    with pytest.raises(DecodeError, match="truncated"):
        part_of(data[: int(len(data) * keep)], (0, 0, 16, 16), (8, 8))


def test_a_scan_that_is_cut_short_gets_the_verdict_of_the_whole(
    scene: np.ndarray, encode: Callable[..., bytes]
):
    """Half of the bits and an end marker: libjpeg fills the rest with grey, and Pillow agrees."""
    data = encode(scene)
    broken = data[: len(data) // 2] + jpeg.END
    part, _ = part_of(broken, (0, 0, 600, 600), (LARGE, LARGE))
    np.testing.assert_array_equal(part, decode(broken)[:600, :600])


def test_markers_in_a_scan_are_left_to_pillow(scene, encode):
    data = encode(scene)
    middle = len(data) // 2
    assert jpeg.read_header(data) is not None
    assert jpeg.read_header(data[:middle] + b"\xff\xe5" + data[middle:]) is None


def test_a_header_longer_than_the_file_is_left_to_pillow(noise, encode):
    data = bytearray(encode(noise))
    length = data.index(b"\xff\xda") + 2
    data[length : length + 2] = b"\xff\xff"
    assert jpeg.read_header(bytes(data)) is None
    with pytest.raises(DecodeError):
        decode(bytes(data))


def test_a_frame_without_room_for_its_channels_is_left_to_pillow():
    frame, scan = b"\xff\xc0\x00\x02", b"\xff\xda\x00\x02"
    assert jpeg.read_header(jpeg.START + frame + scan + jpeg.END) is None


@pytest.mark.parametrize("channel", [0, 2])
def test_a_channel_without_rows_is_left_to_pillow(channel, noise, encode):
    data = bytearray(encode(noise))
    data[data.index(b"\xff\xc0") + 11 + 3 * channel] &= 0xF0
    assert jpeg.read_header(bytes(data)) is None
    with pytest.raises(DecodeError):
        part_of(bytes(data), (0, 0, 10, 10), (LARGE, LARGE))


@pytest.mark.parametrize("size", [LARGE, 8])
def test_a_part_of_a_file_that_cannot_be_decoded_is_an_error(size, scene, encode):
    """libjpeg gives up at a table that is missing; memory as it was must not count as pixels."""
    data = bytearray(encode(scene))
    tables = data.index(b"\xff\xda") + 6  # of the first channel: behind the marker, ..., its number
    data[tables] = 0x33
    assert jpeg.read_header(bytes(data)) is not None
    for decoded in (decode, lambda data: part_of(data, (0, 0, 100, 100), (size, size))):
        with pytest.raises(DecodeError):
            decoded(bytes(data))


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize("rows", [1, 8, 33, 96])
def test_a_part_of_any_subsampling(sampling, rows, noise):
    data = simplejpeg.encode_jpeg(noise, colorsubsampling=sampling)
    part, _ = part_of(data, (5, 2, 190, rows), (LARGE, LARGE))
    np.testing.assert_array_equal(part, decode(data)[2 : 2 + rows, 5:195])


def test_a_picture_that_begins_with_the_colour_of_a_failure(encode):
    picture = np.full((64, 48, 3), jpeg.UNTOUCHED, np.uint8)
    data = encode(picture, quality=100, subsampling=0)
    part, _ = part_of(data, (0, 0, 48, 8), (LARGE, LARGE))
    np.testing.assert_array_equal(part, decode(data)[:8])
