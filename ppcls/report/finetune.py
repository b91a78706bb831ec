"""What came of a fine-tuning: how many photos are right, class by class, and which are wrong."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.config import Config
from ppcls.report.finetune_photos import Photos
from ppcls.report.page import counted, shown, write

SHOWN = 20  # wrong photos on the screen; the file holds all


def measured(photos: Photos, config: Config) -> dict[str, Any]:
    """Predicts every tested photo as ``ppcls infer`` would, and counts.

    Args:
        config: names the weights to use.

    Returns:
        What ``results.json`` holds of the answers.
    """
    from ppcls.engine.predictor import Predictor

    lists = photos.lists
    entries = lists.splits[photos.tested]
    answers = Predictor(config).predict([str(lists.root / entry.path) for entry in entries])
    read = [(e, a) for e, a in zip(entries, answers, strict=True) if "error" not in a]
    is_true = np.array([entry.label for entry in (e for e, _ in read)])
    said = np.array([answer["class_ids"][0] for _, answer in read])
    twins = np.isin([entry.path for entry, _ in read], photos.twins)
    wrong = [
        {
            "file": entry.path,
            "is": lists.class_names[entry.label],
            "taken_for": lists.class_names[answer["class_ids"][0]],
            "score": answer["scores"][0],
        }
        for entry, answer in read
        if answer["class_ids"][0] != entry.label
    ]
    return {
        "split": photos.tested,
        "photos": len(read),
        **_share("", is_true == said),
        "lookalikes": int(twins.sum()),
        **_share("_without_lookalikes", (is_true == said)[~twins]),
        "per_class": _per_class(lists.class_names, is_true, said),
        "wrong": wrong,
    }


def _share(suffix: str, right: np.ndarray) -> dict[str, Any]:
    top1 = round(float(right.mean()), 5) if len(right) else None
    return {f"right{suffix}": int(right.sum()), f"top1{suffix}": top1}


def _per_class(names: Sequence[str], is_true: np.ndarray, said: np.ndarray) -> list[dict[str, Any]]:
    """Recall is the share of a class's photos that are found, precision that of its answers."""
    rows = []
    for label, name in enumerate(names):
        right = int(((is_true == label) & (said == label)).sum())
        count, answered = int((is_true == label).sum()), int((said == label).sum())
        rows.append(
            {
                "name": name,
                "photos": count,
                "right": right,
                "recall": round(right / count, 5) if count else None,
                "precision": round(right / answered, 5) if answered else None,
            }
        )
    return rows


def summary(results: Mapping[str, Any]) -> str:
    """Lines for a person."""
    right, count = results["right"], results["photos"]
    lines = ["", f"{right:,} of {counted(count, 'photo')} right: top-1 {_percent(results['top1'])}"]
    if alike := results["lookalikes"]:
        rest, share = results["right_without_lookalikes"], results["top1_without_lookalikes"]
        what = "photo that looks" if alike == 1 else "photos that look"
        lines.append(
            f"without the {alike} {what} like one to learn from: {rest:,} of {count - alike:,}, "
            f"top-1 {_percent(share)}"
        )
    lines += ["", *_table(results["per_class"])]
    wrong = results["wrong"]
    if wrong:
        lines += ["", f"wrong ({len(wrong)}):"]
    for row in wrong[:SHOWN]:
        names = f"is {row['is']}, taken for {row['taken_for']} ({row['score']:.2f})"
        lines.append(f"  {shown(row['file'])}  {shown(names)}")
    if len(wrong) > SHOWN:
        lines.append(f"  and {len(wrong) - SHOWN} more, in {results['files']['results']}")
    lines += ["", f"{results['seconds']:.0f} s in all; how to go on:"]
    lines += [f"  {what + ':':<9} {command}" for what, command in results["commands"].items()]
    return "\n".join(lines) + "\n"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [["class", "photos", "right", "recall", "precision"]]
    for row in rows:
        shares = [_percent(row["recall"]), _percent(row["precision"])]
        cells.append([shown(row["name"]), str(row["photos"]), str(row["right"]), *shares])
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    return [
        "  ".join(
            text.rjust(width) if i else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def commands(config: Path, weights: Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """What to type next."""
    given = [part for override in overrides for part in ("-o", override)]

    def line(name: str, *more: str) -> str:
        parts = ["ppcls", name, "-c", str(config), *given, *more]
        return shlex.join(parts)

    uses = "-o", f"Global.pretrained_model={weights}"
    return {
        "predict": f"{line('infer', *uses)} PHOTO",
        "export": line("export", *uses),
        "train again": line("train"),
    }


def write_results(results: Mapping[str, Any], out: Path) -> str:
    """Writes ``results.json`` and ``summary.txt``; returns the summary."""
    text = summary(results)
    write(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write(out / "summary.txt", text.lstrip("\n"))
    return text
