"""Averages over the weights of several epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from ppcls.config.averaging import Scored
from ppcls.engine.averaging.base import Averaging, RefreshBatches
from ppcls.errors import ArgumentError
from ppcls.optim.schedules.base import Rate
from ppcls.registry import AVERAGES, SCHEDULES

if TYPE_CHECKING:
    import paddle

    from ppcls.engine.trainer import Trainer

Positive = Annotated[int, Field(ge=1)]


@AVERAGES.register()
class SWA(Averaging):
    """Stochastic weight averaging: the equal average over epochs' ends (arXiv:1803.05407).

    Args:
        start_epoch: the first epoch whose end is averaged; by default the last quarter of the run
            begins with it, as in the paper.
        every_epochs: epochs from one averaged end to the next.
        lr: a constant learning rate from ``start_epoch`` on, the paper's simple schedule; by
            default the rate stays that of ``Optimizer.lr``, which may be cyclic.
        evaluate: which weights are scored and saved: the average, the trained ones, or both.
        refresh_batches: batches of training that batch statistics are recomputed from whenever
            the average has changed; all of an epoch by default, 0 keeps the average of the
            weights' own statistics.
        epochs: length of the run.

    Raises:
        ArgumentError: the run ends before averaging starts.
    """

    name = "swa"

    def __init__(
        self,
        start_epoch: Positive | None = None,
        every_epochs: Positive = 1,
        lr: Rate | None = None,
        evaluate: Scored = "averaged",
        refresh_batches: RefreshBatches = None,
        *,
        epochs: int,
    ):
        super().__init__(evaluate, refresh_batches)
        self.start_epoch = max(1, epochs * 3 // 4) if start_epoch is None else start_epoch
        if self.start_epoch > epochs:
            expected = f"expected at most the {epochs} epochs of the run (Global.epochs)"
            raise ArgumentError("start_epoch", f"{expected}, received {start_epoch}")
        self.lr = lr
        self._every = every_epochs
        self._number = 0

    def epoch_start(self, trainer: Trainer) -> None:
        """Changes to the constant rate."""
        if self.lr is None or trainer.state.epoch < self.start_epoch:
            return
        run = trainer.optimizer.schedule.run
        trainer.optimizer.schedule = SCHEDULES.build(
            "Constant",
            {"learning_rate": self.lr},
            epochs=run.epochs,
            steps_per_epoch=run.steps_per_epoch,
        )

    def epoch_end(self, trainer: Trainer) -> None:
        """Adds the weights to the average."""
        since = trainer.state.epoch - self.start_epoch
        if since < 0 or since % self._every:
            return
        own = self._weights.read()
        self._number = self._number + 1 if self._average is not None else 1
        if self._average is None:
            self._average = own
        else:
            self._average.lerp_(own, 1 / self._number)
        self._refresh(trainer)

    def state(self) -> dict[str, Any]:
        """How many epochs' ends are averaged."""
        return {**super().state(), "number": self._number}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was."""
        super().restore(state)
        self._number = state.get("number", 0)


class _Kept(Averaging):
    """The equal average of some epochs' weights, which are kept one by one."""

    def __init__(self, k: int, evaluate: Scored, refresh_batches: RefreshBatches):
        super().__init__(evaluate, refresh_batches)
        self._k = k
        self._kept: list[paddle.Tensor] = []

    def _average_kept(self, trainer: Trainer) -> None:
        self._average = mean(self._kept)
        self._refresh(trainer)

    def arrays(self) -> dict[str, np.ndarray]:
        """Also the weights kept, as ``kept/<number>/...``."""
        arrays = super().arrays()
        for number, weights in enumerate(self._kept):
            arrays |= self._weights.to_arrays(weights, f"kept/{number}")
        return arrays

    def restore_arrays(self, trainer: Trainer, arrays: Mapping[str, np.ndarray]) -> None:
        """Puts them back."""
        super().restore_arrays(trainer, arrays)
        self._kept = []
        while self._average is not None:
            weights = self._weights.from_arrays(arrays, f"kept/{len(self._kept)}")
            if weights is None:
                break
            self._kept.append(weights)


@AVERAGES.register()
class LastK(_Kept):
    """The equal average of the weights at the ends of the last epochs.

    Args:
        k: how many; fewer as long as the run is shorter. Each takes the memory of the weights.
        evaluate: which weights are scored and saved: the average, the trained ones, or both.
        refresh_batches: as of ``SWA``.
    """

    name = "last_k"

    def __init__(
        self,
        k: Positive = 5,
        evaluate: Scored = "averaged",
        refresh_batches: RefreshBatches = None,
    ):
        super().__init__(k, evaluate, refresh_batches)

    def epoch_end(self, trainer: Trainer) -> None:
        """Takes the epoch's weights in, and the oldest out."""
        self._kept = [*self._kept, self._weights.read()][-self._k :]
        self._average_kept(trainer)


@AVERAGES.register()
class BestK(_Kept):
    """The equal average of the trained weights that scored best, by the first metric of Eval.

    Each evaluation scores the trained weights first and then the average, so it takes twice as
    long. Of equal scores the earlier one is kept.

    Args:
        k: how many; fewer until so many evaluations are done. Each takes the memory of the weights.
        refresh_batches: as of ``SWA``.
    """

    name = "best_k"

    def __init__(self, k: Positive = 3, refresh_batches: RefreshBatches = None):
        super().__init__(k, "both", refresh_batches)
        self._scores: list[float] = []

    def score_trained(self, trainer: Trainer) -> bool:
        """Scores the trained weights; averages anew if they are among the best."""
        scores = [*self._scores, self._score_trained(trainer)]
        chosen = sorted(best(scores, self._k))
        if chosen != list(range(len(self._scores))):
            kept = [*self._kept, self._weights.read()]
            self._kept = [kept[i] for i in chosen]
            self._scores = [scores[i] for i in chosen]
            self._average_kept(trainer)
        return True

    def state(self) -> dict[str, Any]:
        """The scores of the weights kept."""
        return {**super().state(), "scores": self._scores}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was."""
        super().restore(state)
        self._scores = list(state.get("scores", ()))


def best(scores: Sequence[float], k: int) -> list[int]:
    """Places of the k highest scores, of equal ones the first; the highest first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]


def mean(weights: Sequence[paddle.Tensor]) -> paddle.Tensor:
    """The equal average; what is equal in all stays to the bit."""
    average = weights[0].clone()
    for number, other in enumerate(weights[1:], 2):
        average.lerp_(other, 1 / number)
    return average
