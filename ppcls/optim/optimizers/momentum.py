"""Stochastic gradient descent, plain and with momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ppcls.optim.base import Network
from ppcls.optim.regularizers import L2, Coefficient, Regularizer
from ppcls.optim.schedules import Schedule
from ppcls.optim.shared import CoupledOptimizer, Shared, Trained, penalty, shares
from ppcls.registry import OPTIMIZERS, REGULARIZERS, SCHEDULES, One

if TYPE_CHECKING:
    from ppcls.ops.optimizer import FusedMomentum


@OPTIMIZERS.register()
@shares
class SGD(CoupledOptimizer):
    """Stochastic gradient descent: ``w -= rate * g``, ``g`` with the weight decay's share.

    Args:
        lr: the learning-rate schedule.
        regularizer: weight decay.
        weight_decay: coefficient of an L2 regularizer: a short way to write one.
        shared: see ``Shared``.
        network: the network to train.
    """

    def __init__(
        self,
        lr: Annotated[Schedule, One(SCHEDULES)],
        regularizer: Annotated[Regularizer | None, One(REGULARIZERS)] = None,
        weight_decay: Coefficient | None = None,
        shared: Shared = Shared(),  # noqa: B008 (frozen)
        *,
        network: Network,
    ):
        from ppcls.optim import inner

        trained = Trained(network, shared)
        decay = penalty(regularizer, weight_decay)
        sgd = inner.SGD(lr(0), trained.groups(decay), multi_precision=shared.multi_precision)
        super().__init__(sgd, trained, lr, decay)


@OPTIMIZERS.register()
@shares
class Momentum(CoupledOptimizer):
    """Stochastic gradient descent with momentum.

    ``v = momentum * v + g``, then ``w -= rate * v``, or ``w -= rate * (g + momentum * v)`` with
    Nesterov's; ``g`` is the gradient with the weight decay's share.

    Args:
        lr: the learning-rate schedule.
        momentum: factor of the velocity.
        regularizer: weight decay.
        weight_decay: coefficient of an L2 regularizer: a short way to write one.
        use_nesterov: take Nesterov's step.
        shared: see ``Shared``.
        network: the network to train. The parameters that its ``no_weight_decay()`` names do not
            decay; frozen ones (``stop_gradient``) are left out for good.

    Raises:
        ArgumentError: both ``regularizer`` and ``weight_decay`` are given.
        TrainingError: the network has nothing to train.
    """

    def __init__(
        self,
        lr: Annotated[Schedule, One(SCHEDULES)],
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        regularizer: Annotated[Regularizer | None, One(REGULARIZERS)] = None,
        weight_decay: Coefficient | None = None,
        use_nesterov: bool = False,
        shared: Shared = Shared(),  # noqa: B008 (frozen)
        *,
        network: Network,
    ):
        from ppcls.optim import inner

        trained = Trained(network, shared)
        decay = penalty(regularizer, weight_decay)
        stock = inner.Momentum(
            learning_rate=lr(0),
            momentum=momentum,
            parameters=trained.groups(decay),
            use_nesterov=use_nesterov,
            multi_precision=shared.multi_precision,
        )
        super().__init__(stock, trained, lr, decay)
        self._decay = decay
        self._hyperparameters = momentum, use_nesterov
        self._fused: FusedMomentum | None = None

    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        if self._fused is None:
            super().step()
        else:
            self._fused.step(self.inner.get_lr())

    def use_kernels(self) -> bool:
        """Steps by the CPU kernels from now on, unless something asks for more than they do."""
        import paddle

        from ppcls.ops.optimizer import FusedMomentum, Slot

        decay = self._decay
        plain = self._clip is None and all(
            p.dtype == paddle.float32 and p.place.is_cpu_place() and p.regularizer is None
            for p in self._parameters.values()
        )
        if not plain or (decay is not None and not isinstance(decay, L2)):
            return False
        self._create_state()
        (velocities,) = self.inner._accumulators.values()
        coefficients = dict.fromkeys(self._decayed, decay.coeff if decay else 0.0)

        def slot(name: str, p: paddle.Tensor) -> Slot:
            share = p.optimize_attr["learning_rate"] * self._factors[name]
            return Slot(p, velocities[p.name], coefficients.get(name, 0.0), share)

        slots = [slot(name, p) for name, p in self._parameters.items()]
        self._fused = FusedMomentum(slots, *self._hyperparameters)
        return True

    def _adjust(self) -> None:
        super()._adjust()
        if getattr(self, "_fused", None) is not None:
            self.use_kernels()
