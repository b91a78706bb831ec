"""``ppcls data check``: looks at every picture of a data set before a network does."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.config import load_config
from ppcls.engine.device import require_paddle
from ppcls.errors import DataError, UsageError
from ppcls.report.check_page import check_page
from ppcls.report.findings import Finding, Group, Limits, class_counts, find
from ppcls.report.page import counted, shown, write
from ppcls.report.samples import (
    Samples,
    Split,
    samples_of_config,
    samples_of_folder,
    samples_of_lists,
)
from ppcls.report.scan import FORMAT_NAMES, READ, Scan

# In this order: a later group may hold an earlier one, and counts then.
ALIKE = ("duplicate", "near_duplicate", "conflict", "leakage")
YAML = (".yaml", ".yml")
VERSION = 1  # of the layout of the JSON file


def find_samples(
    paths: Sequence[Path],
    lists: tuple[str | None, str | None, str | None],
    overrides: Sequence[str] = (),
) -> Samples:
    """What the paths on a command line stand for: a folder, a configuration, or list files.

    Args:
        lists: ``image_root``, ``delimiter`` and ``names`` of list files.
        overrides: ``path=value`` of a configuration.

    Raises:
        UsageError: they do not go together.
        ConfigError, DataError: what they lead to is wrong.
    """
    for path in paths:
        if not path.exists():
            expected = "expected a folder, a list file or a YAML configuration"
            raise UsageError(f"{expected}, received nothing at '{path}'")
    is_config = any(path.suffix.lower() in YAML and path.is_file() for path in paths)
    is_folder = any(path.is_dir() for path in paths)
    if len(paths) > 1 and (is_config or is_folder):
        raise UsageError("expected one folder, one configuration, or several list files")
    for name, value in zip(("--image-root", "--delimiter", "--names"), lists, strict=True):
        if value is not None and (is_config or is_folder):
            raise UsageError(f"{name} goes with list files, received '{paths[0]}'")
    if overrides and not is_config:
        raise UsageError(f"-o goes with a configuration, received '{paths[0]}'")
    try:
        if is_config:
            require_paddle()
            return samples_of_config(load_config(paths[0], overrides))
        return samples_of_folder(paths[0]) if is_folder else samples_of_lists(paths, *lists)
    except OSError as error:
        raise DataError(f"{os.fsdecode(error.filename)}: {error.strerror}") from error


def check(samples: Samples, limits: Limits, workers: int, out: Path, timeout: float = 60.0) -> bool:
    """Checks all samples, prints a table, and writes ``check.html`` and ``check.json``.

    Args:
        workers: processes that decode; 0 decodes in this one.
        out: folder to write to.
        timeout: seconds after which a picture counts as stuck.

    Returns:
        Whether anything was found.
    """
    scan = Scan(samples, workers, timeout)
    _show_progress(scan)
    findings = find(samples, scan.facts, scan.errors, limits)
    splits = _summary(samples, scan.facts)
    report = _as_json(samples, limits, splits, findings)
    write(out / "check.json", json.dumps(report, indent=1) + "\n")
    write(out / "check.html", check_page(samples, scan.facts, findings, splits))
    sys.stdout.write(_as_text(samples, splits, findings))
    sys.stdout.write(f"\nsee {out / 'check.html'} and {out / 'check.json'}\n")
    return any(finding.groups for finding in findings)


def read_groups(path: Path) -> list[list[str]]:
    """The pictures that a ``check.json`` calls alike, group by group.

    Raises:
        DataError: there is no such file, or it is another one.
    """
    try:
        findings = json.loads(path.read_text(encoding="utf-8"))["findings"]
        groups = [group for kind in ALIKE for group in findings[kind]]
        return [[picture["path"] for picture in group["pictures"]] for group in groups]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected a file that 'ppcls data check' has written") from error


def _show_progress(scan: Scan) -> None:
    from tqdm import tqdm

    with tqdm(total=len(scan.facts), unit="picture", disable=not sys.stderr.isatty()) as bar:
        for done in scan.run():
            bar.update(done - bar.n)


def _summary(samples: Samples, facts: np.ndarray) -> list[dict[str, Any]]:
    numbers = samples.split_number(np.arange(len(facts)))
    return [_split(samples, s, facts[numbers == i]) for i, s in enumerate(samples.splits)]


def _split(samples: Samples, split: Split, facts: np.ndarray) -> dict[str, Any]:
    counts = class_counts(samples, split)
    facts = facts[facts["state"] == READ]
    formats = Counter(FORMAT_NAMES[number] or "pixels" for number in facts["format"].tolist())
    sizes = np.stack([facts["width"], facts["height"]], axis=1)
    return {
        "name": split.name,
        "pictures": len(split),
        "classes": int((counts > 0).sum()),
        "megabytes": round(float(facts["bytes"].sum()) / 1e6, 3),
        "formats": dict(formats.most_common()),
        "sizes": {
            "smallest": sizes.min(axis=0).tolist(),
            "median": np.median(sizes, axis=0).astype(int).tolist(),
            "largest": sizes.max(axis=0).tolist(),
        }
        if len(sizes)
        else {},
        "class_counts": [
            {"label": label, "name": samples.class_name(label), "pictures": count}
            for label, count in enumerate(counts.tolist())
        ],
    }


def _as_json(
    samples: Samples, limits: Limits, splits: list[dict[str, Any]], findings: list[Finding]
) -> dict[str, Any]:
    def picture(index: int) -> dict[str, Any]:
        return {
            "path": samples.path(index),
            "split": samples.split_of(index).name,
            "labels": list(samples.label(index)),
            "label_names": [samples.class_name(label) for label in samples.label(index)],
        }

    def group(one: Group) -> dict[str, Any]:
        return {"note": one.note, "pictures": [picture(index) for index in one.pictures]}

    return {
        "version": VERSION,
        "source": samples.title,
        "limits": vars(limits),
        "splits": splits,
        "findings": {f.kind: [group(one) for one in f.groups] for f in findings},
    }


def _as_text(samples: Samples, splits: list[dict[str, Any]], findings: list[Finding]) -> str:
    parts = [f"{split['name']} {split['pictures']:,}" for split in splits]
    title = f"{samples.title}: {counted(len(samples), 'picture')} ({', '.join(parts)})"
    lines = [shown(f"{title}, {counted(samples.class_num, 'class')}"), ""]
    width = max(len(finding.title) for finding in findings)
    for finding in findings:
        count = f"{len(finding.groups):,}" if finding.groups else "none"
        example = f"  e.g. {_example(samples, finding.groups[0])}" if finding.groups else ""
        lines.append(f"{finding.title.ljust(width)}  {count:>7}{example}")
    return "\n".join(lines) + "\n"


def _example(samples: Samples, group: Group) -> str:
    paths = ", ".join(samples.path(index) for index in group.pictures[:2])
    more = f" and {len(group.pictures) - 2} more" if len(group.pictures) > 2 else ""
    return shown(": ".join(filter(None, (f"{paths}{more}", group.note))))
