"""What every way of averaging weights during training has in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from ppcls.config.averaging import Scored
from ppcls.engine import logging as log
from ppcls.engine.averaging.flat import FlatWeights
from ppcls.engine.averaging.statistics import refresh, trained_norms
from ppcls.engine.handler import Handler

if TYPE_CHECKING:
    import paddle

    from ppcls.engine.trainer import Trainer

TRAINED = "trained"
# Batches that batch statistics are recomputed from; None: all of an epoch, 0: not at all.
RefreshBatches = Annotated[int, Field(ge=0)] | None


class Averaging(Handler):
    """Averages the weights of a run, and lends the average to whoever scores or saves.

    Of the network only ``trainer.net`` is averaged. Every process computes the same average of
    the parameters by itself; batch statistics are each process's own, until an evaluation gives
    all of them the first one's.

    Args:
        evaluate: which weights are scored and saved as ``model.pdparams``.
        refresh_batches: see ``RefreshBatches``.
    """

    name: ClassVar[str]

    def __init__(self, evaluate: Scored = "averaged", refresh_batches: RefreshBatches = 0):
        self.evaluate = evaluate
        self._refresh_batches = refresh_batches
        self._average: paddle.Tensor | None = None
        self._lending = True
        self._best_trained: float | None = None

    @property
    def label(self) -> str:
        """Which weights ``scored`` shows: ``trained``, or the name of the average."""
        lends = self._average is not None and self._lending and self.evaluate != TRAINED
        return self.name if lends else TRAINED

    @property
    def scored_name(self) -> str:
        """As ``label`` says, but empty for the trained weights."""
        return "" if self.label == TRAINED else self.label

    @contextmanager
    def scored(self, trainer: Trainer) -> Iterator[None]:
        """``trainer.net`` holds the weights that are scored; afterwards it is as before, exactly.

        Inside another such block nothing changes.
        """
        if self.label == TRAINED or self._weights.is_replaced:
            yield
            return
        with self._weights.replaced(self._average):
            yield

    def score_trained(self, trainer: Trainer) -> bool:
        """Scores the trained weights before an evaluation, if both are asked for; says whether."""
        does = self.evaluate == "both" and self.label != TRAINED
        if does:
            self._score_trained(trainer)
        return does

    # Events ------------------------------------------------------------------------------------

    def fit_start(self, trainer: Trainer) -> None:
        """Looks at the network, which is complete now."""
        self._weights = FlatWeights(trainer.net)

    def state(self) -> dict[str, Any]:
        """The best score of the trained weights, for the log."""
        return {"best_trained": self._best_trained}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was."""
        self._best_trained = state.get("best_trained")

    def arrays(self) -> dict[str, np.ndarray]:
        """The average as ``<name>/...``, and ``trained/...`` where the average is saved as model.

        Names behind the stroke are those of the state dict; all arrays are float32.
        """
        if self._average is None:
            return {}
        arrays = self._weights.to_arrays(self._average, self.name)
        if self.label != TRAINED:
            arrays |= self._weights.to_arrays(self._weights.read(), TRAINED)
        return arrays

    def restore_arrays(self, trainer: Trainer, arrays: Mapping[str, np.ndarray]) -> None:
        """Puts the average and the trained weights back, to the same bits.

        Without arrays, or with those of another way of averaging, the average starts anew.

        Raises:
            WeightsError: the arrays are not of this network.
        """
        self._average = self._weights.from_arrays(arrays, self.name)
        trained = self._weights.from_arrays(arrays, TRAINED)
        if trained is not None:
            self._weights.write(trained)

    # What the ways of averaging need -----------------------------------------------------------

    def _refresh(self, trainer: Trainer) -> None:
        """Recomputes the average's batch statistics from an epoch's pictures, not mixed."""
        if self._refresh_batches == 0 or not trained_norms(trainer.net):
            return
        from ppcls.engine.batch import ToTensors

        to_tensors = ToTensors(trainer.reader.dataset.pipeline)
        with (
            self._weights.replaced(self._average),
            closing(trainer.reader.epoch(trainer.state.epoch)) as batches,
        ):
            most = trainer.batches_in(trainer.state.epoch)
            chosen = islice(batches, min(most, self._refresh_batches or most))
            with trainer.precision.evaluation():
                refresh(trainer.net, (to_tensors(batch)[0] for batch in chosen))
            trainer.world.share_buffers(trainer.net)
            self._weights.read_into(self._average)

    def _score_trained(self, trainer: Trainer) -> float:
        """Evaluates the trained weights and logs it; the first metric, of which more is better."""
        self._lending = False
        try:
            result = trainer.evaluate()
        finally:
            self._lending = True
        from ppcls.engine.model import build_metric

        metric = build_metric(trainer.config, "Eval")
        score, sign = result[metric.main_name], 1 if metric.higher_is_better else -1
        if self._best_trained is None or sign * score > sign * self._best_trained:
            self._best_trained = score
        epoch = trainer.state.epoch
        trainer.logger.info(log.eval_average_line(epoch, result))
        trainer.logger.info(log.best_line(epoch, self._best_trained))
        trainer.emit("scalars", "eval_trained", result)
        return sign * score
