"""Adam and its kin with moments of gradients: AdamW, AdamW with layer-wise decay, Lamb."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from ppcls.errors import ArgumentError
from ppcls.optim.base import Network
from ppcls.optim.regularizers import Coefficient, Regularizer
from ppcls.optim.schedules import Schedule
from ppcls.optim.shared import (
    CoupledOptimizer,
    DecoupledOptimizer,
    Shared,
    Trained,
    penalty,
    shares,
)
from ppcls.registry import OPTIMIZERS, REGULARIZERS, SCHEDULES, One

Beta = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@OPTIMIZERS.register()
@shares
class Adam(CoupledOptimizer):
    """Adam (https://arxiv.org/abs/1412.6980), weight decay added to the gradient.

    ``m = beta1 * m + (1 - beta1) * g``, ``v = beta2 * v + (1 - beta2) * g**2``, then
    ``w -= rate * M / (sqrt(V) + epsilon)`` with ``M = m / (1 - beta1**t)``, ``V`` likewise.

    Args:
        lr: the learning-rate schedule.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares.
        epsilon: keeps the quotient finite.
        lazy_mode: published; no gradient here is sparse, so that it changes nothing.
        regularizer: weight decay.
        weight_decay: coefficient of an L2 regularizer: a short way to write one.
        shared: see ``Shared``.
        network: the network to train.
    """

    def __init__(
        self,
        lr: Annotated[Schedule, One(SCHEDULES)],
        beta1: Beta = 0.9,
        beta2: Beta = 0.999,
        epsilon: Epsilon = 1e-8,
        lazy_mode: bool = False,
        regularizer: Annotated[Regularizer | None, One(REGULARIZERS)] = None,
        weight_decay: Coefficient | None = None,
        shared: Shared = Shared(),  # noqa: B008 (frozen)
        *,
        network: Network,
    ):
        from ppcls.optim import inner

        trained = Trained(network, shared)
        decay = penalty(regularizer, weight_decay)
        adam = inner.Adam(
            lr(0),
            beta1,
            beta2,
            epsilon,
            parameters=trained.groups(decay),
            lazy_mode=lazy_mode,
            multi_precision=shared.multi_precision,
        )
        super().__init__(adam, trained, lr, decay)


@OPTIMIZERS.register()
@shares
class AdamW(DecoupledOptimizer):
    """Adam with decoupled weight decay (https://arxiv.org/abs/1711.05101).

    First ``w -= rate * weight_decay * w``, then Adam's step.

    Args:
        lr: the learning-rate schedule.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares.
        epsilon: keeps the quotient finite.
        weight_decay: coefficient of the decay.
        shared: see ``Shared``.
        network: the network to train.
    """

    def __init__(
        self,
        lr: Annotated[Schedule, One(SCHEDULES)],
        beta1: Beta = 0.9,
        beta2: Beta = 0.999,
        epsilon: Epsilon = 1e-8,
        weight_decay: Coefficient | None = None,
        shared: Shared = Shared(),  # noqa: B008 (frozen)
        *,
        network: Network,
    ):
        from ppcls.optim import inner

        trained = Trained(network, shared)
        decayed = trained.paddle_names(trained.decayed(weight_decay))
        adam = inner.AdamW(
            lr(0),
            beta1,
            beta2,
            epsilon,
            parameters=trained.plain(),
            weight_decay=weight_decay or 0.0,
            apply_decay_param_fun=decayed.__contains__,
            multi_precision=shared.multi_precision,
        )
        super().__init__(adam, trained, lr, weight_decay)


@OPTIMIZERS.register()
@shares
class AdamWDL(AdamW):
    """AdamW whose rate shrinks from block to block towards the input, as PaddleClas calls it.

    Args:
        lr: the learning-rate schedule.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares.
        epsilon: keeps the quotient finite.
        weight_decay: coefficient of the decay.
        layerwise_decay: the same as ``layer_decay``.
        filter_bias_and_bn: biases and parameters with one dimension do not decay.
        shared: see ``Shared``.
        network: the network to train.

    Raises:
        ArgumentError: both ``layerwise_decay`` and ``layer_decay`` are given.
    """

    def __init__(
        self,
        lr: Annotated[Schedule, One(SCHEDULES)],
        beta1: Beta = 0.9,
        beta2: Beta = 0.999,
        epsilon: Epsilon = 1e-8,
        weight_decay: Coefficient | None = None,
        layerwise_decay: Annotated[float, Field(gt=0, le=1)] | None = None,
        filter_bias_and_bn: bool = True,
        shared: Shared = Shared(),  # noqa: B008 (frozen)
        *,
        network: Network,
    ):
        _check_layer_decay(layerwise_decay, shared.layer_decay)
        if layerwise_decay is not None:
            shared = replace(shared, layer_decay=layerwise_decay)
        if filter_bias_and_bn:
            names = f"{shared.no_weight_decay_name or ''} .bias"
            shared = replace(shared, no_weight_decay_name=names, one_dim_param_no_weight_decay=True)
        super().__init__(lr, beta1, beta2, epsilon, weight_decay, **vars(shared), network=network)

    @staticmethod
    def check_arguments(  # type: ignore[override]
        layerwise_decay: float | None,
        layer_decay: float | None,
        clip_norm: float | None,
        clip_global_norm: float | None,
        clip_grad: float | None,
        clip_value: float | None,
        clip_adaptive: float | None,
    ) -> None:
        """Raises ArgumentError if two of them exclude each other."""
        _check_layer_decay(layerwise_decay, layer_decay)
        DecoupledOptimizer.check_arguments(
            clip_norm, clip_global_norm, clip_grad, clip_value, clip_adaptive
        )


def _check_layer_decay(layerwise_decay: float | None, layer_decay: float | None) -> None:
    if layerwise_decay is not None and layer_decay is not None:
        message = "expected either layerwise_decay or layer_decay, received both"
        raise ArgumentError("layer_decay", message)


@OPTIMIZERS.register()
@shares
class Lamb(DecoupledOptimizer):
    """Layer-wise adaptive rates for large batches (https://arxiv.org/abs/1904.00962).

    ``r = M / (sqrt(V) + epsilon) + weight_decay * w`` with Adam's moments, then
    ``w -= rate * |w| / |r| * r``; the ratio is 1 where one of the norms is 0.

    Args:
        lr: the learning-rate schedule.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares.
        epsilon: keeps the quotient finite.
        weight_decay: coefficient of the decay.
        always_adapt: (ppcls) use the ratio for parameters without weight decay too.
        shared: see ``Shared``.
        network: the network to train.
    """

    def __init__(
        self,
        lr: Annotated[Schedule, One(SCHEDULES)],
        beta1: Beta = 0.9,
        beta2: Beta = 0.999,
        epsilon: Epsilon = 1e-6,
        weight_decay: Coefficient | None = None,
        always_adapt: bool = False,
        shared: Shared = Shared(),  # noqa: B008 (frozen)
        *,
        network: Network,
    ):
        from ppcls.optim import inner

        trained = Trained(network, shared)
        decayed = trained.paddle_names(trained.decayed(weight_decay))
        lamb = inner.Lamb(
            lr(0),
            lamb_weight_decay=weight_decay or 0.0,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            parameters=trained.plain(),
            exclude_from_weight_decay_fn=lambda parameter: parameter.name not in decayed,
            multi_precision=shared.multi_precision,
            always_adapt=always_adapt,
        )
        super().__init__(lamb, trained, lr, weight_decay)
