"""Losses between the networks of a ``DistillationModel``.

They are called with the outputs of all networks, a map from the model's name to its output, and the
targets. An output is logits, or a map from a key to a tensor (``logits``, a feature). Each returns
the sum over its pairs (or models), and stands in the log under its ``name``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ppcls.errors import ArgumentError, suggestion
from ppcls.losses.base import Positive, Reduction, Smoothing, Weight
from ppcls.losses.ce import CELoss
from ppcls.losses.pairs import (
    Activation,
    DistanceLoss,
    DKDLoss,
    DMLLoss,
    KLDivLoss,
    Mode,
)
from ppcls.registry import LOSSES

if TYPE_CHECKING:
    import paddle

    Outputs = Mapping[str, paddle.Tensor | Mapping[str, paddle.Tensor]]

LOGITS = "logits"

Pair = Annotated[list[str], Field(min_length=2, max_length=2)]
Pairs = Annotated[list[Pair], Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]


def select(outputs: Any, argument: str, model: str, key: str | None) -> paddle.Tensor:
    """One network's output, or of several the one called ``key`` (the logits, if None).

    Args:
        argument: what the message calls the argument with the model's name.

    Raises:
        ArgumentError: there is no such model or key.
    """
    if not isinstance(outputs, Mapping):
        message = "expected the outputs of a DistillationModel, received those of one network"
        raise ArgumentError(argument, message)
    if model not in outputs:
        known = ", ".join(repr(name) for name in outputs)
        message = f"expected models of Arch.models, {known}; received '{model}'"
        raise ArgumentError(argument, message + suggestion(model, outputs))
    found = outputs[model]
    if isinstance(found, Mapping):
        wanted = LOGITS if key is None else key
        if wanted not in found:
            known = ", ".join(repr(name) for name in found)
            message = f"expected an output of '{model}', {known}; received '{wanted}'"
            raise ArgumentError("key", message + suggestion(wanted, found))
        return found[wanted]
    if key not in (None, LOGITS):
        raise ArgumentError("key", f"expected null, '{model}' gives logits only; received '{key}'")
    return found


class DistillationLoss:
    """A loss over pairs of networks.

    Attributes:
        name: what the log calls it.
        models: names of all networks whose outputs it wants.
    """

    _loss: Callable[..., paddle.Tensor]  # of two outputs

    def __init__(self, weight: float, pairs: Sequence[Sequence[str]], key: str | None, name: str):
        same = [pair for pair in pairs if pair[0] == pair[1]]
        if same:
            message = f"expected two different models in a pair, received {list(same[0])}"
            raise ArgumentError("model_name_pairs", message)
        self.name = name
        self.models = {model for pair in pairs for model in pair}
        self._weight = weight
        self._pairs = [(pair[0], pair[1]) for pair in pairs]
        self._key = key

    def __call__(self, outputs: Outputs, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar.

        Args:
            outputs: of all networks.
            targets: class indices [N] or [N, 1], or probabilities [N, C].

        Raises:
            ArgumentError: a model or key that is not among the outputs.
            DataError: shapes that do not fit.
        """
        pairs = [
            [select(outputs, "model_name_pairs", model, self._key) for model in pair]
            for pair in self._pairs
        ]
        values = [self._between(one, other, targets) for one, other in pairs]
        return self._weight * sum(values[1:], values[0])

    def _between(
        self, one: paddle.Tensor, other: paddle.Tensor, targets: paddle.Tensor
    ) -> paddle.Tensor:
        """The loss of one pair."""
        return self._loss(one, other)


@LOSSES.register()
class DistillationCELoss(DistillationLoss):
    """Cross entropy of the first of a pair with the second's softmax, which is a constant.

    Args:
        weight: factor of the loss.
        model_name_pairs: (student, teacher) each.
        epsilon: smoothing of the teacher's probabilities.
        key: which of the networks' outputs; null is the logits.
        name: what the log calls the loss.
    """

    def __init__(
        self,
        weight: Weight,
        model_name_pairs: Pairs,
        epsilon: Smoothing | None = None,
        key: str | None = None,
        name: Name = "loss_ce",
    ):
        super().__init__(weight, model_name_pairs, key, name)
        self._loss = CELoss(1.0, epsilon)

    def _between(
        self, one: paddle.Tensor, other: paddle.Tensor, targets: paddle.Tensor
    ) -> paddle.Tensor:
        import paddle.nn.functional as F

        return self._loss(one, F.softmax(other.detach().astype("float32"), axis=1))


@LOSSES.register()
class DistillationDMLLoss(DistillationLoss):
    """Mutual learning, see ``DMLLoss``.

    Args:
        weight: factor of the loss.
        model_name_pairs: networks that learn from each other.
        act: what makes probabilities of the outputs; null if they are some already.
        weight_ratio: weigh each class of multi-label targets, see ``MultiLabelLoss``.
        sum_across_class_dim: multiplies by the number of classes, as published.
        key: which of the networks' outputs; null is the logits.
        name: what the log calls the loss.
        label_ratio: [C], the ratio of positives of the training data set.
    """

    def __init__(
        self,
        weight: Weight,
        model_name_pairs: Pairs,
        act: Activation | None = "softmax",
        weight_ratio: bool = False,
        sum_across_class_dim: bool = False,
        key: str | None = None,
        name: Name = "loss_dml",
        *,
        label_ratio: Any = None,
    ):
        super().__init__(weight, model_name_pairs, key, name)
        self._loss = DMLLoss(act, sum_across_class_dim, weight_ratio, label_ratio=label_ratio)

    def _between(
        self, one: paddle.Tensor, other: paddle.Tensor, targets: paddle.Tensor
    ) -> paddle.Tensor:
        return self._loss(one, other, targets)


@LOSSES.register()
class DistillationKLDivLoss(DistillationLoss):
    """Soft targets at a temperature, see ``KLDivLoss``.

    Args:
        weight: factor of the loss.
        model_name_pairs: (student, teacher) each.
        temperature: T.
        key: which of the networks' outputs; null is the logits.
        name: what the log calls the loss.
    """

    def __init__(
        self,
        weight: Weight,
        model_name_pairs: Pairs,
        temperature: Positive = 4,
        key: str | None = None,
        name: Name = "loss_kl",
    ):
        super().__init__(weight, model_name_pairs, key, name)
        self._loss = KLDivLoss(temperature)


@LOSSES.register()
class DistillationDKDLoss(DistillationLoss):
    """Decoupled distillation, see ``DKDLoss``.

    Args:
        weight: factor of the loss.
        model_name_pairs: (student, teacher) each.
        key: which of the networks' outputs; null is the logits.
        temperature: T.
        alpha: factor of the target class's part.
        beta: factor of the other classes' part.
        use_target_as_gt: the target class is the teacher's first choice, not the picture's.
        name: what the log calls the loss.
    """

    def __init__(
        self,
        weight: Weight,
        model_name_pairs: Pairs,
        key: str | None = None,
        temperature: Positive = 1.0,
        alpha: Weight = 1.0,
        beta: Weight = 1.0,
        use_target_as_gt: bool = False,
        name: Name = "loss_dkd",
    ):
        super().__init__(weight, model_name_pairs, key, name)
        self._loss = DKDLoss(temperature, alpha, beta, use_target_as_gt)

    def _between(
        self, one: paddle.Tensor, other: paddle.Tensor, targets: paddle.Tensor
    ) -> paddle.Tensor:
        return self._loss(one, other, targets)


@LOSSES.register()
class DistillationDistanceLoss(DistillationLoss):
    """A distance between outputs or features, see ``DistanceLoss``.

    Args:
        weight: factor of the loss.
        model_name_pairs: networks whose outputs are to meet.
        mode: ``l1``, ``l2`` or ``smooth_l1``.
        act: what is applied to the outputs first.
        key: which of the networks' outputs; null is the logits.
        name: what the log calls the loss, before the mode.
        reduction: over all numbers.
        delta: where ``smooth_l1`` changes from a square to a line.
    """

    def __init__(
        self,
        weight: Weight,
        model_name_pairs: Pairs,
        mode: Mode = "l2",
        act: Activation | None = None,
        key: str | None = None,
        name: str = "loss_",
        reduction: Reduction = "mean",
        delta: Positive = 1.0,
    ):
        super().__init__(weight, model_name_pairs, key, name + mode)
        self._act = act
        self._loss = DistanceLoss(mode, reduction, delta)

    def _between(
        self, one: paddle.Tensor, other: paddle.Tensor, targets: paddle.Tensor
    ) -> paddle.Tensor:
        import paddle.nn.functional as F

        if self._act == "sigmoid":
            one, other = F.sigmoid(one), F.sigmoid(other)
        elif self._act == "softmax":
            one, other = F.softmax(one, axis=-1), F.softmax(other, axis=-1)
        return self._loss(one, other)
