"""RMSProp as TensorFlow has it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ppcls.optim.base import Network
from ppcls.optim.regularizers import Coefficient, Regularizer
from ppcls.optim.schedules import Schedule
from ppcls.optim.shared import CoupledOptimizer, Shared, Trained, penalty, shares
from ppcls.registry import OPTIMIZERS, REGULARIZERS, SCHEDULES, One


@OPTIMIZERS.register()
@shares
class RMSProp(CoupledOptimizer):
    """RMSProp as TensorFlow has it, which EfficientNet, MnasNet and MobileNetV3 were trained with.

    ``s = rho * s + (1 - rho) * g**2``, ``v = momentum * v + rate * g / sqrt(s + epsilon)``,
    ``w -= v``: epsilon stands in the root, and the rate in the velocity. ``s`` begins at 1, so
    that the first steps are short; PyTorch's and Paddle's begin at 0.

    Args:
        lr: the learning-rate schedule.
        momentum: factor of the velocity.
        rho: decay of the mean of squares.
        epsilon: is added to the mean of squares.
        regularizer: weight decay.
        weight_decay: coefficient of an L2 regularizer: a short way to write one.
        initial_mean_square: (ppcls) what ``s`` begins at; 0 is what PaddleClas does.
        shared: see ``Shared``.
        network: the network to train.
    """

    def __init__(
        self,
        lr: Annotated[Schedule, One(SCHEDULES)],
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        rho: Annotated[float, Field(ge=0, lt=1)] = 0.95,
        epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-6,
        regularizer: Annotated[Regularizer | None, One(REGULARIZERS)] = None,
        weight_decay: Coefficient | None = None,
        initial_mean_square: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0,
        shared: Shared = Shared(),  # noqa: B008 (frozen)
        *,
        network: Network,
    ):
        from ppcls.optim import inner

        trained = Trained(network, shared)
        decay = penalty(regularizer, weight_decay)
        rmsprop = inner.RMSProp(lr(0), rho, epsilon, momentum, parameters=trained.groups(decay))
        rmsprop._multi_precision = shared.multi_precision  # no argument of Paddle's
        rmsprop.start = initial_mean_square
        super().__init__(rmsprop, trained, lr, decay)
