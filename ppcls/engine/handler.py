"""What happens beside the training loop: the events, and the class that listens to them.

The loop's events, in order; a handler overrides those it needs:

    fit_start
    for each epoch:
        epoch_start
        for each batch:
            step_start          # a batch has arrived
            update_end          # the optimizer has stepped: after each Global.update_freq batches
            step_end(step)      # the batch is done
        epoch_end
    fit_end                     # not after an error
    close                       # always

and in between, ``scalars(kind, values)`` whenever results are there, and ``evaluated(result)``
after each evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ppcls.engine.trainer import Step, Trainer


class Handler:
    """Does nothing at every event."""

    def fit_start(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def epoch_start(self, trainer: Trainer) -> None:
        """``trainer.state.epoch`` is about to begin."""

    def step_start(self, trainer: Trainer) -> None:
        """A batch has arrived and is about to be used."""

    def update_end(self, trainer: Trainer) -> None:
        """The optimizer has stepped."""

    def step_end(self, trainer: Trainer, step: Step) -> None:
        """The batch is done; ``step.updated`` says whether the optimizer has stepped."""

    def epoch_end(self, trainer: Trainer) -> None:
        """All batches of the epoch are used."""

    def fit_end(self, trainer: Trainer) -> None:
        """After the last epoch."""

    def close(self, trainer: Trainer) -> None:
        """The run is over, for whatever reason: let go of files and processes."""

    def scalars(self, trainer: Trainer, kind: str, values: Mapping[str, float]) -> None:
        """Results of a step (``train``), an epoch (``train_avg``) or an evaluation (``eval``)."""

    def evaluated(self, trainer: Trainer, result: float) -> None:
        """The first metric of an evaluation."""

    def state(self) -> dict[str, Any]:
        """What has to survive a stop in the middle of an epoch; plain JSON values."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """After ``fit_start`` of a resumed run: what ``state`` said, or nothing."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What has to survive beside ``state``, as arrays; kept in ``ema.safetensors``."""
        return {}

    def restore_arrays(self, trainer: Trainer, arrays: Mapping[str, np.ndarray]) -> None:
        """Before ``restore`` of a resumed run: what ``arrays`` of all handlers said."""
