"""JPEG files: what the header says, and decoding no more of them than is needed.

A JPEG has to be decoded from its first row on, and most of the time goes into reading its bits.
So a part is decoded in two ways at once: rows below it are not read, and a part that will be
shrunk to half its size or less is decoded at 1/2, 1/4 or 1/8 by leaving out frequencies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simplejpeg

START, END, SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
APP1 = 0xE1  # EXIF or XMP data, which may hold an orientation
BASELINE, PROGRESSIVE = (0xC0, 0xC1), 0xC2
SEGMENTS = frozenset([0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE])  # tables, APPn, comment
SHORTEST = 23  # bytes from a frame of one channel to the bits of its scan
SCALES = (8, 4, 2)
UNTOUCHED = (1, 254, 3)  # a colour that hardly begins a picture

Margins = tuple[int, int, int, int]  # what a part leaves out: left, top, right, bottom


@dataclass(frozen=True)
class JpegHeader:
    """What is known of a JPEG before it is decoded.

    Attributes:
        width, height: in pixels, as stored; see ``has_app1``.
        has_app1: whether there may be an EXIF orientation.
        height_at: where the two bytes of the height are.
        row_unit: rows of pixels that are decoded together.
        is_smoothed: whether colours of a row depend on the unit below, being stored more coarsely.
        in_order: whether the rows come one after the other, in one scan.
    """

    width: int
    height: int
    has_app1: bool
    height_at: int
    row_unit: int
    is_smoothed: bool
    in_order: bool


def read_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG that :func:`decode` can be trusted with, else None.

    That is a complete file with 8 bits in one or three channels. libjpeg fills what is missing of
    a broken one with grey, so one whose segments do not follow each other up to an end marker that
    ends the data is somebody else's case; so are four channels (CMYK).
    """
    if not data.startswith(START) or not data.endswith(END):
        return None
    position, frame, has_app1 = len(START), None, False
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        code = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if code == SCAN:
            return _header(data, frame, end, has_app1) if frame is not None else None
        if code in BASELINE or code == PROGRESSIVE:
            if frame is not None:
                return None
            frame = position
        elif code not in SEGMENTS:
            return None
        has_app1 |= code == APP1
        position = end
    return None


def _header(data: bytes, frame: int, scan: int, has_app1: bool) -> JpegHeader | None:
    if not frame + SHORTEST <= scan <= len(data):
        return None
    precision, height, width, channels = (
        data[frame + 4],
        int.from_bytes(data[frame + 5 : frame + 7], "big"),
        int.from_bytes(data[frame + 7 : frame + 9], "big"),
        data[frame + 9],
    )
    if precision != 8 or channels not in (1, 3) or not width or not height:
        return None
    heights = [data[frame + 11 + 3 * channel] & 15 for channel in range(channels)]
    if 0 in heights:
        return None
    tall = max(heights)
    marks = _markers(data, scan)
    one_scan = len(marks) == 1  # the end's: nothing but bits of the picture comes before it
    if not one_scan and not _is_whole(data, scan, marks):
        return None
    in_order = one_scan and data[frame + 1] in BASELINE
    return JpegHeader(width, height, has_app1, frame + 5, 8 * tall, tall > 1, in_order)


def _markers(data: bytes, start: int) -> np.ndarray:
    """Where markers are from ``start`` on, int64 [n].

    In a scan, FF 00 is a byte FF, and FF D0 to FF D7 are restarts.
    """
    scan = np.frombuffer(data, np.uint8, offset=start)
    marks = np.flatnonzero(scan[:-1] == 0xFF)
    codes = scan[marks + 1]
    return marks[(codes != 0) & ((codes < 0xD0) | (codes > 0xD7))] + start


def _is_whole(data: bytes, start: int, marks: np.ndarray) -> bool:
    """Whether scans and tables follow each other from the end of a scan's header to the end."""
    position, in_scan = start, True
    while True:
        following = int(np.searchsorted(marks, position))
        if following == len(marks) or (not in_scan and marks[following] != position):
            return False
        position = int(marks[following])
        code = data[position + 1]
        if code == END[1]:
            return position == len(data) - 2
        if code not in SEGMENTS and code != SCAN:
            return False
        in_scan = code == SCAN
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def decode(data: bytes) -> np.ndarray | None:
    """All pixels as stored: uint8 RGB [height, width, 3]; None if the bits are broken."""
    try:
        return simplejpeg.decode_jpeg(data)
    except ValueError:
        return None


def decode_part(
    data: bytes, header: JpegHeader, margins: Margins, width: int, height: int
) -> tuple[np.ndarray, tuple[float, float, float, float]] | None:
    """A part of a picture, as stored; smaller than stored if it stays larger than asked for.

    Args:
        margins: what the part leaves out of the picture, in pixels of the whole one.
        width, height: what the part will be resized to.

    Returns:
        (uint8 RGB [h, w, 3], what of this is not the part: left, top, right, bottom, each in
        [0, 1) pixel), or None if the bits are broken.
    """
    left, top, right, bottom = margins
    right, bottom = header.width - right, header.height - bottom
    scale = next((s for s in SCALES if s * width <= right - left and s * height <= bottom - top), 1)
    pixels = _decode_rows(data, header, bottom, scale)
    if pixels is None:
        return None
    edges = left / scale, top / scale, right / scale, bottom / scale
    first_x, first_y, last_x, last_y = (
        int(edges[0]),
        int(edges[1]),
        -int(-edges[2] // 1),
        -int(-edges[3] // 1),
    )
    rest = edges[0] - first_x, edges[1] - first_y, last_x - edges[2], last_y - edges[3]
    return pixels[first_y:last_y, first_x:last_x], rest


def _decode_rows(data: bytes, header: JpegHeader, rows: int, scale: int) -> np.ndarray | None:
    """At least the first ``rows`` rows, at 1 / ``scale``."""
    kept = (-(-rows // header.row_unit) + header.is_smoothed) * header.row_unit
    is_shortened = header.in_order and kept < header.height
    height = -(-(kept if is_shortened else header.height) // scale)
    width = -(-header.width // scale)
    options = {"min_height": height, "min_width": width} if scale > 1 else {}
    try:
        if not is_shortened:
            return simplejpeg.decode_jpeg(data, **options)
        # A picture that claims to be less high; what is left over is not an error then.
        shortened = bytearray(data)
        shortened[header.height_at : header.height_at + 2] = kept.to_bytes(2, "big")
        buffer = np.empty((height, width, 3), np.uint8)
        buffer[0, 0] = UNTOUCHED
        pixels = simplejpeg.decode_jpeg(shortened, strict=False, buffer=buffer, **options)
    except ValueError:
        return None
    # No error is raised then, not even where nothing at all could be decoded.
    return None if np.array_equal(buffer[0, 0], UNTOUCHED) else pixels
