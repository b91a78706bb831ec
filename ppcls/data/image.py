"""Decoding and resizing pictures: one policy, whichever library does the work.

Both backends read a JPEG to the same pixels. What the fast path of OpenCV would treat
differently (alpha, palettes, CMYK, 16 bits, truncated files, GIF) is decoded by Pillow for both.
"""

from __future__ import annotations

import io
import os
import re
from typing import Literal

import numpy as np
from PIL import Image

from ppcls.errors import ArgumentError, DataError

MAX_PIXELS = 89_478_485  # Pillow's own limit: 268 MB of RGB
# OpenCV refuses above its limit too; without one, a PNG of 109 kB makes it allocate 2.7 GB. Twice
# ours, as in Pillow, so that our own message comes first.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2 * MAX_PIXELS))
import cv2  # noqa: E402  (it reads the limit when it is imported)

Backend = Literal["cv2", "pil"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos", "box", "hamming"]

CV2_INTERPOLATION: dict[str, int] = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}
PIL_INTERPOLATION: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
# Formats that are pictures of pixels. Pillow knows more, among them PostScript, which it runs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# In a scan, FF 00 is a byte FF, and FF D0 to FF D7 are restarts; FF and anything else is a marker.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")
JPEG_SCAN, JPEG_END = 0xDA, 0xD9
JPEG_SEGMENTS = frozenset([*range(0xC0, 0xD0), JPEG_SCAN, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE])
EXIF_ORIENTATION = 0x0112


class DecodeError(DataError, ValueError):
    """Bytes that are not a picture, or one that this project refuses."""


def decode(data: bytes, backend: Backend = "cv2", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The first frame of a picture, turned upright as its EXIF data says, without alpha.

    Grey, palette and CMYK become RGB; of 16 bits a channel the high 8 are kept.

    Args:
        data: a whole file.
        backend: what reads a JPEG; other formats are always read by Pillow.
        max_pixels: larger pictures are refused by their header, before anything is decoded.

    Returns:
        RGB, uint8 [height, width, 3], writable.

    Raises:
        DecodeError: the reason, without the name of the file.
    """
    _check_backend(backend)
    picture = _open(data)
    width, height = picture.size
    if width * height > max_pixels:
        raise DecodeError(f"expected at most {max_pixels} pixels, received {width} x {height}")
    if backend == "cv2" and _is_plain_jpeg(picture, data):
        pixels = _decode_cv2(data)
        if pixels is not None:
            return _upright(pixels, _orientation(picture))
    return _decode_pil(picture)


def resize(
    image: np.ndarray,
    width: int,
    height: int,
    interpolation: str | None = None,
    backend: Backend = "cv2",
) -> np.ndarray:
    """The picture in another size.

    Args:
        image: uint8 [h, w, 3].
        interpolation: nearest, bilinear, bicubic, lanczos; with cv2 also area; with pil also box
            and hamming. None is the library's own default: bilinear (cv2), bicubic (pil).

    Returns:
        uint8 [height, width, 3].

    Raises:
        ArgumentError: the backend has no such interpolation.
        DataError: the result would have more than ``MAX_PIXELS`` pixels.
    """
    check_interpolation(interpolation, backend)
    if image.shape[:2] == (height, width):
        return image
    if width * height > MAX_PIXELS:
        raise DataError(
            f"expected a resized picture of at most {MAX_PIXELS} pixels, received"
            f" {width} x {height} (from {image.shape[1]} x {image.shape[0]})"
        )
    if backend == "cv2":
        method = CV2_INTERPOLATION[interpolation or "bilinear"]
        return cv2.resize(image, (width, height), interpolation=method)
    resampling = PIL_INTERPOLATION[interpolation or "bicubic"]
    return np.array(Image.fromarray(image).resize((width, height), resampling))


def check_interpolation(interpolation: str | None, backend: str) -> None:
    """Raises ArgumentError unless the backend exists and has the interpolation."""
    _check_backend(backend)
    known = CV2_INTERPOLATION if backend == "cv2" else PIL_INTERPOLATION
    if interpolation is not None and interpolation not in known:
        raise ArgumentError(
            "interpolation",
            f"expected one of {', '.join(known)} with backend {backend},"
            f" received {interpolation!r}",
        )


def use_one_thread() -> None:
    """Keeps OpenCV from starting threads in this process: the readers are parallel already."""
    cv2.setNumThreads(0)


def _check_backend(backend: str) -> None:
    if backend not in ("cv2", "pil"):
        raise ArgumentError("backend", f"expected 'cv2' or 'pil', received {backend!r}")


def _open(data: bytes) -> Image.Image:
    if not data:
        raise DecodeError("the file is empty (0 bytes)")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        start = bytes(data[:16])
        raise DecodeError(
            f"expected a picture ({', '.join(FORMATS)}), received bytes that start with {start!r}"
        ) from error
    except Exception as error:  # for broken headers Pillow raises a dozen types
        raise DecodeError(_reason(error)) from error


def _is_plain_jpeg(picture: Image.Image, data: bytes) -> bool:
    """Whether OpenCV reads it as Pillow does.

    OpenCV fills the missing part of a truncated or broken JPEG with grey and reports nothing, so
    one that is not whole is left to Pillow's verdict.
    """
    return picture.format == "JPEG" and picture.mode in ("RGB", "L") and _is_whole_jpeg(data)


def _is_whole_jpeg(data: bytes) -> bool:
    """Whether the segments follow one another, up to an end marker that ends the data."""
    position, code = 2, 0
    while (marker := JPEG_MARKER.search(data, position)) is not None:
        if code != JPEG_SCAN and marker.start() != position:
            return False
        code, end = data[marker.end() - 1], marker.end()
        if code == JPEG_END:
            return end == len(data)
        if code not in JPEG_SEGMENTS:
            return False
        position = end + int.from_bytes(data[end : end + 2], "big")
    return False


def _decode_cv2(data: bytes) -> np.ndarray | None:
    array = np.frombuffer(data, np.uint8)
    # OpenCV before 4.11 cannot write RGB directly.
    rgb_flag = getattr(cv2, "IMREAD_COLOR_RGB", None)
    flag = cv2.IMREAD_COLOR if rgb_flag is None else rgb_flag
    try:
        pixels = cv2.imdecode(array, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if pixels is not None and rgb_flag is None:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return pixels


def _decode_pil(picture: Image.Image) -> np.ndarray:
    try:
        picture.load()
        pixels = np.array(_to_rgb(picture))
    except DecodeError:
        raise
    except Exception as error:  # for broken files Pillow raises a dozen types
        raise DecodeError(_reason(error)) from error
    return _upright(pixels, _orientation(picture))


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        return Image.fromarray(_high_bytes(picture)).convert("RGB")
    if picture.mode == "F":
        raise DecodeError("expected 8 or 16 bits a channel, received floating-point pixels")
    if picture.mode in ("P", "PA"):  # convert("RGB") warns about transparent palettes
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def _high_bytes(picture: Image.Image) -> np.ndarray:
    """A 16-bit grey picture as uint8 [h, w]; Pillow's convert() would clip it to white."""
    if picture.mode == "I" and picture.format not in ("PNG", "PPM"):
        raise DecodeError("expected 8 or 16 bits a channel, received 32-bit integers")
    return (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # broken EXIF data does not make the pixels unusable
        return 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes the EXIF orientation (1-8; anything else counts as upright)."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _reason(error: Exception) -> str:
    return f"cannot be decoded: {error or type(error).__name__}"
