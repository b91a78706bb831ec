"""The optimizers that a configuration may name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ppcls.errors import ArgumentError, TrainingError
from ppcls.optim.base import Network, Optimizer
from ppcls.optim.regularizers import L2, Coefficient, Regularizer
from ppcls.optim.schedules import Schedule
from ppcls.registry import OPTIMIZERS, REGULARIZERS, SCHEDULES, One

if TYPE_CHECKING:
    import paddle

    from ppcls.ops.optimizer import FusedMomentum


@OPTIMIZERS.register()
class Momentum(Optimizer):
    """Stochastic gradient descent with momentum.

    ``v = momentum * v + g``, then ``w -= rate * v``, or ``w -= rate * (g + momentum * v)`` with
    Nesterov's; ``g`` is the gradient with the weight decay's share.

    Args:
        lr: the learning-rate schedule.
        regularizer: weight decay.
        weight_decay: coefficient of an L2 regularizer: a short way to write one.
        no_weight_decay_name: parts of names, separated by spaces; a parameter whose name holds one
            of them does not decay. The name that PaddleClas publishes it under counts as well.
        one_dim_param_no_weight_decay: parameters with one dimension (biases, scales of
            normalisation layers) do not decay.
        multi_precision: keep 32-bit master copies of 16-bit weights.
        network: the network to train. The parameters that its ``no_weight_decay()`` names do not
            decay either; frozen ones (``stop_gradient``) are left out for good.

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
        no_weight_decay_name: str | None = None,
        one_dim_param_no_weight_decay: bool = False,
        multi_precision: bool = False,
        *,
        network: Network,
    ):
        import paddle

        self.check_arguments(regularizer, weight_decay)
        decay = regularizer if weight_decay is None else L2(weight_decay)
        parameters = _trainable(network)
        excluded = _without_decay(
            network, parameters, no_weight_decay_name, one_dim_param_no_weight_decay
        )
        decayed = [name for name in parameters if decay and name not in excluded]
        inner = paddle.optimizer.Momentum(
            learning_rate=lr(0),
            momentum=momentum,
            parameters=_groups(parameters, decayed, decay),
            use_nesterov=use_nesterov,
            multi_precision=multi_precision,
        )
        super().__init__(inner, parameters, lr, decayed)
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
        plain = all(
            p.dtype == paddle.float32 and p.place.is_cpu_place() and p.regularizer is None
            for p in self._parameters.values()
        )
        if not plain or (decay is not None and not isinstance(decay, L2)):
            return False
        self._create_state()
        (velocities,) = self.inner._accumulators.values()
        factors = dict.fromkeys(self._decayed, decay.coeff if decay else 0.0)
        slots = [
            Slot(p, velocities[p.name], factors.get(name, 0.0), p.optimize_attr["learning_rate"])
            for name, p in self._parameters.items()
        ]
        self._fused = FusedMomentum(slots, *self._hyperparameters)
        return True

    @staticmethod
    def check_arguments(regularizer: object | None, weight_decay: float | None) -> None:
        """Raises ArgumentError if both are given."""
        if regularizer is not None and weight_decay is not None:
            expected = "expected either regularizer or weight_decay"
            raise ArgumentError("weight_decay", f"{expected}, received both")


def _trainable(network: Network) -> dict[str, paddle.Tensor]:
    parameters = {n: p for n, p in network.named_parameters() if not p.stop_gradient}
    if not parameters:
        raise TrainingError("expected a network with trainable parameters, received one without")
    return parameters


def _without_decay(
    network: Network, parameters: dict[str, paddle.Tensor], fragments: str | None, one_dim: bool
) -> set[str]:
    """Names of the parameters that do not decay, for whichever of the three reasons."""
    named_by_network: set[str] = getattr(network, "no_weight_decay", set)()
    published = [n for n in getattr(network, "namings", list)() if n.library == "PaddleClas"]
    parts = (fragments or "").split()

    def is_named(name: str) -> bool:
        names = [name, *(naming.rename(name) for naming in published)]
        return any(part in name for part in parts for name in names)

    return {
        name
        for name, parameter in parameters.items()
        if name in named_by_network or is_named(name) or (one_dim and len(parameter.shape) == 1)
    }


def _groups(
    parameters: dict[str, paddle.Tensor], decayed: list[str], decay: Regularizer | None
) -> list[dict[str, Any]]:
    """Paddle's parameter groups: those with and those without weight decay."""
    rest = [parameter for name, parameter in parameters.items() if name not in set(decayed)]
    groups: list[dict[str, Any]] = []
    if decayed and decay:
        chosen = [parameters[name] for name in decayed]
        groups.append({"params": chosen, "weight_decay": decay.paddle_regularizer()})
    if rest:
        # Written out, because Paddle would take a missing key for its own default.
        groups.append({"params": rest, "weight_decay": None})
    return groups
