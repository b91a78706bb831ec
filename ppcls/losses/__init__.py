"""Losses, one file each, and their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ppcls.errors import ArgumentError

if TYPE_CHECKING:
    import paddle

    Loss = Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]

TOTAL = "loss"


class CombinedLoss:
    """The sum of some losses, each of which multiplies by its own weight.

    Args:
        losses: called with logits and targets, each returns a scalar tensor.

    Attributes:
        names: keys of the result, in order: the losses' class names, numbered from the second of
            a kind on (``CELoss``, ``CELoss_2``), and ``loss`` for the sum.

    Raises:
        ArgumentError: the list is empty.
    """

    def __init__(self, losses: Sequence[Loss]):
        if not losses:
            raise ArgumentError("losses", "expected at least one loss, received none")
        self._losses = list(losses)
        kinds = [type(loss).__name__ for loss in losses]
        self._keys = [_numbered(kind, kinds[:i].count(kind) + 1) for i, kind in enumerate(kinds)]
        self.names = [*self._keys, TOTAL]

    def __call__(self, logits: paddle.Tensor, targets: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """Each weighted loss and their sum, scalar tensors under ``names``.

        Args:
            logits: [N, C].
            targets: class indices [N] or [N, 1], or probabilities [N, C].
        """
        values = [loss(logits, targets) for loss in self._losses]
        return {**dict(zip(self._keys, values, strict=True)), TOTAL: sum(values[1:], values[0])}


def _numbered(kind: str, number: int) -> str:
    return kind if number == 1 else f"{kind}_{number}"
