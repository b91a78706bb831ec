"""What ``ppcls data list`` prints: how many pictures went where, and how to use the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ppcls.data.lists import Lists
from ppcls.report.page import counted, shown

SECTIONS = {"train": "Train", "val": "Eval"}


def summary(lists: Lists, files: list[Path]) -> str:
    """A line a file, what to beware of, and the lines of a configuration that use the files."""
    total = sum(map(len, lists.splits.values()))
    classes = len(lists.class_names)
    lines = [f"{lists.root}: {counted(total, 'picture')} in {counted(classes, 'class')}"]
    counts = [*(counted(len(entries), "picture") for entries in lists.splits.values())]
    width = max(len(str(file)) for file in files)
    for file, count in zip(files, [*counts, counted(classes, "name")], strict=True):
        lines.append(f"  {str(file).ljust(width)}  {count}")
    for split, entries in lists.splits.items():
        used = {entry.label for entry in entries}
        missing = [name for label, name in enumerate(lists.class_names) if label not in used]
        if missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            lines.append(f"no pictures for {split} of {', '.join(missing[:10])}{more}")
    text = yaml.safe_dump(_configuration(lists, files), sort_keys=False, allow_unicode=True)
    return "\n".join(map(shown, lines)) + f"\n\nin a configuration:\n\n{text}"


def _configuration(lists: Lists, files: list[Path]) -> dict[str, Any]:
    readers = {
        SECTIONS[split]: {
            "dataset": {
                "name": "ImageNetDataset",
                "image_root": str(lists.root),
                "cls_label_path": str(file),
            }
        }
        for split, file in zip(lists.splits, files, strict=False)
        if split in SECTIONS
    }
    return {
        "Arch": {"class_num": len(lists.class_names)},
        "DataLoader": readers,
        "Infer": {"PostProcess": {"class_id_map_file": str(files[-1])}},
    }
