"""Reliability diagrams: how often answers are right, against how sure of them a network is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppcls.metrics.base import Table
from ppcls.report.figure import require_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4  # of panels beside each other
LETTERS = 38  # of a line above a panel
INK, MUTED, GRID, BAR, MEAN = "#1f2933", "#66717d", "#e4e7eb", "#2563a8", "#d9822b"


def draw_reliability(bins: Mapping[str, Table], out: Path) -> Path:
    """Draws one panel for each of some tables of bins; returns where.

    A bar is the accuracy of the answers in a bin of confidence; its distance from their mean
    confidence is what the calibration error adds up. Below stands how many answers a bin has.

    Args:
        bins: a title, of one or two lines, and the table ``reliability`` of the metric ``ECE``.
        out: the picture.

    Raises:
        UsageError, EnvironmentProblem: see ``require_figure``.
    """
    require_figure(out)
    from matplotlib.figure import Figure

    columns = min(len(bins), COLUMNS)
    rows = -(-len(bins) // columns)
    size = 0.8 + 4.2 * columns, 0.4 + 5.4 * rows
    figure: Any = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(
        2 * rows, columns, sharex=True, sharey="row", squeeze=False, height_ratios=[4, 1] * rows
    )
    for axis in axes.flat:
        axis.set_visible(False)  # in the last row there may be fewer than columns
    for place, (title, table) in enumerate(bins.items()):
        row, column = divmod(place, columns)
        above, below = axes[2 * row, column], axes[2 * row + 1, column]
        _panel(above, title, table)
        _counts(below, table)
        below.tick_params(labelbottom=True)  # also above an empty place
        if column == 0:
            above.set_ylabel("accuracy", color=MUTED)
            below.set_ylabel("share of images", color=MUTED)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, out)
    return out


def _panel(axis: Axes, title: str, table: Table) -> None:
    axis.set_visible(True)
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
    lines = [s if len(s) <= LETTERS else f"…{s[1 - LETTERS :]}" for s in title.splitlines()]
    axis.set_title("\n".join(lines), loc="left", fontsize=11, color=INK, parse_math=False)
    _plain(axis)


def _counts(axis: Axes, table: Table) -> None:
    axis.set_visible(True)
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
