"""Reliability diagrams: how often answers are right, against how sure of them a network is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppcls.errors import EnvironmentProblem
from ppcls.metrics.base import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID, BAR, MEAN = "#1f2933", "#66717d", "#e4e7eb", "#2563a8", "#d9822b"


def draw_reliability(bins: Mapping[str, Table], out: Path) -> Path:
    """Draws one panel for each of some tables of bins; returns where.

    A bar is the accuracy of the answers in a bin of confidence; its distance from their mean
    confidence is what the calibration error adds up. Below stands how many answers a bin has.

    Args:
        bins: a title, and the table ``reliability`` of the metric ``ECE``.
        out: the picture.

    Raises:
        EnvironmentProblem: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        message = "drawing needs matplotlib: pip install 'ppcls[report]'"
        raise EnvironmentProblem(message) from None
    figure: Any = Figure(figsize=(0.8 + 4.2 * len(bins), 5.8), layout="constrained")
    axes = figure.subplots(
        2, len(bins), sharex=True, sharey="row", squeeze=False, height_ratios=[4, 1]
    )
    for column, (title, table) in enumerate(bins.items()):
        _panel(axes[0, column], title, table)
        _counts(axes[1, column], table)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    axes[0, 0].set_ylabel("accuracy", color=MUTED)
    axes[1, 0].set_ylabel("share of images", color=MUTED)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, format=out.suffix.lstrip(".") or "png", dpi=150)
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"cannot write {out}: {error}") from None
    return out


def _panel(axis: Axes, title: str, table: Table) -> None:
    low, high, count, confidence, accuracy = table.values.T
    some = count > 0
    axis.bar(
        low[some],
        accuracy[some],
        (high - low)[some],
        align="edge",
        color=BAR,
        edgecolor="white",
        label="accuracy of the bin",
    )
    axis.hlines(
        confidence[some], low[some], high[some], color=MEAN, linewidth=3, label="mean confidence"
    )
    axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    axis.set_title(title, loc="left", fontsize=11, color=INK)
    _plain(axis)


def _counts(axis: Axes, table: Table) -> None:
    low, high, count, *_ = table.values.T
    axis.bar(low, count / count.sum(), high - low, align="edge", color=MUTED, edgecolor="white")
    axis.set_xlabel("confidence", color=MUTED)
    _plain(axis)


def _plain(axis: Axes) -> None:
    axis.grid(axis="y", color=GRID)
    axis.set_axisbelow(True)
    axis.tick_params(colors=MUTED, labelsize=9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
