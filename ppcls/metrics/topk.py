"""Top-k accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ppcls.errors import ArgumentError, DataError
from ppcls.metrics.base import Metric
from ppcls.metrics.masks import true_index
from ppcls.registry import METRICS

if TYPE_CHECKING:
    import paddle

Rank = Annotated[int, Field(ge=1)]
TOP_1_AND_5 = [1, 5]


@METRICS.register()
class TopkAcc(Metric):
    """The share of images whose true class is among the k with the highest logits.

    Ties count against the network and so does a true logit that is not a number: a network that
    gives every class the same logit knows nothing. Of a mixture, the likeliest class is the true
    one.

    Args:
        topk: k, or several; the first one's accuracy is the main one.
        class_num: number of classes.

    Raises:
        ArgumentError: a k is below 1, beyond the number of classes, or given twice.
    """

    def __init__(self, topk: list[Rank] | Rank = TOP_1_AND_5, *, class_num: int | None = None):
        ranks = [topk] if isinstance(topk, int) else list(topk)
        _check(ranks, class_num)
        self._topk = ranks
        super().__init__([f"top{k}" for k in ranks])

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Adds a batch; a target that is no class counts as wrong."""
        import paddle

        with paddle.no_grad():
            rank = _rank_of_truth(logits, targets)
            right = [(rank >= 1) & (rank <= k) for k in self._topk]
            self._add(paddle.stack(right).astype("int64").sum(axis=1), logits.shape[0])


@METRICS.register()
class DistillationTopkAcc(TopkAcc):
    """``TopkAcc`` of one of the networks that are trained together.

    Args:
        model_key: the network's name in ``Arch.models``.
        feature_key: which of its outputs are the logits, if it has several.
        topk: k, or several; the first one's accuracy is the main one.
        class_num: number of classes.

    Raises:
        ArgumentError: a k is below 1, beyond the number of classes, or given twice.
    """

    def __init__(
        self,
        model_key: str,
        feature_key: str | None = None,
        topk: list[Rank] | Rank = TOP_1_AND_5,
        *,
        class_num: int | None = None,
    ):
        self._keys = [model_key] if feature_key is None else [model_key, feature_key]
        super().__init__(topk, class_num=class_num)

    def update(self, logits: paddle.Tensor | Mapping[str, Any], targets: paddle.Tensor) -> None:
        """Adds a batch.

        Args:
            logits: outputs by name; or the logits themselves, of the one network that is
                evaluated alone.
            targets: class indices [N] or [N, 1], or probabilities [N, C].

        Raises:
            DataError: there is no output of that name.
        """
        for key in self._keys:
            if isinstance(logits, Mapping):
                if key not in logits:
                    found = ", ".join(f"'{name}'" for name in logits)
                    raise DataError(f"expected '{key}' among the outputs, received {found}")
                logits = logits[key]
        super().update(logits, targets)


def _rank_of_truth(logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
    """How many logits reach the true class's, its own included; 0 if that is not a number. [N]."""
    import paddle

    batch, classes = logits.shape
    logits = logits.astype("float32")
    indices = true_index(targets).reshape([batch, 1])
    true_logits = paddle.take_along_axis(logits, indices.clip(0, classes - 1), axis=1)
    is_class = (indices >= 0) & (indices < classes)
    return ((logits >= true_logits) & is_class).astype("int64").sum(axis=1)


def _check(topk: list[int], class_num: int | None) -> None:
    if not topk or len(set(topk)) < len(topk):
        raise ArgumentError("topk", f"expected one or more different numbers, received {topk}")
    if min(topk) < 1:
        raise ArgumentError("topk", f"expected at least 1, received {min(topk)}")
    if class_num is not None and max(topk) > class_num:
        expected = f"expected at most the {class_num} classes of Arch.class_num"
        raise ArgumentError("topk", f"{expected}, received {max(topk)}")
