"""Perceptual hashes, and the search for near ones."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import support
from PIL import Image

from ppcls.report import similar
from ppcls.report.similar import (
    WEIGHTS,
    grey_copy,
    grouped,
    is_blank,
    joined,
    near_links,
    perceptual_hash,
    thumb,
)

PHOTOS = sorted((support.ROOT / "deploy" / "images").glob("*.jpg"))


def hash_of(image: np.ndarray) -> int:
    return perceptual_hash(grey_copy(image))


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


COPIES = {
    "quality 20": lambda image: jpeg(image, 20),
    "a third": lambda image: cv2.resize(image, None, fx=0.3, fy=0.3),
    "darker": lambda image: (255 * (image / 255) ** 1.4).astype(np.uint8),
    "cropped": lambda image: image[3:-3, 3:-3],
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_a_copy_is_found(path, copy):
    image = np.asarray(Image.open(path).convert("RGB"))
    greys = [grey_copy(image), grey_copy(COPIES[copy](image))]
    hashes = np.array([perceptual_hash(grey) for grey in greys], np.uint64)
    links = near_links(hashes, np.stack([thumb(grey) for grey in greys]), 6)
    assert links.tolist() == [[0, 1]]


def test_other_photos_are_far_apart():
    assert len(PHOTOS) > 2
    hashes = [hash_of(np.asarray(Image.open(path).convert("RGB"))) for path in PHOTOS]
    assert min(distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 16


def test_the_hash_is_the_signs_of_low_frequencies():
    """Bits written out from the definition: a cosine transform by its formula, in double."""
    image = np.asarray(Image.open(PHOTOS[0]).convert("RGB"))
    grey = grey_copy(image)
    n = np.arange(32)
    basis = np.cos(np.pi * (2 * n + 1)[None] * n[:, None] / 64)
    basis *= np.where(n == 0, np.sqrt(1 / 32), np.sqrt(2 / 32))[:, None]
    low = (basis @ grey @ basis.T)[1:9, 1:9].ravel()
    bits = low > np.median(low)
    assert perceptual_hash(grey) == sum(1 << i for i in np.flatnonzero(bits).tolist())


@pytest.mark.parametrize("level", [0, 128, 255])
def test_one_colour_is_blank_and_a_photo_is_not(level):
    noise = np.random.default_rng(0).integers(0, 3, (50, 70, 3))
    assert is_blank(grey_copy((level + noise - 2).clip(0, 255).astype(np.uint8)))
    assert not is_blank(grey_copy(support.picture("red", 0)))


@pytest.mark.parametrize("bits", [0, 1, 4, 6, 12])
def test_the_search_connects_what_all_pairs_would(bits):
    rng = np.random.default_rng(bits)
    hashes = rng.integers(0, 2**64, 600, dtype=np.uint64)
    for i in range(200):  # copies with up to 14 bits changed, some of copies
        flips = rng.choice(64, rng.integers(0, 15), replace=False)
        hashes[200 + i] = hashes[rng.integers(0, 200 + i)] ^ WEIGHTS[flips].sum()
    differing = hashes[:, None] ^ hashes
    counts = np.unpackbits(differing[..., None].view(np.uint8), axis=-1).sum(axis=-1)
    every = np.argwhere(counts <= bits)
    expected = grouped(joined(np.arange(600), every))
    same = np.tile(np.arange(256, dtype=np.uint8), (600, 1))
    found = grouped(joined(np.arange(600), near_links(hashes, same, bits)))
    assert [group.tolist() for group in found] == [group.tolist() for group in expected]
    assert len(expected) > 5


def test_equal_hashes_of_different_pictures_are_no_copies():
    """A hash cannot tell strokes of another width or length apart; the small copies can."""
    thumbs = np.zeros((3, 16, 16), np.uint8)
    thumbs[0, 4:12, 7:9] = 255
    thumbs[1, 4:12, 7:9] = 250
    thumbs[2, 4:12, 6:11] = 255
    links = near_links(np.zeros(3, np.uint64), thumbs.reshape(3, 256), 6)
    assert links.tolist() == [[0, 1]]


def test_a_pair_is_compared_once(monkeypatch):
    compared, real = [], similar._correlations
    monkeypatch.setattr(
        similar, "_correlations", lambda one, other: compared.append(len(one)) or real(one, other)
    )
    thumbs = np.random.default_rng(0).integers(0, 255, (30, 256), dtype=np.uint8)
    assert len(near_links(np.full(30, 12345, np.uint64), thumbs, 6)) == 0
    assert sum(compared) == 30 * 29 // 2


def test_many_hashes_are_searched_in_reasonable_time():
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    hashes[50_000] = hashes[7] ^ np.uint64(0b10101)
    thumbs = np.tile(np.arange(256, dtype=np.uint8), (len(hashes), 1))
    assert near_links(hashes, thumbs, 6).tolist() == [[7, 50_000]]
