"""Losses of the networks of a ``DistillationModel`` with the targets; see ``distillation.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ppcls.losses.base import Positive, Smoothing, Weight
from ppcls.losses.ce import CELoss
from ppcls.losses.distillation import DistillationLoss, Name, Pairs, select
from ppcls.losses.multilabel import MultiLabelLoss
from ppcls.losses.pairs import DistillationTokenLoss
from ppcls.registry import LOSSES

if TYPE_CHECKING:
    import paddle

    from ppcls.losses.distillation import Outputs

Names = Annotated[list[str], Field(min_length=1)]


class TargetLoss:
    """A loss of some networks' outputs and the targets, added up over the networks.

    Args:
        loss: called with one network's output and the targets.
        model_names: the networks.
        key: which of the networks' outputs; None is the logits.
        name: what the log calls it.

    Attributes:
        name: what the log calls it.
        models: names of all networks whose outputs it wants.
    """

    def __init__(
        self,
        loss: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor],
        model_names: Sequence[str],
        key: str | None,
        name: str,
    ):
        self.name = name
        self.models = set(model_names)
        self._loss = loss
        self._names = list(model_names)
        self._key = key

    def __call__(self, outputs: Outputs, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar; see :class:`DistillationLoss`.

        The output may also be that of the one network, which is evaluated alone.
        """
        if not isinstance(outputs, Mapping) and len(self._names) == 1:
            outputs = {self._names[0]: outputs}
        logits = [select(outputs, "model_names", model, self._key) for model in self._names]
        values = [self._loss(each, targets) for each in logits]
        return sum(values[1:], values[0])


@LOSSES.register()
class DistillationGTCELoss(TargetLoss):
    """Cross entropy of some networks with the targets ("ground truth"), see ``CELoss``.

    Args:
        weight: factor of the loss.
        model_names: the networks.
        epsilon: label smoothing.
        key: which of the networks' outputs; null is the logits.
        name: what the log calls the loss.
    """

    def __init__(
        self,
        weight: Weight,
        model_names: Names,
        epsilon: Smoothing | None = None,
        key: str | None = None,
        name: Name = "loss_gt_ce",
    ):
        super().__init__(CELoss(weight, epsilon), model_names, key, name)


@LOSSES.register()
class DistillationMultiLabelLoss(TargetLoss):
    """Binary cross entropy of some networks with multi-label targets, see ``MultiLabelLoss``.

    Args:
        weight: factor of the loss.
        model_names: the networks.
        epsilon: label smoothing.
        size_sum: add up over the classes of an image; otherwise, take their mean.
        weight_ratio: weigh classes with the training pictures' ratio of positives.
        key: which of the networks' outputs; null is the logits.
        name: what the log calls the loss.
        label_ratio: [C], the ratio of positives of the training data set.
    """

    def __init__(
        self,
        weight: Weight,
        model_names: Names,
        epsilon: Smoothing | None = None,
        size_sum: bool = False,
        weight_ratio: bool = False,
        key: str | None = None,
        name: Name = "loss_mll",
        *,
        label_ratio: Any = None,
    ):
        loss = MultiLabelLoss(weight, epsilon, size_sum, weight_ratio, label_ratio=label_ratio)
        super().__init__(loss, model_names, key, name)


@LOSSES.register()
class DistillationDeiTLoss(DistillationLoss):
    """DeiT's distillation token, see ``DistillationTokenLoss`` (ppcls).

    It holds the label's part too, so no ``DistillationGTCELoss`` stands beside it. In training the
    student's output is a map with the logits of both tokens.

    Args:
        weight: factor of the loss.
        model_name_pairs: (student, teacher) each.
        mode: ``hard`` or ``soft``.
        alpha: the part of the teacher; the paper's 0.5 for hard, 0.1 for soft.
        temperature: of soft distillation.
        epsilon: label smoothing of the class token's cross entropy.
        key: the output of the class token, and of the teacher if it has several; null is the
            logits.
        token_key: the output of the distillation token.
        name: what the log calls the loss.
    """

    def __init__(
        self,
        weight: Weight,
        model_name_pairs: Pairs,
        mode: Literal["hard", "soft"] = "hard",
        alpha: Annotated[float, Field(ge=0, le=1)] = 0.5,
        temperature: Positive = 3.0,
        epsilon: Smoothing | None = None,
        key: str | None = None,
        token_key: Name = "distillation",
        name: Name = "loss_deit",
    ):
        super().__init__(weight, model_name_pairs, key, name)
        self._token_key = token_key
        self._loss = DistillationTokenLoss(mode, alpha, temperature, epsilon)

    def __call__(self, outputs: Outputs, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar; see :class:`DistillationLoss`."""
        argument, total = "model_name_pairs", 0.0
        for student, teacher in self._pairs:
            total = total + self._loss(
                select(outputs, argument, student, self._key),
                select(outputs, argument, student, self._token_key),
                select(outputs, argument, teacher, self._key),
                targets,
            )
        return self._weight * total
