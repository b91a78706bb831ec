"""Losses, one file each, and their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from ppcls.errors import ArgumentError

if TYPE_CHECKING:
    import paddle

    Loss = Callable[[Any, paddle.Tensor], paddle.Tensor]

TOTAL = "loss"


class CombinedLoss:
    """The sum of some losses, each of which multiplies by its own weight.

    Args:
        losses: called with logits and targets, each returns a scalar tensor.

    Attributes:
        names: keys of the result, in order: the losses' ``name`` if they have one, or else their
            class names, numbered from the second of a kind on (``CELoss``, ``CELoss_2``), and
            ``loss`` for the sum.

    Raises:
        ArgumentError: the list is empty.
    """

    def __init__(self, losses: Sequence[Loss]):
        if not losses:
            raise ArgumentError("losses", "expected at least one loss, received none")
        self._losses = list(losses)
        self._keys: list[str] = []
        for loss in losses:
            kind = getattr(loss, "name", type(loss).__name__)
            self._keys.append(_numbered(kind, {TOTAL, *self._keys}))
        self.names = [*self._keys, TOTAL]

    def __call__(self, logits: Any, targets: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """Each weighted loss and their sum, scalar tensors under ``names``.

        Args:
            logits: [N, C]; of a ``DistillationModel``, the outputs of all its networks.
            targets: class indices [N] or [N, 1], or probabilities [N, C].
        """
        values = [loss(logits, targets) for loss in self._losses]
        return {**dict(zip(self._keys, values, strict=True)), TOTAL: sum(values[1:], values[0])}


def _numbered(kind: str, taken: set[str]) -> str:
    """``kind`` if it is free, or else the first of ``kind_2``, ``kind_3``, ... that is."""
    numbers = (f"{kind}_{i}" for i in count(2))
    return kind if kind not in taken else next(name for name in numbers if name not in taken)
