"""``ppcls lr-find``: the losses over the learning rate, drawn and as a table, and what to set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ppcls.config import Config
from ppcls.engine.lr_finder import Sweep
from ppcls.report.config_plot import GRID, INK, LINE, MUTED
from ppcls.report.figure import save_figure

ROWS = 15
STEEPEST, TENTH = "#c2571a", "#2e8540"
MARGIN = 0.15  # of the smoothed curve's height below it, and four of them above it
LEAST = 0.2  # of the loss: a curve that falls by less is not drawn any higher


def table(sweep: Sweep) -> str:
    """Some steps of the sweep, a line each."""
    chosen = np.unique(np.linspace(0, len(sweep.rates) - 1, ROWS).round().astype(int))
    lines = [f"{'rate':>9}  {'loss':>9}  {'smoothed':>9}"]
    lines += [
        f"{sweep.rates[i]:9.2e}  {sweep.losses[i]:9.4f}  {sweep.smooth[i]:9.4f}" for i in chosen
    ]
    return "\n".join(lines)


def advice(sweep: Sweep, config: Config) -> str:
    """What the sweep says, and what to put behind ``ppcls train``."""
    steps = len(sweep.rates)
    end = (
        f"exploded after {steps} steps, at {sweep.rates[-1]:.2g}"
        if sweep.exploded
        else "did not explode"
    )
    if sweep.suggestion is None or sweep.steepest is None or sweep.tenth is None:
        return (
            f"The loss {end}, and did not fall by more than it scatters: no suggestion. More "
            "--steps, or larger batches (Global.update_freq), show more."
            + (f" A rate above {sweep.rates[-1] / 10:.1g} is too high." if sweep.exploded else "")
        )
    lines = [
        f"the loss falls fastest at        {sweep.steepest:.1e}",
        f"a tenth of where it is lowest    {sweep.tenth:.1e}  (cautious)",
    ]
    if sweep.scale != 1:
        lines.append(
            f"as the configuration counts it, for base_batch_size: divided by {sweep.scale:g}"
        )
    settings = " ".join(f"-o {s}" for s in settings_for(sweep.suggestion, config))
    return "\n".join([*lines, f"The loss {end}. Try {settings}"])


def settings_for(rate: float, config: Config) -> list[str]:
    """The overrides that make ``rate`` the highest one of the configuration's schedule."""
    [optimizer] = config.require("Optimizer", purpose="finding a learning rate")
    schedule = optimizer.arguments["lr"]
    given, path = schedule.arguments, "Optimizer.lr"
    if "max_learning_rate" in given:
        settings = {"max_learning_rate": rate}
        if "base_learning_rate" in given:  # Smith, section 3.3: a third or a fourth
            settings["base_learning_rate"] = float(f"{rate / 4:.1e}")
    elif "values" in given:
        ratio = rate / given["values"][0]
        listed = [float(f"{value * ratio:.1e}") for value in given["values"]]
        alone = given.get("learning_rate") is None
        return [
            f"{path}.values='{listed}'",
            *([] if alone else [f"{path}.learning_rate={listed[0]:g}"]),
        ]
    else:
        settings = {"learning_rate": rate}
    return [f"{path}.{name}={value:g}" for name, value in settings.items()]


def plot(sweep: Sweep, out: Path, title: str) -> None:
    """Draws the sweep. Raises EnvironmentProblem: the file cannot be written."""
    save_figure(_draw(sweep, title), out)


def _draw(sweep: Sweep, title: str) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axis = figure.subplots()
    figure.suptitle(f"{title}: loss over the learning rate", x=0.01, ha="left", color=INK)
    axis.plot(sweep.rates, sweep.losses, color=MUTED, linewidth=0.8, alpha=0.6, label="loss")
    axis.plot(sweep.rates, sweep.smooth, color=LINE, linewidth=2, label="smoothed")
    marks = (("falls fastest", sweep.steepest, STEEPEST), ("lowest / 10", sweep.tenth, TENTH))
    for name, rate, colour in marks:
        if rate is not None:
            at = float(np.interp(np.log(rate), np.log(sweep.rates), sweep.smooth))
            axis.axvline(rate, color=colour, linewidth=1, linestyle="--")
            axis.plot([rate], [at], "o", color=colour, label=f"{name}: {rate:.1e}")
    axis.set_xscale("log")
    axis.set_ylim(*_limits(sweep))
    axis.set_xlabel("learning rate of the optimizer", color=MUTED)
    axis.set_ylabel("loss", color=MUTED)
    axis.grid(color=GRID, linewidth=0.8)
    axis.tick_params(which="both", colors=MUTED, length=0, labelsize=9)
    for spine in axis.spines.values():
        spine.set_color(GRID)
    axis.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _limits(sweep: Sweep) -> tuple[float, float]:
    """Of the losses that are drawn: an exploded end would flatten all that matters."""
    low = float(sweep.smooth.min())
    high = float(sweep.smooth[: sweep.lowest + 1].max())
    height = max(high - low, LEAST * abs(high))
    return low - MARGIN * height, high + 4 * MARGIN * height
