"""Decoding and resizing pictures: one policy, whichever library does the work.

A JPEG is read by libjpeg-turbo, everything else (and a JPEG that is broken, or CMYK) by Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from ppcls.data import jpeg
from ppcls.errors import ArgumentError, DataError

MAX_PIXELS = 89_478_485  # Pillow's own limit: 268 MB of RGB

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
EXIF_ORIENTATION = 0x0112
# Orientations that exchange rows and columns, and that mirror across or down after that.
TRANSPOSED, MIRRORED_X, MIRRORED_Y = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)

Box = Callable[[int, int], tuple[int, int, int, int]]
Rest = tuple[float, float, float, float]
NO_REST: Rest = (0.0, 0.0, 0.0, 0.0)


class DecodeError(DataError, ValueError):
    """Bytes that are not a picture, or one that this project refuses."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The first frame of a picture, turned upright as its EXIF data says, without alpha.

    Grey, palette and CMYK become RGB; of 16 bits a channel the high 8 are kept.

    Args:
        data: a whole file.
        max_pixels: larger pictures are refused by their header, before anything is decoded.

    Returns:
        RGB, uint8 [height, width, 3], writable.

    Raises:
        DecodeError: the reason, without the name of the file.
    """
    header = jpeg.read_header(data)
    if header is None:
        return _decode_pil(_open(data, max_pixels))
    _check_pixels(header.width, header.height, max_pixels)
    pixels = jpeg.decode(data)
    # Where libjpeg complains, Pillow has the last word: it forgives more, and says why not.
    return (
        _decode_pil(_open(data, max_pixels))
        if pixels is None
        else _upright(pixels, _jpeg_orientation(header, data))
    )


def decode_part(
    data: bytes, box: Box, width: int, height: int, *, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, Rest]:
    """A part of a picture, without decoding much more than the part if it is a JPEG.

    Args:
        data: a whole file.
        box: gives (left, top, width, height) of the part for a picture of (width, height) pixels.
        width, height: what the part will be resized to; a JPEG's part of at least twice this size
            is decoded at a half, a quarter or an eighth, whichever is just large enough.

    Returns:
        (RGB, uint8 [h, w, 3]; what of this is not the part: left, top, right, bottom, each in
        [0, 1) pixel; all 0 unless decoded at another size).

    Raises:
        DecodeError: the reason, without the name of the file.
    """
    header = jpeg.read_header(data)
    if header is not None:
        _check_pixels(header.width, header.height, max_pixels)
        turn = _jpeg_orientation(header, data)
        size, target = (header.width, header.height), (width, height)
        if turn in TRANSPOSED:
            size, target = size[::-1], target[::-1]
        left, top, part_width, part_height = box(*size)
        margins = left, top, size[0] - left - part_width, size[1] - top - part_height
        part = jpeg.decode_part(data, header, _stored(margins, turn), *target)
        if part is not None:
            return _upright(part[0], turn), _turned(part[1], turn)
        pixels = decode(data, max_pixels=max_pixels)
    else:
        pixels = decode(data, max_pixels=max_pixels)
        left, top, part_width, part_height = box(pixels.shape[1], pixels.shape[0])
    return pixels[top : top + part_height, left : left + part_width], NO_REST


def resize(
    image: np.ndarray,
    width: int,
    height: int,
    interpolation: str | None = None,
    backend: Backend = "cv2",
    rest: Rest = NO_REST,
) -> np.ndarray:
    """The picture in another size.

    Args:
        image: uint8 [h, w, 3]; with cv2 also float32.
        rest: what is not to be seen of it: left, top, right, bottom, each in [0, 1) pixel.
        interpolation: nearest, bilinear, bicubic, lanczos; with cv2 also area; with pil also box
            and hamming. None is bilinear, as the published operations have it.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ArgumentError: the backend has no such interpolation.
        DataError: more than ``MAX_PIXELS`` pixels of the result, or pixels of floats with pil.
    """
    check_interpolation(interpolation, backend)
    if image.shape[:2] == (height, width) and rest == NO_REST:
        return image
    if width * height > MAX_PIXELS:
        raise DataError(
            f"expected a resized picture of at most {MAX_PIXELS} pixels, received"
            f" {width} x {height} (from {image.shape[1]} x {image.shape[0]})"
        )
    if backend == "cv2":
        return _resize_cv2(
            image, width, height, CV2_INTERPOLATION[interpolation or "bilinear"], rest
        )
    if image.dtype != np.uint8:
        message = f"a resize with backend pil expected a picture of uint8, received {image.dtype}"
        raise DataError(f"{message}; put it before NormalizeImage")
    resampling = PIL_INTERPOLATION[interpolation or "bilinear"]
    left, top, right, bottom = rest
    box = left, top, image.shape[1] - right, image.shape[0] - bottom
    return np.array(Image.fromarray(image).resize((width, height), resampling, box))


def _resize_cv2(
    image: np.ndarray, width: int, height: int, interpolation: int, rest: Rest
) -> np.ndarray:
    if rest == NO_REST or interpolation == cv2.INTER_AREA:  # a warp has no areas
        return cv2.resize(image, (width, height), interpolation=interpolation)
    across = (image.shape[1] - rest[0] - rest[2]) / width
    down = (image.shape[0] - rest[1] - rest[3]) / height
    # Centre of pixel (x, y) of the result -> centre of a pixel of the picture.
    source = np.array(
        [
            [across, 0, rest[0] + across / 2 - 0.5],
            [0, down, rest[1] + down / 2 - 0.5],
        ]
    )
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        image, source, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


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


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise DecodeError("the file is empty (0 bytes)")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        start = bytes(data[:16])
        raise DecodeError(
            f"expected a picture ({', '.join(FORMATS)}), received bytes that start with {start!r}"
        ) from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
        raise DecodeError(
            f"expected at most {max_pixels} pixels, received more than {most}"
        ) from error
    except Exception as error:  # for broken headers Pillow raises a dozen types
        raise DecodeError(_reason(error)) from error
    _check_pixels(*picture.size, max_pixels)
    return picture


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DecodeError(f"expected at most {max_pixels} pixels, received {width} x {height}")


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


def _jpeg_orientation(header: jpeg.JpegHeader, data: bytes) -> int:
    if not header.has_app1:
        return 1
    try:
        return _orientation(Image.open(io.BytesIO(data), formats=("JPEG",)))
    except Exception:  # the pixels are there all the same
        return 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes the EXIF orientation (1-8; anything else counts as upright)."""
    if orientation == 1:
        return image
    if orientation in TRANSPOSED:
        image = image.transpose(1, 0, 2)
    if orientation in MIRRORED_X:
        image = image[:, ::-1]
    if orientation in MIRRORED_Y:
        image = image[::-1]
    return np.ascontiguousarray(image)


def _turned(margins: Any, orientation: int) -> Any:
    """Left, top, right and bottom of a stored picture after :func:`_upright`."""
    left, top, right, bottom = margins
    if orientation in TRANSPOSED:
        left, top, right, bottom = top, left, bottom, right
    if orientation in MIRRORED_X:
        left, right = right, left
    if orientation in MIRRORED_Y:
        top, bottom = bottom, top
    return left, top, right, bottom


def _stored(margins: Any, orientation: int) -> Any:
    """Left, top, right and bottom of an upright picture as they are stored."""
    left, top, right, bottom = margins
    if orientation in MIRRORED_Y:
        top, bottom = bottom, top
    if orientation in MIRRORED_X:
        left, right = right, left
    if orientation in TRANSPOSED:
        left, top, right, bottom = top, left, bottom, right
    return left, top, right, bottom


def _reason(error: Exception) -> str:
    return f"cannot be decoded: {error or type(error).__name__}"
