"""Decoding: one policy for a whole picture and for a part. Resizing: named interpolations."""

from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ppcls.data.image import DecodeError, decode, decode_part, resize
from ppcls.errors import ArgumentError, DataError

EXIF_ORIENTATION = 0x0112


def all_of_it(data: bytes, **options: int) -> np.ndarray:
    """A whole picture by the way that random crops take."""

    def box(width: int, height: int) -> tuple[int, int, int, int]:
        return 0, 0, width, height

    pixels, rest = decode_part(data, box, 10**5, 10**5, **options)
    assert rest == (0, 0, 0, 0)
    return pixels


both_ways = pytest.mark.parametrize("read", [decode, all_of_it])
both_backends = pytest.mark.parametrize("backend", ["cv2", "pil"])


@both_ways
def test_jpeg_has_the_pixels_that_pillow_and_opencv_give(read, photo, encode):
    data = encode(photo, quality=90)
    image = read(data)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(
        image, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    )


@both_ways
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_written(read, kind, photo, encode):
    np.testing.assert_array_equal(read(encode(photo, kind)), photo)


@both_ways
def test_webp(read, photo, encode):
    image = read(encode(photo, "WEBP", lossless=True))
    np.testing.assert_array_equal(image, photo)


@both_ways
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_becomes_three_equal_channels(read, kind, photo, encode):
    image = read(encode(photo[:, :, 0], kind))
    assert image.shape == photo.shape
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    assert abs(image[..., 0].astype(int) - photo[..., 0]).max() <= 3


@both_ways
def test_alpha_is_dropped_not_blended(read, photo, encode):
    alpha = np.full((*photo.shape[:2], 1), 7, np.uint8)
    image = read(encode(np.concatenate([photo, alpha], -1), "PNG"))
    np.testing.assert_array_equal(image, photo)


@both_ways
def test_palette_with_transparency(read, encode):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read(encode(picture, "PNG", transparency=bytes([0, 128, 255])))
    expected = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]
    np.testing.assert_array_equal(image, expected)


@both_ways
def test_one_bit(read, encode):
    picture = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    np.testing.assert_array_equal(read(encode(picture, "PNG"))[0, :, 0], [0, 255])


@both_ways
def test_cmyk_jpeg_is_the_picture_and_not_its_negative(read, encode):
    picture = Image.new("RGB", (16, 16), (250, 20, 30)).convert("CMYK")
    image = read(encode(picture, quality=95))
    assert abs(image.reshape(-1, 3).mean(0) - [250, 20, 30]).max() < 12


@both_ways
def test_16_bit_grey_png_keeps_its_brightness(read, encode):
    values = np.array([[0, 256, 0x8000, 0xFFFF]], np.uint16)
    image = read(encode(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(image[0, :, 1], [0, 1, 128, 255])


@both_ways
def test_16_bit_rgb_png_keeps_its_brightness(read, photo):
    data = cv2.imencode(".png", photo[:, :, ::-1].astype(np.uint16) << 8)[1].tobytes()
    np.testing.assert_array_equal(read(data), photo)


@both_ways
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_tiff_without_a_range_is_refused(read, dtype, encode):
    with pytest.raises(DecodeError, match="8 or 16 bits"):
        read(encode(Image.fromarray(np.zeros((4, 4), dtype)), "TIFF"))


@both_ways
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(read, kind, orientation, photo, encode):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    data = encode(photo, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert expected.shape == ((60, 80, 3) if orientation < 5 else (80, 60, 3))
    np.testing.assert_array_equal(read(data), expected)


@both_ways
def test_broken_exif_does_not_matter(read, photo, encode):
    data = encode(photo, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read(data).shape == photo.shape


@both_ways
def test_first_frame_of_a_gif(read, encode):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read(data)[0, 0].tolist() == [255, 0, 0]


@both_ways
@pytest.mark.parametrize("kept", [0.5, 0.9, -1, -2])
def test_truncated_jpeg_is_an_error(read, kept, encode):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(noise)
    end = int(len(data) * kept) if kept > 0 else kept
    with pytest.raises(DecodeError, match="truncated"):
        read(data[:end])


@both_ways
def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(read, photo, encode):
    data = encode(photo)
    np.testing.assert_array_equal(read(data + b"\0\0"), read(data))


@both_ways
@pytest.mark.parametrize("progressive", [False, True])
def test_broken_jpegs_get_the_verdict_and_the_pixels_of_pillow(read, progressive, encode):
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (120, 160, 3), np.uint8)
    whole = encode(noise, quality=90, progressive=progressive)
    cases = [whole[: len(whole) // 2] + b"\xff\xd9", whole[:300] + b"\xff\xd9"]
    for _ in range(40):
        broken = bytearray(whole)
        for position in rng.integers(2, len(whole) - 2, size=6):
            broken[position] = rng.choice([0, 0xFF, 0xE5, 0xD9, 0x31])
        cases.append(bytes(broken))
    verdicts = [(_pixels_or_none(read, case), _pixels_or_none(_pillow, case)) for case in cases]
    assert all(ours == pillow for ours, pillow in verdicts)
    assert len({ours is None for ours, _ in verdicts}) == 2  # some of each kind


def _pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _pixels_or_none(read: Callable[[bytes], np.ndarray], data: bytes) -> bytes | None:
    try:
        return read(data).tobytes()
    except (DecodeError, OSError, SyntaxError):
        return None


@both_ways
@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_truncated_other_formats_are_errors(read, kind, encode):
    data = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), kind)
    with pytest.raises(DecodeError):
        read(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b"hello\n", "hello"), (b"<html>", "html"), (b"\xff\xd8\xff\xd9", "picture")],
)
@both_ways
def test_what_is_no_picture(read, data, reason):
    with pytest.raises(DecodeError, match=reason):
        read(data)


@both_ways
def test_postscript_is_not_run(read):
    with pytest.raises(DecodeError, match="expected a picture"):
        read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")


def huge_png(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@both_ways
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("side", "received"), [(9_500, "9500 x 9500"), (30_000, "more than 178956970")]
)
def test_huge_pictures_are_refused_by_their_header(read, side, received):
    data = huge_png(side)
    tracemalloc.start()
    with pytest.raises(
        DecodeError, match=f"^expected at most 89478485 pixels, received {received}$"
    ):
        read(data)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@both_ways
def test_limit_of_pixels_counts(read, photo, encode):
    data = encode(photo)
    assert read(data, max_pixels=60 * 80).shape == photo.shape
    with pytest.raises(DecodeError, match=r"at most 4799 pixels, received 80 x 60"):
        read(data, max_pixels=60 * 80 - 1)


@both_backends
@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_resize_has_the_pixels_of_the_library(backend, name, photo):
    ours = resize(photo, 33, 21, name, backend)
    if backend == "cv2":
        flags = {"bilinear": "LINEAR", "bicubic": "CUBIC", "lanczos": "LANCZOS4"}
        flag = getattr(cv2, f"INTER_{flags.get(name, name.upper())}")
        expected = cv2.resize(photo, (33, 21), interpolation=flag)
    else:
        method = Image.Resampling[name.upper()]
        expected = np.asarray(Image.fromarray(photo).resize((33, 21), method))
    np.testing.assert_array_equal(ours, expected)


@both_backends
def test_resize_default_is_the_published_one(backend, photo):
    np.testing.assert_array_equal(
        resize(photo, 33, 21, None, backend), resize(photo, 33, 21, "bilinear", backend)
    )


@both_backends
def test_unknown_interpolation_lists_the_known(backend, photo):
    name = "hamming" if backend == "cv2" else "area"
    with pytest.raises(ArgumentError, match="expected one of nearest, bilinear") as caught:
        resize(photo, 8, 8, name, backend)
    assert caught.value.argument == "interpolation"


@both_backends
def test_resize_refuses_a_monstrous_result(backend):
    with pytest.raises(DataError, match="from 20000 x 1"):
        resize(np.zeros((1, 20000, 3), np.uint8), 256 * 20000, 256, None, backend)


def test_pillow_does_not_resize_floats(photo):
    floats = photo.astype(np.float32)
    with pytest.raises(DataError, match="received float32; put it before NormalizeImage"):
        resize(floats, 20, 10, backend="pil")
    assert resize(floats, 20, 10).dtype == np.float32
