"""What all optimizers have in common: which parameters decay, whose rate is smaller, clipping."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import BeforeValidator, Field

from ppcls.errors import ArgumentError, TrainingError
from ppcls.optim.base import Network, Optimizer
from ppcls.optim.layer_decay import rate_factors
from ppcls.optim.regularizers import L2, Regularizer
from ppcls.optim.schedules import Schedule

if TYPE_CHECKING:
    import paddle

    from ppcls.optim.clip import Clip

Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _none(value: object) -> object:
    """Python's word for nothing, which published files write where YAML wants ``null``."""
    return None if value == "None" else value


@dataclass(frozen=True)
class Shared:
    """Arguments of every optimizer.

    Args:
        no_weight_decay_name: parts of names, separated by spaces; a parameter whose name holds one
            of them does not decay. The name that PaddleClas publishes it under counts as well.
        one_dim_param_no_weight_decay: parameters with one dimension (biases, scales of
            normalisation layers) do not decay.
        layer_decay: (ppcls) the head learns at the schedule's rate, each block before it at this
            part of the rate of the one behind it: see ``layer_decay.depths``.
        clip_norm: length that no single gradient exceeds (published; Paddle's ClipGradByNorm).
        clip_global_norm: (ppcls) length that all gradients together do not exceed.
        clip_grad: the same. Published recipes say it, and PaddleClas reads it nowhere.
        clip_value: (ppcls) size that no element of a gradient exceeds.
        clip_adaptive: (ppcls) part of the length of a unit's weights that its gradient does not
            exceed, but for the classifier (AGC, https://arxiv.org/abs/2102.06171).
        multi_precision: keep 32-bit master copies of 16-bit weights.

    Raises:
        ArgumentError: gradients are to be clipped in more than one way.
    """

    no_weight_decay_name: str | None = None
    one_dim_param_no_weight_decay: bool = False
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    clip_norm: Limit | None = None
    clip_global_norm: Limit | None = None
    clip_grad: Annotated[Limit | None, BeforeValidator(_none)] = None
    clip_value: Limit | None = None
    clip_adaptive: Limit | None = None
    multi_precision: bool = False

    def __post_init__(self) -> None:
        ways = [f.name for f in fields(self) if f.name.startswith("clip_")]
        given = [way for way in ways if getattr(self, way) is not None]
        if len(given) > 1:
            message = f"expected one way to clip gradients, received {' and '.join(given)}"
            raise ArgumentError(given[-1], message)

    def clip(self, spared: set[str]) -> Clip | None:
        """The limit on gradients; the adaptive one leaves out ``spared`` (Paddle's names)."""
        from ppcls.optim import clip

        if self.clip_norm is not None:
            return clip.by_norm(self.clip_norm)
        if self.clip_value is not None:
            return clip.by_value(self.clip_value)
        if self.clip_adaptive is not None:
            return clip.AdaptiveClip(self.clip_adaptive, spared)
        together = self.clip_grad if self.clip_global_norm is None else self.clip_global_norm
        return None if together is None else clip.by_global_norm(together)


def shares(optimizer: Any) -> Any:
    """Decorator: the constructor's parameter ``shared`` is given as the fields of ``Shared``."""
    signature = inspect.signature(optimizer.__init__, eval_str=True)
    hints = get_type_hints(Shared, include_extras=True)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    common = [
        inspect.Parameter(f.name, kind, default=f.default, annotation=hints[f.name])
        for f in fields(Shared)
    ]
    parameters: list[inspect.Parameter] = []
    for parameter in list(signature.parameters.values())[1:]:  # without self
        parameters += common if parameter.name == "shared" else [parameter]
    flat = signature.replace(parameters=parameters)
    init = optimizer.__init__

    @functools.wraps(init)
    def gather(self: Any, *arguments: Any, **named: Any) -> None:
        given = flat.bind(*arguments, **named).arguments
        shared = Shared(**{p.name: given.pop(p.name) for p in common if p.name in given})
        init(self, **given, shared=shared)

    optimizer.__init__ = gather
    optimizer.__signature__ = flat
    return optimizer


class Trained:
    """The parameters of a network that an optimizer updates.

    Args:
        network: frozen parameters (``stop_gradient``) are left out for good.
        shared: says, beside the network's ``no_weight_decay()``, what does not decay.

    Attributes:
        parameters: by structured name.
        spared: names of those that do not decay.
        factors: factors of the learning rate by structured name, as far as they are not 1.

    Raises:
        TrainingError: the network has nothing to train.
    """

    def __init__(self, network: Network, shared: Shared):
        named = dict(network.named_parameters())
        self.parameters = {name: p for name, p in named.items() if not p.stop_gradient}
        if not self.parameters:
            message = "expected a network with trainable parameters, received one without"
            raise TrainingError(message)
        self.shared = shared
        self.spared = _without_decay(network, self.parameters, shared)
        self.classifier: set[str] = getattr(network, "classifier_names", set)() & named.keys()
        self.factors: dict[str, float] = {}
        if shared.layer_decay is not None:
            # Frozen parameters count: a depth does not depend on what is frozen.
            found = rate_factors(named, shared.layer_decay, self.classifier)
            self.factors = {name: found[name] for name in self.parameters}

    def paddle_names(self, names: Any) -> set[str]:
        """Paddle's names of the parameters called ``names``, as far as they are trained."""
        return {p.name for name, p in self.parameters.items() if name in names}

    def decayed(self, decay: object) -> list[str]:
        """Names of what decays, in the network's order: nothing if ``decay`` is None."""
        return [name for name in self.parameters if decay is not None and name not in self.spared]

    def groups(self, decay: Regularizer | None) -> list[dict[str, Any]]:
        """Paddle's parameter groups: those with and those without weight decay."""
        decayed = set(self.decayed(decay))
        chosen = [p for name, p in self.parameters.items() if name in decayed]
        rest = [p for name, p in self.parameters.items() if name not in decayed]
        groups: list[dict[str, Any]] = []
        if chosen and decay:
            groups.append({"params": chosen, "weight_decay": decay.paddle_regularizer()})
        if rest:
            # Written out, because Paddle would take a missing key for its own default.
            groups.append({"params": rest, "weight_decay": None})
        return groups

    def plain(self) -> list[paddle.Tensor]:
        """All parameters, for an optimizer with a weight decay of its own."""
        for parameter in self.parameters.values():
            parameter.regularizer = None  # an earlier optimizer's, which Paddle would add
            parameter.optimize_attr["learning_rate"] = 1.0
        return list(self.parameters.values())


class SharingOptimizer(Optimizer):
    """An optimizer that heeds ``Shared``.

    Args:
        inner: one of ``ppcls.optim.inner``.
        trained: the parameters.
        schedule: the learning rate of each iteration.
        decay: the weight decay, None for none.
    """

    def __init__(self, inner: Any, trained: Trained, schedule: Schedule, decay: object):
        super().__init__(inner, trained.parameters, schedule, trained.decayed(decay))
        self._clip = trained.shared.clip(trained.paddle_names(trained.classifier))
        self._factors = dict.fromkeys(trained.parameters, 1.0) | trained.factors
        self._adjust()

    def rate_factors(self) -> dict[str, float]:
        """The factor of the schedule's rate that each parameter learns with, by its name."""
        return dict(self._factors)

    def scale_rates(self, factors: Mapping[str, float]) -> None:
        """Multiplies the learning rates of the parameters named by their ``factors``, for good."""
        for name, factor in factors.items():
            self._factors[name] *= factor
        self._adjust()

    def _adjust(self) -> None:
        by_tensor = {p.name: self._factors[name] for name, p in self._parameters.items()}
        self.inner.adjust(list(self._parameters.values()), self._clip, by_tensor)


class CoupledOptimizer(SharingOptimizer):
    """An optimizer whose weight decay is a penalty that is added to the gradient."""

    @staticmethod
    def check_arguments(
        regularizer: object | None,
        weight_decay: float | None,
        clip_norm: float | None,
        clip_global_norm: float | None,
        clip_grad: float | None,
        clip_value: float | None,
        clip_adaptive: float | None,
    ) -> None:
        """Raises ArgumentError if two of them exclude each other."""
        penalty(regularizer, weight_decay)
        DecoupledOptimizer.check_arguments(
            clip_norm, clip_global_norm, clip_grad, clip_value, clip_adaptive
        )


class DecoupledOptimizer(SharingOptimizer):
    """An optimizer whose weight decay is its own."""

    @staticmethod
    def check_arguments(
        clip_norm: float | None,
        clip_global_norm: float | None,
        clip_grad: float | None,
        clip_value: float | None,
        clip_adaptive: float | None,
    ) -> None:
        """Raises ArgumentError if two of them exclude each other."""
        Shared(
            clip_norm=clip_norm,
            clip_global_norm=clip_global_norm,
            clip_grad=clip_grad,
            clip_value=clip_value,
            clip_adaptive=clip_adaptive,
        )


def penalty(regularizer: Any, weight_decay: float | None) -> Any:
    """The regularizer, or the L2 regularizer that ``weight_decay`` is short for.

    Raises:
        ArgumentError: both are given.
    """
    if regularizer is not None and weight_decay is not None:
        expected = "expected either regularizer or weight_decay"
        raise ArgumentError("weight_decay", f"{expected}, received both")
    return regularizer if weight_decay is None else L2(weight_decay)


def _without_decay(
    network: Network, parameters: dict[str, paddle.Tensor], shared: Shared
) -> set[str]:
    """Names of the parameters that do not decay, for whichever of the three reasons."""
    named_by_network: set[str] = getattr(network, "no_weight_decay", set)()
    published = [n for n in getattr(network, "namings", list)() if n.library == "PaddleClas"]
    parts = (shared.no_weight_decay_name or "").split()
    one_dim = shared.one_dim_param_no_weight_decay

    def is_named(name: str) -> bool:
        names = [name, *(naming.rename(name) for naming in published)]
        return any(part in name for part in parts for name in names)

    return {
        name
        for name, parameter in parameters.items()
        if name in named_by_network or is_named(name) or (one_dim and len(parameter.shape) == 1)
    }
