"""Qualities that need the scores of all samples: AUC and mean average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ppcls.metrics.base import Gather, Metric, Table
from ppcls.metrics.masks import true_class, true_labels
from ppcls.registry import METRICS

if TYPE_CHECKING:
    import paddle

# Paddle's key-value store loses its connection over messages of some ten megabytes.
NUMBERS_AT_ONCE = 2**18  # 2 MB


class ScoreMetric(Metric):
    """A metric over the logits of all samples; a subclass provides ``_values_of``.

    Its state is the number of samples alone. What it keeps, C logits and C truths a sample, is
    exchanged by ``share``. Values do not depend on the order of the samples, so neither the
    batches nor the processes change them beyond the rounding of a sum.

    Args:
        names: keys of ``value``.
        multi_label: targets are [N, C], one for each class; else there is one true class.
        class_num: number of classes.
    """

    keeps_scores = True

    def __init__(self, names: Sequence[str], multi_label: bool, class_num: int):
        self._multi_label = multi_label
        self._class_num = class_num
        super().__init__(names, size=0)

    def reset(self) -> None:
        """Forgets all samples."""
        super().reset()
        self._logits: list[paddle.Tensor] = []
        self._truths: list[paddle.Tensor] = []
        self._shared: np.ndarray | None = None

    def update(self, logits: paddle.Tensor, targets: paddle.Tensor) -> None:
        """Keeps a batch."""
        import paddle

        with paddle.no_grad():
            labels = self._multi_label
            truth = true_labels(targets, logits) if labels else true_class(targets, self._class_num)
            self._logits.append(logits.detach().astype("float32"))
            self._truths.append(truth)
        self._samples += logits.shape[0]
        self._shared = None

    def share(self, gather: Gather) -> None:
        """Fetches the samples of all processes; each of them must call."""
        own = self._kept()
        counts = [int(count.item()) for count in gather(np.array([float(len(own))]))]
        padded = np.zeros((max(counts), own.shape[1]), np.float32)
        padded[: len(own)] = own
        several = max(1, NUMBERS_AT_ONCE // own.shape[1])
        parts: list[list[np.ndarray]] = [[] for _ in counts]
        for start in range(0, len(padded), several):
            received = gather(padded[start : start + several].astype(np.float64))
            for part, n, rows in zip(parts, counts, received, strict=True):
                part.append(rows[: max(0, n - start)].astype(np.float32))
        self._shared = np.concatenate([own[:0], *(rows for part in parts for rows in part)])

    def interim(self) -> dict[str, float]:
        """Nothing: each line would look at all samples."""
        return {}

    def _kept(self) -> np.ndarray:
        """Logits and truths of the samples here, float32 [samples, 2 C]."""
        if not self._logits:
            return np.zeros((0, 2 * self._class_num), np.float32)
        parts = [
            np.concatenate([x.numpy() for x in tensors]).astype(np.float32)
            for tensors in (self._logits, self._truths)
        ]
        return np.concatenate(parts, axis=1)

    def _read(self, state: np.ndarray | None) -> tuple[np.ndarray, int]:
        kept = self._kept() if self._shared is None else self._shared
        found = np.array([float(len(kept))])
        super()._read(found if state is None else state)
        if state is not None and state[-1] != len(kept):
            raise ValueError(f"{len(kept)} of {state[-1]:.0f} samples are here: call share first")
        return kept, len(kept)

    def _values(self, sums: np.ndarray, samples: int) -> Sequence[float]:
        logits, truth = np.split(sums, 2, axis=1)
        return self._values_of(logits, truth > 0)

    def _values_of(self, logits: np.ndarray, truth: np.ndarray) -> Sequence[float]:
        """The values in the order of ``names``, of float32 logits and a mask, both [N, C]."""
        raise NotImplementedError


@METRICS.register()
class AUC(ScoreMetric):
    """Area under the ROC curve, the mean over the classes; each class's is in a table.

    A class's is the probability that an image of the class has a higher score than another image,
    half of it if they are equal. Classes without images, or of all images, have none and are left
    out. The score is the sigmoid of the logit with ``multi_label``, else the softmax probability
    (one class against the rest). A logit that is not a number is worse than any other.

    Each process keeps 5 x C bytes for each of its samples while it evaluates, and at the end
    several times that for the samples of all.

    Args:
        average: ``macro`` counts each class once, ``weighted`` by its number of images.
        multi_label: several classes may apply to an image, or none; targets are 0 or 1.
        class_num: number of classes.
    """

    def __init__(
        self,
        average: Literal["macro", "weighted"] = "macro",
        multi_label: bool = False,
        *,
        class_num: int,
    ):
        self._average = average
        super().__init__(["AUC"], multi_label, class_num)

    def _values_of(self, logits: np.ndarray, truth: np.ndarray) -> Sequence[float]:
        areas, counts = self._areas(logits, truth), truth.sum(axis=0)
        defined = ~np.isnan(areas)
        if not defined.any():
            return [float("nan")]
        weights = counts[defined] if self._average == "weighted" else None
        return [float(np.average(areas[defined], weights=weights))]

    def _tables(self, sums: np.ndarray, samples: int) -> dict[str, Table]:
        logits, truth = np.split(sums, 2, axis=1)
        values = np.stack([self._areas(logits, truth > 0), truth.sum(axis=0)], axis=1)
        return {"AUC": Table(values, "class", ("AUC", "support"))}

    def _areas(self, logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
        scores = logits if self._multi_label else log_odds(logits)
        return np.array([area_under_roc(s, t) for s, t in zip(scores.T, truth.T, strict=True)])


@METRICS.register()
class MultiLabelMAP(ScoreMetric):
    """Mean average precision over the classes that have images; each class's is in a table.

    Images are ranked by the logit of the class. Equal logits are one step of the ranking, so that
    the order of the images does not count. A logit that is not a number is worse than any other.

    Args:
        map_type: ``integral`` sums precision over the steps of recall; ``11point`` is the mean of
            the highest precision at a recall of at least 0, 0.1, ..., 1 (PASCAL VOC 2007).
        class_num: number of classes.
    """

    def __init__(self, map_type: Literal["11point", "integral"] = "integral", *, class_num: int):
        self._map_type = map_type
        super().__init__([f"MultiLabelMAP({map_type})"], multi_label=True, class_num=class_num)

    def _values_of(self, logits: np.ndarray, truth: np.ndarray) -> Sequence[float]:
        precisions = self._precisions(logits, truth)
        defined = ~np.isnan(precisions)
        return [float(precisions[defined].mean()) if defined.any() else float("nan")]

    def _tables(self, sums: np.ndarray, samples: int) -> dict[str, Table]:
        logits, truth = np.split(sums, 2, axis=1)
        values = np.stack([self._precisions(logits, truth > 0), truth.sum(axis=0)], axis=1)
        return {self.names[0]: Table(values, "class", ("average_precision", "support"))}

    def _precisions(self, logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
        measure = average_precision if self._map_type == "integral" else average_precision_11
        return np.array([measure(s, t) for s, t in zip(logits.T, truth.T, strict=True)])


def area_under_roc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Of scores [N] and a mask [N]; NaN if the mask is all true or all false."""
    scores = _never_right(scores, truth)
    positive, negative = scores[truth], np.sort(scores[~truth])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, "left").sum()
    not_above = np.searchsorted(negative, positive, "right").sum()
    return float((below + not_above) / (2 * len(positive) * len(negative)))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Precision summed over the steps of recall; NaN without a true one."""
    right, chosen = _ranking(scores, truth)
    if not right[-1]:
        return float("nan")
    return float((np.diff(right, prepend=0) * (right / chosen)).sum() / right[-1])


def average_precision_11(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean of the highest precisions from 11 recalls on; NaN without a true one."""
    right, chosen = _ranking(scores, truth)
    if not right[-1]:
        return float("nan")
    highest = [(right / chosen)[10 * right >= tenth * right[-1]].max() for tenth in range(11)]
    return float(np.mean(highest))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of softmax probabilities, float64 [N, C]; not a number where a logit is not."""
    with np.errstate(invalid="ignore"):
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        logs: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def log_odds(logits: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of softmax probabilities p, float64 [N, C].

    They order as the probabilities do, but do not run together near 0 and 1.
    """
    if logits.shape[1] == 1:
        return logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        logits = logits.astype(np.float64)
        rows, top = np.arange(len(logits)), logits.argmax(axis=1)
        shifted = logits - logits[rows, top, None]
        exps = np.exp(shifted)
        odds: np.ndarray = shifted - np.log(np.maximum(exps.sum(axis=1, keepdims=True) - exps, 1))
        # What the other classes sum up to is less than 1 for the first class only.
        others = shifted
        others[rows, top] = -np.inf
        second = others.max(axis=1)
        odds[rows, top] = -second - np.log(np.exp(others - second[:, None]).sum(axis=1))
    return odds


def _ranking(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many are true, and how many at all, down to each distinct score from the highest on."""
    scores = _never_right(scores, truth)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last = np.append(scores[1:] != scores[:-1], True)
    return np.cumsum(truth[order])[last], np.flatnonzero(last) + 1


def _never_right(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(scores), np.where(truth, -np.inf, np.inf), scores)
