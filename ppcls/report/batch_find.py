"""``ppcls batch-find``: a line for each size, and what to set."""

from __future__ import annotations

from collections.abc import Sequence

from ppcls.config import Config
from ppcls.engine.batch_finder import Plan, Trial, gibibytes

HEADER = f"{'batch':>7}  {'memory':>12}  {'pictures/s':>10}"
NEAR = 0.05  # a rate that is less than this below the best is as good
PATH = "DataLoader.Train.sampler.batch_size"


def row(trial: Trial) -> str:
    """A line of the table."""
    if trial.fits:
        return f"{trial.size:7}  {gibibytes(trial.memory):>12}  {trial.speed:10.1f}"
    return f"{trial.size:7}  {'> ' + gibibytes(trial.memory):>12}  {'too large':>10}"


def advice(trials: Sequence[Trial], plan: Plan, config: Config) -> str:
    """The largest batch, the fastest one, and what to put behind ``ppcls train``."""
    fitting = [trial for trial in trials if trial.fits]
    if not fitting:
        return f"Not even one picture a batch fits into {gibibytes(plan.limit)}."
    size = max(fitting[-1].size // plan.unit, 1) * plan.unit
    lines = [f"The largest batch within {gibibytes(plan.limit)} is {size}: -o {PATH}={size}"]
    tried_all = all(trial.fits for trial in trials)
    if tried_all:
        lines[0] = f"The largest batch that was tried, {size}, fits: -o {PATH}={size}"
    best = max(trial.speed for trial in fitting)
    enough = next(trial.size for trial in fitting if trial.speed >= (1 - NEAR) * best)
    if enough < fitting[-1].size:
        lines.append(f"Batches of more than {enough} are hardly faster.")
    why = "was not tried" if tried_all else "does not fit"
    return "\n".join([*lines, *_total(size, plan, config, why)])


def _total(size: int, plan: Plan, config: Config, why: str) -> list[str]:
    """How to keep, or to follow, the total batch that the learning rate is for."""
    every = config.Global.update_freq
    wanted = plan.batch * every
    if size < plan.batch:
        update_freq = -(-wanted // size)
        even = -(-wanted // update_freq)
        return [
            f"The configuration's {plan.batch} {why}; the same total of {wanted} a step: "
            f"-o {PATH}={even} -o Global.update_freq={update_freq}"
        ]
    if size == plan.batch:
        return ["That is the configuration's own."]
    [optimizer] = config.require("Optimizer", purpose="finding a batch size")
    base = optimizer.arguments["lr"].arguments.get("base_batch_size")
    if base:
        return [f"The learning rate follows the batch: base_batch_size is {base}."]
    return [
        f"The learning rate is meant for {wanted} pictures a step; to have it follow the batch: "
        f"-o Optimizer.lr.base_batch_size={wanted}"
    ]
