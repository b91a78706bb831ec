"""Lion: steps of equal size in every coordinate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ppcls.optim.base import Network
from ppcls.optim.regularizers import Coefficient
from ppcls.optim.schedules import Schedule
from ppcls.optim.shared import DecoupledOptimizer, Shared, Trained, shares
from ppcls.registry import OPTIMIZERS, SCHEDULES, One


@OPTIMIZERS.register()
@shares
class Lion(DecoupledOptimizer):
    """Evolved sign momentum (https://arxiv.org/abs/2302.06675, algorithm 2).

    ``w -= rate * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * w)``, then
    ``m = beta2 * m + (1 - beta2) * g``. The paper takes a third to a tenth of AdamW's rate, and a
    weight decay as much larger.

    Args:
        lr: the learning-rate schedule.
        beta1: share of the moment in the step's direction.
        beta2: decay of the moment.
        weight_decay: coefficient of the decay.
        shared: see ``Shared``.
        network: the network to train.
    """

    def __init__(
        self,
        lr: Annotated[Schedule, One(SCHEDULES)],
        beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99,
        weight_decay: Coefficient | None = None,
        shared: Shared = Shared(),  # noqa: B008 (frozen)
        *,
        network: Network,
    ):
        from ppcls.optim import inner

        trained = Trained(network, shared)
        lion = inner.Lion(
            beta1,
            beta2,
            weight_decay or 0.0,
            trained.paddle_names(trained.decayed(weight_decay)),
            learning_rate=lr(0),
            parameters=trained.plain(),
            multi_precision=shared.multi_precision,
        )
        super().__init__(lion, trained, lr, weight_decay)
