"""Which pictures look alike: a perceptual hash of 64 bits, and a search that spares most pairs.

The hash is the pHash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash
Functions" (2010), section 3.2: signs of the lowest frequencies of a small grey copy. The search
follows Norouzi, Punjani, Fleet, "Fast Search in Hamming Space with Multi-Index Hashing"
(arXiv 1307.2982), section 3, with bands so many that one of them has to agree exactly. The hash
only proposes pairs: it takes all drawings of one stroke for the same, so small copies decide.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

BITS = 64
SIDE = 32  # of the grey copy that is transformed
THUMB = 16  # of the copy that is kept to compare
LARGEST_DISTANCE = 12  # beyond it the bands are so narrow that nearly all pairs share one
BLANK = 2.0  # standard deviation of the grey copy, in levels of 255, below which it shows nothing
# Correlation of the small copies. Of 250 photos, copies of quality 20, a quarter of the size,
# brightened, darkened or cropped by 1% have more; different photos of hands on paper have less.
ALIKE = 0.97
WEIGHTS = np.uint64(1) << np.arange(BITS, dtype=np.uint64)


def grey_copy(image: np.ndarray) -> np.ndarray:
    """A small grey copy, whatever the shape of the picture.

    Args:
        image: uint8 RGB [height, width, 3].

    Returns:
        float32 [32, 32], 0 to 255.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def is_blank(grey: np.ndarray) -> bool:
    """Whether a grey copy is of one colour, so that noise would decide the bits of its hash."""
    return bool(grey.std() < BLANK)


def perceptual_hash(grey: np.ndarray) -> int:
    """64 bits that survive resizing, compression and small changes of brightness.

    Args:
        grey: float32 [32, 32].
    """
    low = cv2.dct(grey)[1:9, 1:9].ravel()
    return int(WEIGHTS[low > np.median(low)].sum())


def thumb(grey: np.ndarray) -> np.ndarray:
    """uint8 [256]: 16 x 16 levels of a grey copy."""
    return grey.reshape(THUMB, 2, THUMB, 2).mean(axis=(1, 3)).astype(np.uint8).ravel()


def near_links(hashes: np.ndarray, thumbs: np.ndarray, distance: int) -> np.ndarray:
    """Links between pictures that look alike; along them all that do are connected.

    Two hashes that differ in at most ``distance`` bits agree in one of ``distance + 1`` bands of
    bits, so only pictures that do are compared, and only those not connected yet.

    Args:
        hashes: uint64 [N].
        thumbs: uint8 [N, 256]; they have to correlate by 0.97.
        distance: 0 to 12.

    Returns:
        int64 [M, 2], pairs of places.
    """
    label = np.arange(len(hashes))
    links = [np.empty((0, 2), np.int64)]
    bands = _bands(distance)
    for number, band in enumerate(bands):
        for pairs in _same_key(hashes & band):
            pairs = pairs[label[pairs[:, 0]] != label[pairs[:, 1]]]
            pairs = pairs[_distances(hashes[pairs[:, 0]], hashes[pairs[:, 1]]) <= distance]
            for earlier in bands[:number]:  # which has compared them already
                differing = hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]
                pairs = pairs[(differing & earlier) != 0]
            pairs = pairs[_correlations(thumbs[pairs[:, 0]], thumbs[pairs[:, 1]]) >= ALIKE]
            if len(pairs):
                links.append(pairs)
                label = joined(label, pairs)
    return np.concatenate(links)


def joined(label: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """One label for all nodes of a graph that are connected.

    Args:
        label: int64 [N], the lowest node of the part that each node is in; at first its own number.
        pairs: int64 [M, 2], edges to add.

    Returns:
        The new labels.
    """
    label = label.copy()
    while True:
        before = label.copy()
        ends = label[pairs]
        for side in (0, 1):
            np.minimum.at(label, ends[:, side], ends.min(axis=1))
        label = label[label]
        if np.array_equal(label, before):
            return label


def grouped(keys: np.ndarray) -> list[np.ndarray]:
    """The places of each key that stands in more than one.

    Args:
        keys: [N], or [N, K] where rows are compared.

    Returns:
        int64 arrays, ascending, in the order of their first places.
    """
    _, which, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    which = which.ravel()
    order = np.argsort(which, kind="stable")
    order = order[counts[which[order]] > 1]
    parts = np.split(order, np.flatnonzero(np.diff(which[order])) + 1) if len(order) else []
    return sorted(parts, key=lambda part: int(part[0]))


def _bands(distance: int) -> list[np.uint64]:
    """Masks that share the bits out; neighbours, which go together in photos, to several bands."""
    bits = np.arange(BITS)
    return [WEIGHTS[bits % (distance + 1) == band].sum() for band in range(distance + 1)]


def _same_key(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of places with equal keys, int64 [M, 2], in portions of M < N."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    start, step = np.arange(len(keys)), 1
    while True:
        start = start[start + step < len(keys)]
        start = start[ordered[start] == ordered[start + step]]
        if not len(start):
            return
        yield np.stack([order[start], order[start + step]], axis=1)
        step += 1


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Number of differing bits, int64 [N]; ``np.bitwise_count`` is in NumPy 2 only."""
    bits = one ^ other
    for shift, mask in ((1, 0x5555555555555555), (2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F)):
        keep, by = np.uint64(mask), np.uint64(shift)
        bits = (bits & keep) + ((bits >> by) & keep)
    return (bits * np.uint64(0x0101010101010101) >> np.uint64(56)).astype(np.int64)


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How alike two lists of small copies are, float32 [N], -1 to 1."""
    a, b = (copies.astype(np.float32) for copies in (one, other))
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return (a * b).sum(axis=1) / np.maximum(norm, 1e-6)
