"""The page that ``ppcls data check`` writes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ppcls.data.image import decode
from ppcls.report.findings import Finding, Group, class_counts
from ppcls.report.page import document, figure, table, text
from ppcls.report.samples import Samples
from ppcls.report.scan import READ

SHOWN_GROUPS = 24  # of a finding
SHOWN_PICTURES = 6  # of a group
SHOWN_CLASSES = 100
SIDE = 136  # of a thumbnail, in pixels
BAR = 10  # width of the longest bar, in em


def check_page(samples: Samples, facts: np.ndarray, findings: list[Finding], summary: list) -> str:
    """The page as HTML.

    Args:
        facts: ``ppcls.report.scan.FACTS`` [N].
        summary: the part ``splits`` of the JSON file.
    """
    parts = [_overview(findings), _splits(summary)]
    parts += [_finding(samples, facts, finding) for finding in findings if finding.groups]
    parts.append(_classes(samples))
    return document(f"Data check: {samples.title}", "".join(parts))


def _overview(findings: list[Finding]) -> str:
    rows = [
        [
            f'<a href="#{f.kind}">{text(f.title)}</a>' if f.groups else text(f.title),
            f"{len(f.groups):,}" if f.groups else "none",
        ]
        for f in findings
    ]
    return table(["Finding", "Found"], rows, numbers=(1,))


def _splits(summary: list) -> str:
    rows = [
        [
            text(split["name"]),
            f"{split['pictures']:,}",
            f"{split['classes']:,}",
            *(_size(split["sizes"].get(which)) for which in ("smallest", "median", "largest")),
            f"{split['megabytes']:,.1f} MB",
            text(", ".join(f"{count:,} {kind}" for kind, count in split["formats"].items())),
        ]
        for split in summary
    ]
    head = ["Split", "Pictures", "Classes", "Narrowest, lowest", "Median", "Widest, highest"]
    return "<h2>Splits</h2>\n" + table([*head, "Files", "Formats"], rows, numbers=range(1, 7))


def _size(sides: list[int] | None) -> str:
    return f"{sides[0]} x {sides[1]}" if sides else "-"


def _finding(samples: Samples, facts: np.ndarray, finding: Finding) -> str:
    shown = finding.groups[:SHOWN_GROUPS]
    return (
        f'<h2 id="{finding.kind}">{text(finding.title)}: {len(finding.groups):,}</h2>\n'
        f"<p>{text(finding.meaning)}</p>\n{_groups(samples, facts, shown)}"
        + _more(len(finding.groups) - len(shown))
    )


def _groups(samples: Samples, facts: np.ndarray, groups: list[Group]) -> str:
    if all(len(group.pictures) == 0 for group in groups):
        items = "".join(f"<li>{text(group.note)}</li>\n" for group in groups)
        return f"<ul>\n{items}</ul>\n"
    if all(len(group.pictures) == 1 for group in groups):
        single = (_figure(samples, facts, g.pictures[0], g.note) for g in groups)
        return _row(single)
    cards = (
        f'<div class="group"><p>{text(group.note)}</p>'
        + _row(_figure(samples, facts, i, "") for i in group.pictures[:SHOWN_PICTURES])
        + f"{_more(len(group.pictures) - SHOWN_PICTURES)}</div>\n"
        for group in groups
    )
    return f'<div class="pictures">\n{"".join(cards)}</div>\n'


def _row(figures: Iterable[str]) -> str:
    return f'<div class="pictures">\n{"".join(figures)}</div>\n'


def _figure(samples: Samples, facts: np.ndarray, index: int, note: str) -> str:
    path, label = samples.path(index), samples.label_text(index)
    split = samples.split_of(index).name
    place = text(path.removeprefix(f"{samples.title}/")).replace("/", "/<wbr>")
    caption = f"{place}<br><b>{text(label)}</b> in {text(split)}"
    if note:
        caption += f"<br>{text(note)}"
    image = _thumbnail(samples, facts, index)
    alt = f"{label}, {path}" if image is not None else "cannot be read"
    return figure(image, alt, caption, SIDE)


def _thumbnail(samples: Samples, facts: np.ndarray, index: int) -> np.ndarray | None:
    if facts["state"][index] != READ:  # it may have killed the process that read it
        return None
    try:
        data = samples.read(index)
        return data if isinstance(data, np.ndarray) else decode(data)
    except Exception:  # it has changed since; the page can do without it
        return None


def _classes(samples: Samples) -> str:
    counts = np.stack([class_counts(samples, split) for split in samples.splits])
    order = np.arange(counts.shape[1])
    note = ""
    if len(order) > SHOWN_CLASSES:
        order = np.argsort(counts.sum(axis=0), kind="stable")[:SHOWN_CLASSES]
        note = f"<p>The {SHOWN_CLASSES} smallest of {counts.shape[1]:,}.</p>\n"
    longest = max(1, int(counts.max()))
    rows = [
        [
            text(samples.class_name(int(label))),
            *(
                f'<span class="bar" style="width:{BAR * count / longest:.2f}em"></span> {count:,}'
                for count in counts[:, label]
            ),
        ]
        for label in order
    ]
    head = ["Class", *(text(split.name) for split in samples.splits)]
    return f'<h2 id="balance">Pictures of each class</h2>\n{note}{table(head, rows)}'


def _more(count: int) -> str:
    return f"<p>and {count:,} more, in check.json</p>\n" if count > 0 else ""
