"""Layer-wise adaptive rates for momentum."""

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
class LARS(DecoupledOptimizer):
    """Momentum with a rate for each parameter (https://arxiv.org/abs/1708.03888, algorithm 1).

    ``v = momentum * v + rate * trust * (g + weight_decay * w)``, ``w -= v``, with
    ``trust = lars_coeff * |w| / (|g| + weight_decay * |w| + epsilon)``, 1 where a norm is 0.
    Parameters that are excluded from weight decay take plain momentum's step.

    Args:
        lr: the learning-rate schedule.
        momentum: factor of the velocity.
        lars_coeff: the paper's eta; Paddle's name.
        weight_decay: coefficient of the decay.
        epsilon: is added to the norms.
        shared: see ``Shared``.
        network: the network to train.
    """

    def __init__(
        self,
        lr: Annotated[Schedule, One(SCHEDULES)],
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        lars_coeff: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.001,
        weight_decay: Coefficient | None = None,
        epsilon: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0,
        shared: Shared = Shared(),  # noqa: B008 (frozen)
        *,
        network: Network,
    ):
        from ppcls.optim import inner

        trained = Trained(network, shared)
        lars = inner.Lars(
            momentum,
            lars_coeff,
            epsilon,
            weight_decay or 0.0,
            trained.paddle_names(trained.spared),
            learning_rate=lr(0),
            parameters=trained.plain(),
            multi_precision=shared.multi_precision,
        )
        super().__init__(lars, trained, lr, weight_decay)
