"""``ppcls config plot``: what a configuration does over the run, drawn before it is run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.config import Config
from ppcls.config.stages import stages_of
from ppcls.errors import ArgumentError, DataError
from ppcls.report.figure import require_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 2000  # as many steps as are drawn at most; more would not be seen
ASSUMED_STEPS = 100  # an epoch, where the data set is not at hand
INK, MUTED, GRID, LINE = "#1f2933", "#66717d", "#e4e7eb", "#2563a8"


@dataclass
class Length:
    """The run that curves are drawn over.

    Attributes:
        steps_per_epoch: optimizer steps in an epoch.
        assumed: whether that is only assumed, because there is no data set.
    """

    epochs: int
    steps_per_epoch: int
    assumed: bool = False

    @property
    def steps(self) -> np.ndarray:
        """Numbers of the steps to draw: all, or as many as can be seen."""
        total = self.epochs * self.steps_per_epoch
        return np.unique(np.linspace(0, total - 1, min(total, POINTS)).astype(np.int64))

    def first_step(self, epoch: int) -> int:
        """Number of the first step of an epoch, which is counted from 1."""
        return (epoch - 1) * self.steps_per_epoch


@dataclass
class Curve:
    """One quantity over the run.

    Attributes:
        name: what it is called, with its unit if it has one.
        values: one for each of ``Length.steps``.
    """

    name: str
    values: np.ndarray


def plot(config: Config, out: Path, steps_per_epoch: int | None = None) -> Path:
    """Draws the curves of a configuration; returns where.

    Args:
        steps_per_epoch: instead of looking into the data set.

    Raises:
        ConfigError: there is no optimizer, or its schedule does not fit the run.
        UsageError, EnvironmentProblem: see ``require_figure``.
    """
    require_figure(out)
    length = measure(config, steps_per_epoch)
    figure = _draw(curves(config, length), length, Path(config.path).name)
    save_figure(figure, out)
    return out


def measure(config: Config, steps_per_epoch: int | None = None) -> Length:
    """How long the run is, by its data set where there is one."""
    epochs = config.Global.epochs
    if steps_per_epoch:
        return Length(epochs, steps_per_epoch)
    try:
        return Length(epochs, _steps_of_data(config))
    except DataError as error:
        note = f"drawn with {ASSUMED_STEPS} steps an epoch (--steps-per-epoch): {error}"
        sys.stderr.write(f"{note}\n")
        return Length(epochs, ASSUMED_STEPS, assumed=True)


def curves(config: Config, length: Length) -> list[Curve]:
    """What there is to draw, the learning rate first."""
    found = [source(config, length) for source in SOURCES]
    return [curve for curve in found if curve is not None]


def learning_rate(config: Config, length: Length) -> Curve:
    """The rates that training would use; those of ReduceOnPlateau without any reduction."""
    [optimizer] = config.require("Optimizer", purpose="drawing the learning rate")
    spec = optimizer.arguments["lr"]
    try:
        schedule = spec.build(
            epochs=length.epochs,
            steps_per_epoch=length.steps_per_epoch,
            total_batch=total_batch(config),
        )
        rates = [schedule(step) for step in length.steps.tolist()]
    except ArgumentError as error:
        raise config.problem(f"Optimizer.lr.{error.argument}", str(error)) from None
    return Curve(f"learning rate ({spec.name})", _while_averaging(config, length, np.array(rates)))


def _while_averaging(config: Config, length: Length, rates: np.ndarray) -> np.ndarray:
    """With the constant rate of ``Average: {name: SWA, lr: ...}`` from its first epoch on."""
    average: Any = config.Average.build(epochs=length.epochs) if config.Average else None
    if getattr(average, "lr", None) is None:
        return rates
    return np.where(length.steps < length.first_step(average.start_epoch), rates, average.lr)


def momentum(config: Config, length: Length) -> Curve | None:
    """The optimizer's momentum, or its first beta; it does not change."""
    arguments = config.Optimizer.arguments if config.Optimizer else {}
    name = next((name for name in ("momentum", "beta1") if arguments.get(name) is not None), None)
    if name is None:
        return None
    return Curve(name, np.full(len(length.steps), float(arguments[name])))


def ema_decay(config: Config, length: Length) -> Curve | None:
    """The decay of the averaged weights; 0 before their first epoch."""
    if config.EMA is None:
        return None
    first = length.first_step(config.EMA.start_epoch)
    decays = [config.EMA.decay_at(step, first) for step in length.steps.tolist()]
    return Curve("EMA decay", np.array(decays))


def image_size(config: Config, length: Length) -> Curve | None:
    """The size of training pictures, that of their longer side, in each stage of the run."""
    return _staged(config, length, "size", "image size (pixels)")


def magnitude(config: Config, length: Length) -> Curve | None:
    """The magnitude of RandAugment in each stage of the run."""
    return _staged(config, length, "magnitude", "RandAugment magnitude")


def batch_size(config: Config, length: Length) -> Curve | None:
    """The pictures in a batch of a process in each stage of the run."""
    return _staged(config, length, "batch_size", "batch size")


def _staged(config: Config, length: Length, setting: str, name: str) -> Curve | None:
    stages = stages_of(config)
    if stages is None or not stages.sets(setting):
        return None
    epochs = length.steps // length.steps_per_epoch + 1
    values = [getattr(stages.at(epoch), setting) for epoch in epochs.tolist()]
    return Curve(name, np.array([max(v) if isinstance(v, list) else v for v in values]))


SOURCES: tuple[Callable[[Config, Length], Curve | None], ...] = (
    learning_rate,
    momentum,
    ema_decay,
    image_size,
    magnitude,
    batch_size,
)


def total_batch(config: Config) -> int | None:
    """Samples in one optimizer step of a run as this process would start it."""
    from ppcls.engine.distributed import World

    train = config.DataLoader.Train if config.DataLoader else None
    batch = train.sampler.arguments.get("batch_size") if train else None
    if batch is None:
        return None
    return batch * World.from_environment().size * getattr(config.Global, "update_freq", 1)


def _steps_of_data(config: Config) -> int:
    from ppcls.engine.batch import build_reader
    from ppcls.engine.distributed import World
    from ppcls.engine.logging import make_logger

    if config.DataLoader is None or config.DataLoader.Train is None:
        raise DataError("the configuration has no DataLoader.Train")
    config.DataLoader.Train.loader.num_workers = 0  # it is only asked how long it is
    reader = build_reader(config, "Train", World.from_environment(), make_logger(stream=sys.stderr))
    try:
        return -(-len(reader) // config.Global.update_freq)
    finally:
        reader.close()


def _draw(drawn: list[Curve], length: Length, title: str) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    heights = [0.6 if np.ptp(curve.values) == 0 else 1.4 for curve in drawn]
    heights[0] = 2.8
    figure = Figure(figsize=(9, 1.3 + sum(heights)), layout="constrained")
    axes = figure.subplots(
        len(drawn), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    steps = f"{length.steps_per_epoch:,} steps an epoch"
    subtitle = f"{length.epochs:,} epochs, {steps}{' (assumed)' if length.assumed else ''}"
    figure.suptitle(f"{title}: {subtitle}", x=0.01, ha="left", fontsize=12, color=INK)
    for axis, curve in zip(axes, drawn, strict=True):
        _panel(axis, curve, length.steps / length.steps_per_epoch)
    axes[-1].set_xlabel("epochs done", color=MUTED)
    axes[-1].set_xlim(0, length.epochs)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _panel(axis: Axes, curve: Curve, epochs: np.ndarray) -> None:
    axis.plot(epochs, curve.values, color=LINE, linewidth=1.6, drawstyle="steps-post")
    axis.set_title(curve.name, loc="left", fontsize=10, color=INK)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=MUTED, length=0, labelsize=9)
    for side, spine in axis.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    low, high = float(curve.values.min()), float(curve.values.max())
    if low == high:
        axis.set_ylim(high - 0.1 * abs(high), high + 0.1 * abs(high))
        axis.set_yticks([high], [f"{high:.6g}"])  # 0.9999 is not 1
        return
    axis.set_ylim(low - 0.04 * (high - low), high + 0.14 * (high - low))
    at = int(curve.values.argmax())
    marks = [(-1, float(curve.values[-1]), True)]
    if marks[0][1] != high:
        marks.append((at, high, at > len(epochs) / 2))
    for place, value, right in marks:
        axis.annotate(
            f"{value:.4g}",
            (epochs[place], value),
            xytext=(-4 if right else 4, 6),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=9,
            color=INK,
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "linewidth": 0},
        )
