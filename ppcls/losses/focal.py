"""Focal loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ppcls.errors import ArgumentError
from ppcls.losses.base import Reduction, Weight, decisions, probabilities, reduced
from ppcls.registry import LOSSES

if TYPE_CHECKING:
    import paddle

# A power below 1 has an infinite derivative at 0, and 32 bits do have answers as sure as that.
TINY = 1e-12


@LOSSES.register()
class FocalLoss:
    """``-alpha * (1 - p)^gamma * log p``: what is right already counts less (arXiv:1708.02002).

    ``softmax`` is the form for images of one class: p is the probability of the image's class; for
    a mixture t, the sum over classes of ``t_c`` times the term of class c. ``sigmoid`` is the
    paper's equation 5: every class is a yes-or-no question, p the probability of the right answer,
    and an image's loss the sum over its classes. Computed in 32 bits.

    Args:
        weight: factor of the loss.
        gamma: 0 is cross entropy; the paper's choice is 2.
        alpha: ``softmax``: a factor for each class; ``sigmoid``: one factor for a yes, and
            ``1 - alpha`` is that of a no (0.25 in the paper). Null leaves it out.
        activation: ``softmax`` or ``sigmoid``.
        reduction: over the batch.

    Raises:
        ArgumentError: an ``alpha`` that is not the activation's kind.
    """

    def __init__(
        self,
        weight: Weight,
        gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0,
        alpha: Annotated[float, Field(ge=0, le=1)]
        | Annotated[list[Weight], Field(min_length=1)]
        | None = None,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        reduction: Reduction = "mean",
    ):
        one = isinstance(alpha, (int, float))
        if alpha is not None and one != (activation == "sigmoid"):
            expected = "one number" if activation == "sigmoid" else "a list, one number a class,"
            raise ArgumentError("alpha", f"expected {expected} for {activation}, received {alpha}")
        self._weight = weight
        self._gamma = gamma
        self._alpha = alpha
        self._activation = activation
        self._reduction: Reduction = reduction

    def __call__(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """The weighted loss, a scalar.

        Args:
            logits: [N, C].
            targets: class indices [N] or [N, 1], or probabilities [N, C]; with ``sigmoid`` also
                the targets of multi-label pictures.

        Raises:
            DataError: targets of another shape, or, on a CPU, indices that are no class.
            ArgumentError: there are not as many numbers in ``alpha`` as classes.
        """
        logits = logits.astype("float32")
        form = self._softmax if self._activation == "softmax" else self._sigmoid
        return self._weight * reduced(form(logits, targets), self._reduction)

    def _softmax(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        import paddle
        import paddle.nn.functional as F

        targets = probabilities(logits, targets)
        if isinstance(self._alpha, list):
            if len(self._alpha) != logits.shape[1]:
                expected = f"expected {logits.shape[1]} numbers, one a class"
                raise ArgumentError("alpha", f"{expected}, received {len(self._alpha)}")
            targets = targets * paddle.to_tensor(self._alpha, "float32")
        return (targets * self._terms(F.log_softmax(logits, axis=1))).sum(axis=1)

    def _sigmoid(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        import paddle.nn.functional as F

        many = list(targets.shape) == list(logits.shape)
        targets = decisions(logits, targets) if many else probabilities(logits, targets)
        yes = self._terms(F.log_sigmoid(logits))
        no = self._terms(F.log_sigmoid(-logits))
        if isinstance(self._alpha, (int, float)):
            yes, no = self._alpha * yes, (1 - self._alpha) * no
        return (targets * yes + (1 - targets) * no).sum(axis=1)

    def _terms(self, log_p: paddle.Tensor) -> paddle.Tensor:
        """``-(1 - p)^gamma * log p``."""
        return -((-log_p.expm1()).clip(min=TINY) ** self._gamma) * log_p
