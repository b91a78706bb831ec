"""Pictures with captions in rows: as one PNG file, and as a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ppcls.report.page import data_uri, shown, text

LEAST, MOST = 112, 320  # pixels of a tile's longer side
FONT_SIZE = 13
LINE = 17  # pixels from one line of text to the next
GAP = 8
PAPER, INK = (255, 255, 255), (20, 20, 20)


@dataclass(frozen=True)
class Tile:
    """A picture and the lines under it.

    Attributes:
        image: uint8 RGB [height, width, 3].
    """

    image: np.ndarray
    lines: Sequence[str]


def as_png(rows: Sequence[Sequence[Tile]]) -> bytes:
    """The tiles as one picture."""
    font = _font()
    pictures = [[fitted(tile.image) for tile in row] for row in rows]
    width = max(max(p.shape[1] for p in row) for row in pictures)
    heights = [
        max(p.shape[0] for p in row) + LINE * max(len(tile.lines) for tile in tiles)
        for row, tiles in zip(pictures, rows, strict=True)
    ]
    columns = max(map(len, rows))
    size = GAP + columns * (width + GAP), GAP + sum(height + GAP for height in heights)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for row, tiles, height in zip(pictures, rows, heights, strict=True):
        for column, (picture, tile) in enumerate(zip(row, tiles, strict=True)):
            left = GAP + column * (width + GAP)
            sheet.paste(Image.fromarray(picture), (left, top))
            for number, line in enumerate(tile.lines):
                place = left, top + picture.shape[0] + LINE * number
                draw.text(place, _cut(line, width, font), fill=INK, font=font)
        top += height + GAP
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def as_html(rows: Sequence[Sequence[Tile]]) -> str:
    """The tiles as HTML, without loss, each row of tiles in one line: they shrink, then scroll."""
    return "".join(
        f'<div class="pictures row">\n{"".join(map(_figure, row))}</div><br>\n' for row in rows
    )


def fitted(image: np.ndarray) -> np.ndarray:
    """The picture itself, but enlarged in whole steps if tiny, and shrunk if huge."""
    longest = max(image.shape[:2])
    if longest < LEAST:
        times = -(-LEAST // longest)
        return image.repeat(times, axis=0).repeat(times, axis=1)
    if longest > MOST:
        height, width = (max(1, round(side * MOST / longest)) for side in image.shape[:2])
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image)


def _figure(tile: Tile) -> str:
    picture = fitted(tile.image)
    caption = "<br>".join(text(line) for line in tile.lines)
    return (
        f'<figure style="--side:{picture.shape[1]}px">'
        f'<img src="{data_uri(picture, MOST, "PNG")}" alt="{text(", ".join(tile.lines))}">'
        f"<figcaption>{caption}</figcaption></figure>\n"
    )


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype("DejaVuSans.ttf", FONT_SIZE)  # more scripts than Pillow's own
    except OSError:
        pass
    try:
        return ImageFont.load_default(FONT_SIZE)
    except TypeError:  # Pillow 10.0 has its font in one size
        return ImageFont.load_default()


def _cut(line: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """As much of a line as fits, with its end rather than its start if it is a path."""
    line = shown(line)
    if not isinstance(font, ImageFont.FreeTypeFont):  # it knows Latin-1 only
        line = line.encode("latin-1", "replace").decode("latin-1")
    if font.getlength(line) <= width:
        return line
    is_path = "/" in line
    while line and font.getlength(f"{line}...") > width:
        line = line[1:] if is_path else line[:-1]
    return f"...{line}" if is_path else f"{line}..."
