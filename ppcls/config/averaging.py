"""The section ``EMA``, and what averaging asks of the rest of a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ppcls.config.problems import Problem
from ppcls.config.source import Node, origin_of

if TYPE_CHECKING:
    from ppcls.config.schema import ConfigSchema

# Which weights are scored, saved as `model.pdparams`, and used by eval, infer and export.
Scored = Literal["averaged", "trained", "both"]


@dataclass
class EMASection:
    """An exponential moving average of the weights, after every step of the optimizer.

    Attributes:
        decay: what the average keeps of itself in an update; the weights make up the rest.
        warmup: (ppcls) the decay of update t, from 0, is at most (1 + t) / (10 + t), so that the
            first weights of a short run are forgotten.
        every: (ppcls) optimizer steps from one update to the next.
        start_epoch: (ppcls) the first epoch whose steps are averaged; until it comes, the trained
            weights are scored.
        evaluate: (ppcls) which weights are scored. ``both`` logs both; the average's score
            chooses the best model.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    warmup: bool = False
    every: Annotated[int, Field(ge=1)] = 1
    start_epoch: Annotated[int, Field(ge=1)] = 1
    evaluate: Scored = "averaged"

    def decay_of(self, update: int) -> float:
        """The decay of an update, counted from 0."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    def decay_at(self, step: int, first: int = 0) -> float:
        """The decay in force at an optimizer step.

        Args:
            step: number of the step in the run, from 0.
            first: the step that averaging begins with; before it the average is the weights
                themselves, which a decay of 0 says.
        """
        return self.decay_of((step - first) // self.every) if step >= first else 0.0


def find_problems(sections: ConfigSchema, tree: Node) -> Iterator[Problem]:
    """Averages that the run cannot have."""
    ema, average, section = sections.EMA, sections.Average, sections.Global
    found = []
    if ema and average:
        found.append(("Average", f"expected one average a run: EMA and {average.name} are given"))
    if ema and ema.start_epoch > section.epochs:
        expected = f"expected at most the {section.epochs} epochs of the run (Global.epochs)"
        found.append(("EMA.start_epoch", f"{expected}, received {ema.start_epoch}"))
    if average and average.name == "BestK" and not section.eval_during_train:
        message = "expected Global.eval_during_train: evaluations tell which weights are the best"
        found.append(("Average.name", message))
    refreshes = average is not None and average.arguments["refresh_batches"] != 0
    if average and average.name == "BestK" and refreshes and section.eval_every_steps:
        message = "expected 0 with Global.eval_every_steps: the epoch's pictures are being read"
        found.append(("Average.refresh_batches", message))
    for path, message in found:
        yield Problem(origin_of(tree, path), path, message)
