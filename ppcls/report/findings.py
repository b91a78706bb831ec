"""What may be wrong with a data set, found in the facts about its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ppcls.report.page import counted
from ppcls.report.samples import Samples, Split
from ppcls.report.scan import FAILED, FORMAT_NAMES, READ, SUFFIXES
from ppcls.report.similar import grouped, joined, near_links


@dataclass(frozen=True)
class Limits:
    """From where on something counts as a finding.

    Attributes:
        min_side: pixels of the shorter side, below which a picture is tiny.
        max_pixels: above which a picture is huge.
        near: bits that two perceptual hashes may differ in; None looks for none.
        imbalance: pictures of the largest class to one of the smallest.
    """

    min_side: int = 24
    max_pixels: int = 25_000_000
    near: int | None = 6
    imbalance: float = 10.0


@dataclass(frozen=True)
class Group:
    """Pictures that belong together in a finding, or a remark without any.

    Attributes:
        pictures: indices of the samples.
        note: what is wrong with them.
    """

    pictures: Sequence[int]
    note: str


@dataclass
class Finding:
    """One kind of problem.

    Attributes:
        kind: a short name for programs.
        title: what a person reads.
        meaning: why it matters, and what to do.
        groups: what was found; nothing if all is well.
    """

    kind: str
    title: str
    meaning: str
    groups: list[Group] = field(default_factory=list)


KINDS = {
    "unreadable": ("Cannot be read", "Training stops at them, or leaves them out: remove them."),
    "leakage": (
        "In more than one split",
        "The result of an evaluation is too good: keep each picture in one split only.",
    ),
    "conflict": (
        "Alike, with different labels",
        "One of the labels is wrong, or the classes overlap: look at each group.",
    ),
    "duplicate": (
        "The same pixels several times in a split",
        "They count double, in training as in evaluation.",
    ),
    "near_duplicate": (
        "Nearly the same in a split",
        "Copies in another size or quality, or a burst of photos: there is less variety than"
        " the number of pictures says. Do not let a split part them.",
    ),
    "blank": ("Of one colour", "There is nothing to be learnt from them but their colour."),
    "tiny": ("Tiny", "Enlarging them shows the network a blur."),
    "huge": ("Huge", "Decoding them slows the reader down: scale them down once."),
    "wrong_extension": (
        "Named as another format",
        "They are read by their content here; other programs go by the name.",
    ),
    "left_out": ("Files that are not read", "No class folder, or no extension of a picture."),
    "classes": ("Classes", "A class with few pictures is learnt badly and measured badly."),
}


def find(samples: Samples, facts: np.ndarray, errors: dict[int, str], limits: Limits) -> list:
    """All findings, also those without any groups, in the order of :data:`KINDS`.

    Args:
        facts: ``ppcls.report.scan.FACTS`` [N].
        errors: why a picture could not be read, by its index.
    """
    found: dict[str, Iterator[Group]] = {
        "unreadable": (Group([i], errors.get(i, "")) for i in _where(facts["state"] == FAILED)),
        **_alike(samples, facts, limits),
        "blank": (Group([i], "") for i in _where(_read(facts) & facts["blank"])),
        "tiny": _sized(facts, _short_side(facts) < limits.min_side),
        "huge": _sized(facts, _pixels(facts) > limits.max_pixels),
        "wrong_extension": _misnamed(samples, facts),
        "left_out": (Group([], path) for split in samples.splits for path in split.left_out),
        "classes": _class_notes(samples, limits),
    }
    return [Finding(kind, *texts, list(found[kind])) for kind, texts in KINDS.items()]


def class_counts(samples: Samples, split: Split) -> np.ndarray:
    """Pictures of each class in a split, int64 [classes]."""
    if split.labels.ndim == 2:
        return (split.labels >= 0.5).sum(axis=0)
    return np.bincount(split.labels, minlength=samples.class_num)


def look_alikes(
    facts: np.ndarray, near: int | None = Limits.near
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Groups of pictures with the same pixels, and of pictures that are the same or nearly.

    Args:
        facts: ``ppcls.report.scan.FACTS`` [N].
        near: as in ``Limits``.

    Returns:
        Two lists of places, int64 [members].
    """
    readable = np.flatnonzero(_read(facts))
    same = [readable[group] for group in grouped(facts["digest"][readable])]
    links = [np.stack([np.full(len(g) - 1, g[0]), g[1:]], axis=1) for g in same]
    if near is not None:
        copies = np.concatenate([np.empty(0, np.int64), *(group[1:] for group in same)])
        shaped = np.setdiff1d(readable[~facts["blank"][readable]], copies)
        pairs = near_links(facts["hash"][shaped], facts["thumb"][shaped], near)
        links.append(shaped[pairs])
    edges = np.concatenate([np.empty((0, 2), np.int64), *links])
    return same, grouped(joined(np.arange(len(facts)), edges))


def _alike(samples: Samples, facts: np.ndarray, limits: Limits) -> dict[str, Iterator[Group]]:
    """Findings about equal and similar pictures."""
    splits = samples.split_number(np.arange(len(facts)))
    same, alike = look_alikes(facts, limits.near)
    return {
        "leakage": _leaks(samples, facts, alike, splits),
        "conflict": _conflicts(samples, alike),
        "duplicate": (
            Group(part.tolist(), "") for group in same for part in _by_split(group, splits)
        ),
        "near_duplicate": (
            Group(part.tolist(), "")
            for group in alike
            for part in _by_split(group, splits)
            if _kinds_of_pixels(facts, part) > 1
        ),
    }


def _leaks(
    samples: Samples, facts: np.ndarray, alike: list[np.ndarray], splits: np.ndarray
) -> Iterator[Group]:
    for group in alike:
        if len(np.unique(splits[group])) > 1:
            names = (samples.splits[i].name for i in np.unique(splits[group]))
            both = np.unique(np.column_stack([facts["digest"][group], splits[group]]), axis=0)
            exact = len(grouped(both[:, :2])) > 0
            what = "the same pixels" if exact else "nearly the same"
            yield Group(group.tolist(), f"{what} in {' and '.join(names)}")


def _conflicts(samples: Samples, alike: list[np.ndarray]) -> Iterator[Group]:
    for group in alike:
        labels = {samples.label(int(index)): samples.label_text(int(index)) for index in group}
        if len(labels) > 1:
            yield Group(group.tolist(), " | ".join(labels[key] for key in sorted(labels)))


def _by_split(group: np.ndarray, splits: np.ndarray) -> list[np.ndarray]:
    """The members of a group that are in the same split as another one."""
    return [group[places] for places in grouped(splits[group])]


def _kinds_of_pixels(facts: np.ndarray, group: np.ndarray) -> int:
    return len(np.unique(facts["digest"][group], axis=0))


def _sized(facts: np.ndarray, condition: np.ndarray) -> Iterator[Group]:
    for index in _where(_read(facts) & condition):
        yield Group([index], f"{facts['width'][index]} x {facts['height'][index]}")


def _misnamed(samples: Samples, facts: np.ndarray) -> Iterator[Group]:
    for index in _where(_read(facts)):
        kind = FORMAT_NAMES[facts["format"][index]]
        suffix = Path(samples.path(index)).suffix.lower()
        if suffix and SUFFIXES[kind] and suffix not in SUFFIXES[kind]:
            yield Group([index], f"{kind}, named {suffix}")


def _class_notes(samples: Samples, limits: Limits) -> Iterator[Group]:
    if samples.class_num == 1:
        name = samples.class_name(0)
        yield Group([], f"all pictures are of one class, {name}: is it the folder of the classes?")
    for split in samples.splits:
        counts = class_counts(samples, split)
        missing = [samples.class_name(i) for i in _where(counts == 0)]
        if missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            yield Group([], f"{split.name}: no pictures of {', '.join(missing[:10])}{more}")
        if not counts.any():
            continue
        largest, present = int(counts.argmax()), np.flatnonzero(counts)
        smallest = int(present[counts[present].argmin()])
        ratio = counts[largest] / counts[smallest]
        if ratio > limits.imbalance:
            names = samples.class_name(largest), samples.class_name(smallest)
            yield Group(
                [],
                f"{split.name}: {counted(int(counts[largest]), 'picture')} of {names[0]},"
                f" {counts[smallest]} of {names[1]}, {ratio:.3g} times fewer",
            )


def _where(condition: np.ndarray) -> list[int]:
    return np.flatnonzero(condition).tolist()


def _read(facts: np.ndarray) -> np.ndarray:
    return facts["state"] == READ


def _short_side(facts: np.ndarray) -> np.ndarray:
    return np.minimum(facts["width"], facts["height"])


def _pixels(facts: np.ndarray) -> np.ndarray:
    return facts["width"].astype(np.int64) * facts["height"]
