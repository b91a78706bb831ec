"""Paddle's optimizers, with limits on the gradients of all groups together and rates by parameter.

Paddle would take the norm over each group of parameters alone, and write a parameter's own rate on
the parameter, where the next optimizer of the network finds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import paddle

from ppcls.optim.clip import Clip


class Adjustments:
    """Put before one of Paddle's optimizers: what ``adjust`` sets."""

    _trained: Sequence[paddle.Tensor] = ()
    _clip: Clip | None = None
    _factors: Mapping[str, float]
    _clipped: Mapping[str, paddle.Tensor] | None = None

    def adjust(
        self,
        parameters: Sequence[paddle.Tensor],
        clip: Clip | None,
        factors: Mapping[str, float],
    ) -> None:
        """Sets the limit on the gradients, and factors of the learning rate by Paddle's names."""
        self._trained = parameters
        self._clip = clip
        self._factors = factors

    @paddle.no_grad()
    def step(self) -> None:
        """Limits the gradients; then as Paddle's."""
        if self._clip is not None:
            pairs = [(p, p.grad) for p in self._trained if p.grad is not None]
            self._clipped = {p.name: gradient for p, gradient in self._clip(pairs)}
        try:
            super().step()  # type: ignore[misc]
        finally:
            self._clipped = None

    def _apply_optimize(
        self, loss: Any, startup_program: Any, params_grads: Any, param_group_idx: int = 0
    ) -> Any:
        if self._clipped is not None:
            grouped = isinstance(params_grads, dict)
            pairs = params_grads["params"] if grouped else params_grads
            pairs = [(parameter, self._clipped[parameter.name]) for parameter, _ in pairs]
            params_grads = {**params_grads, "params": pairs} if grouped else pairs
        return super()._apply_optimize(  # type: ignore[misc]
            loss, startup_program, params_grads, param_group_idx
        )

    def _create_param_lr(self, param_and_grad: Any) -> paddle.Tensor:
        rate = super()._create_param_lr(param_and_grad)  # type: ignore[misc]
        factor = self._factors.get(param_and_grad[0].name, 1.0)
        return rate if factor == 1.0 else rate * factor


class SGD(Adjustments, paddle.optimizer.SGD):
    """Paddle's."""


class Momentum(Adjustments, paddle.optimizer.Momentum):
    """Paddle's."""


class Adam(Adjustments, paddle.optimizer.Adam):
    """Paddle's."""


class AdamW(Adjustments, paddle.optimizer.AdamW):
    """Paddle's."""


class Lamb(Adjustments, paddle.optimizer.Lamb):
    """Paddle's."""


class RMSProp(Adjustments, paddle.optimizer.RMSProp):
    """Paddle's, whose mean of squares may start at another value than 0."""

    start = 0.0

    def _add_accumulator(
        self, name: str, param: Any, dtype: Any = None, fill_value: float = 0.0, **others: Any
    ) -> Any:
        value = self.start if name == self._mean_square_acc_str else fill_value
        return super()._add_accumulator(name, param, dtype, value, **others)


class Written(Adjustments, paddle.optimizer.Optimizer):
    """An optimizer whose step is written in Paddle's operations.

    Attributes:
        slots: names of the tensors that it keeps for each parameter.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, learning_rate: float, parameters: Any, multi_precision: bool = False):
        super().__init__(learning_rate=learning_rate, parameters=parameters)
        self._multi_precision = multi_precision
        self._master_weights: dict[str, paddle.Tensor] = {}

    def update(
        self,
        name: str,
        weight: paddle.Tensor,
        gradient: paddle.Tensor,
        rate: paddle.Tensor,
        *slots: paddle.Tensor,
    ) -> None:
        """Changes ``weight`` and its ``slots`` in place."""
        raise NotImplementedError

    def _create_accumulators(self, block: Any, parameters: Any) -> None:
        for parameter in parameters:
            if parameter.name in self._already_create_accumulator:
                continue
            mastered = self._has_master(parameter)
            owner = self._create_master_weight(parameter) if mastered else parameter
            for slot in self.slots:
                self._add_accumulator(slot, owner)
            self._already_create_accumulator.add(parameter.name)

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> None:
        parameter, gradient = param_and_grad
        mastered = self._has_master(parameter)
        weight = self._master_weights[parameter.name] if mastered else parameter
        slots = [self._get_accumulator_master(slot, parameter) for slot in self.slots]
        rate = self._create_param_lr(param_and_grad).astype(weight.dtype)
        self.update(parameter.name, weight, gradient.astype(weight.dtype), rate, *slots)
        if mastered:
            paddle.assign(weight.astype(parameter.dtype), output=parameter)

    def _has_master(self, parameter: paddle.Tensor) -> bool:
        return self._multi_precision and self._is_dtype_fp16_or_bf16(parameter.dtype)


class Lars(Written):
    """See ``ppcls.optim.optimizers.LARS``."""

    slots = ("velocity",)

    def __init__(
        self,
        momentum: float,
        coefficient: float,
        epsilon: float,
        decay: float,
        plain: set[str],
        **others: Any,
    ):
        super().__init__(**others)
        self._settings = momentum, coefficient, epsilon, decay
        self._plain = plain

    def update(
        self,
        name: str,
        weight: paddle.Tensor,
        gradient: paddle.Tensor,
        rate: paddle.Tensor,
        *slots: paddle.Tensor,
    ) -> None:
        """Changes ``weight`` and its velocity in place."""
        momentum, coefficient, epsilon, decay = self._settings
        (velocity,) = slots
        if name not in self._plain:
            own, its = weight.norm(), gradient.norm()
            trust = coefficient * own / (its + decay * own + epsilon)
            known = paddle.logical_and(own > 0, its > 0)
            rate = rate * paddle.where(known, trust, paddle.ones_like(trust))
            gradient = gradient + decay * weight
        paddle.assign(momentum * velocity + rate * gradient, output=velocity)
        paddle.assign(weight - velocity, output=weight)


class Lion(Written):
    """See ``ppcls.optim.optimizers.Lion``."""

    slots = ("moment",)

    def __init__(self, beta1: float, beta2: float, decay: float, decayed: set[str], **others: Any):
        super().__init__(**others)
        self._settings = beta1, beta2, decay
        self._decayed = decayed

    def update(
        self,
        name: str,
        weight: paddle.Tensor,
        gradient: paddle.Tensor,
        rate: paddle.Tensor,
        *slots: paddle.Tensor,
    ) -> None:
        """Changes ``weight`` and its moment in place."""
        beta1, beta2, decay = self._settings
        (moment,) = slots
        direction = paddle.sign(beta1 * moment + (1 - beta1) * gradient)
        if name in self._decayed:
            direction = direction + decay * weight
        paddle.assign(weight - rate * direction, output=weight)
        paddle.assign(beta2 * moment + (1 - beta2) * gradient, output=moment)
