"""Distances between the outputs of two networks, for distillation.

Called with a student's and a teacher's output. Where one is to follow the other (Kullback-Leibler),
the teacher's is taken for a constant; where both are to meet (mutual learning, distances), the
gradient reaches both, and a teacher that shall stay as it is has to be frozen. All are computed in
32 bits. ``distillation.py`` has them as losses of a configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ppcls.errors import DataError
from ppcls.losses.base import Positive, Reduction, Weight, check_shape, probabilities
from ppcls.losses.ce import CELoss
from ppcls.losses.multilabel import class_ratio, ratio_weights

if TYPE_CHECKING:
    from typing import Any

    import paddle

Activation = Literal["softmax", "sigmoid"]
Mode = Literal["l1", "l2", "smooth_l1"]

TINY = 1e-12  # smallest probability a logarithm is taken of, where logits are not known


class KLDivLoss:
    """``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, arXiv:1503.02531.

    The mean over the batch of the sum over the classes.

    Args:
        temperature: T.
    """

    def __init__(self, temperature: Positive = 4.0):
        self._temperature = temperature

    def __call__(self, student: paddle.Tensor, teacher: paddle.Tensor) -> paddle.Tensor:
        """A scalar.

        Args:
            student: logits [N, C].
            teacher: logits [N, C], a constant.

        Raises:
            DataError: the shapes differ.
        """
        student, teacher = _alike(student, teacher.detach())
        t = self._temperature
        return t**2 * _kl(_log_softmax(teacher / t), _log_softmax(student / t)).mean()


class DMLLoss:
    """Both directions of the Kullback-Leibler divergence, halved (arXiv:1706.00384, section 2.1).

    ``1/2 * sum_c (p_c - q_c) * (log p_c - log q_c)``, the mean over the batch. The gradient
    reaches both.

    Args:
        act: what makes probabilities of the outputs; null if they are some already.
        sum_across_class_dim: multiplies by the number of classes, as published.
        weight_ratio: weigh each class of multi-label targets, see ``MultiLabelLoss``.
        label_ratio: [C], the ratio of positives of the training data set.
    """

    def __init__(
        self,
        act: Activation | None = "softmax",
        sum_across_class_dim: bool = False,
        weight_ratio: bool = False,
        *,
        label_ratio: Any = None,
    ):
        self._act = act
        self._sums = sum_across_class_dim
        self._weighs = weight_ratio
        self._ratio = label_ratio

    def __call__(
        self, one: paddle.Tensor, other: paddle.Tensor, targets: paddle.Tensor | None = None
    ) -> paddle.Tensor:
        """A scalar.

        Args:
            one: [N, C].
            other: [N, C].
            targets: [N, C] of multi-label pictures, for ``weight_ratio``.

        Raises:
            DataError: the shapes differ, or the ratio or targets for ``weight_ratio`` are missing.
        """
        one, other = _alike(one, other)
        classes = one.shape[1]
        (p, log_p), (q, log_q) = _activated(one, self._act), _activated(other, self._act)
        divergence = 0.5 * (p - q) * (log_p - log_q)
        if self._weighs:
            if targets is None or list(targets.shape) != list(one.shape):
                raise DataError("weight_ratio: expected one target a class")
            ratio = class_ratio(self._ratio, classes)
            divergence = divergence * ratio_weights(targets.astype("float32"), ratio)
        return divergence.sum(axis=1).mean() * (classes if self._sums else 1)


class DKDLoss:
    """Decoupled distillation (arXiv:2203.08679, equation 7), times ``T^2``.

    ``alpha * KL(b_t || b_s) + beta * KL(n_t || n_s)`` at temperature T: b are the two
    probabilities of the target class and of all others, n the distribution over the others.
    ``alpha = 1`` and ``beta`` the teacher's probability of the others would be ``KLDivLoss``.

    Args:
        temperature: T.
        alpha: factor of the target class's part.
        beta: factor of the other classes' part.
        use_target_as_gt: the target class is the teacher's first choice, not the picture's.
    """

    def __init__(
        self,
        temperature: Positive = 1.0,
        alpha: Weight = 1.0,
        beta: Weight = 1.0,
        use_target_as_gt: bool = False,
    ):
        self._temperature = temperature
        self._alpha = alpha
        self._beta = beta
        self._teachers_choice = use_target_as_gt

    def __call__(
        self, student: paddle.Tensor, teacher: paddle.Tensor, targets: paddle.Tensor | None = None
    ) -> paddle.Tensor:
        """A scalar, the mean over the batch.

        Args:
            student: logits [N, C].
            teacher: logits [N, C], a constant.
            targets: class indices [N] or [N, 1]; of probabilities [N, C], the class of the highest
                is the target. Without any, the teacher's first choice is.

        Raises:
            DataError: the shapes differ, or targets of another shape.
        """
        import paddle
        import paddle.nn.functional as F

        student, teacher = _alike(student, teacher.detach())
        if targets is None or self._teachers_choice:
            targets = teacher.argmax(axis=1)
        elif check_shape(student, targets):
            targets = targets.argmax(axis=1)
        mask = probabilities(student, targets)
        t = self._temperature
        parts = []
        for logits in (teacher / t, student / t):
            log_p = _log_softmax(logits)
            others = log_p - 1e9 * mask  # float32 forgets log_p beside it: the class is left out
            log_others = paddle.logsumexp(others, axis=1, keepdim=True)
            log_target = (log_p * mask).sum(axis=1, keepdim=True)
            binary = paddle.concat([log_target, log_others], axis=1)
            parts.append((binary, F.log_softmax(others, axis=1)))
        (teacher_binary, teacher_others), (binary, others) = parts
        # Masked entries are equal on both sides, and exp of them is 0.
        target = _kl(teacher_binary, binary)
        rest = (teacher_others.exp() * (1 - mask) * (teacher_others - others) * (1 - mask)).sum(1)
        return t**2 * (self._alpha * target + self._beta * rest).mean()


class DistanceLoss:
    """A distance between two outputs or features of one shape; the gradient reaches both.

    Args:
        mode: ``l1`` ``|d|``, ``l2`` ``d^2``, or ``smooth_l1``: ``d^2 / 2`` below ``delta``, and
            ``delta * |d| - delta^2 / 2`` above.
        reduction: over all numbers.
        delta: where ``smooth_l1`` changes.
    """

    def __init__(self, mode: Mode = "l2", reduction: Reduction = "mean", delta: Positive = 1.0):
        self._mode = mode
        self._reduction: Reduction = reduction
        self._delta = delta

    def __call__(self, one: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
        """A scalar.

        Args:
            one: a tensor of any shape.
            other: of the same.

        Raises:
            DataError: the shapes differ.
        """
        import paddle.nn.functional as F

        one, other = _alike(one, other)
        if self._mode == "l1":
            return F.l1_loss(one, other, reduction=self._reduction)
        if self._mode == "l2":
            return F.mse_loss(one, other, reduction=self._reduction)
        return F.smooth_l1_loss(one, other, reduction=self._reduction, delta=self._delta)


class DistillationTokenLoss:
    """DeiT's distillation by a second token (arXiv:2012.12877, section 3, equations 2 and 3).

    ``(1 - alpha) * CE(class token, label) + alpha * D(distillation token, teacher)``, where D is
    the cross entropy with the teacher's first choice (``hard``), or
    ``T^2 * KL(teacher / T || distillation token / T)`` (``soft``).

    The authors' program divides the soft D by the number of classes besides; the paper does not.

    Args:
        mode: ``hard`` or ``soft``.
        alpha: the paper's 1/2 for hard, 0.1 for soft distillation (there: lambda).
        temperature: T of soft distillation; 3.0 in the paper.
        epsilon: label smoothing of the class token's cross entropy.
    """

    def __init__(
        self,
        mode: Literal["hard", "soft"] = "hard",
        alpha: float = 0.5,
        temperature: Positive = 3.0,
        epsilon: float | None = None,
    ):
        self._mode = mode
        self._alpha = alpha
        self._label = CELoss(1.0, epsilon)
        self._choice = CELoss(1.0)
        self._soft = KLDivLoss(temperature)

    def __call__(
        self,
        logits: paddle.Tensor,
        token_logits: paddle.Tensor,
        teacher: paddle.Tensor,
        targets: paddle.Tensor,
    ) -> paddle.Tensor:
        """A scalar.

        Args:
            logits: of the class token, [N, C].
            token_logits: of the distillation token, [N, C].
            teacher: its logits, [N, C], a constant.
            targets: class indices [N] or [N, 1], or probabilities [N, C].

        Raises:
            DataError: the shapes differ, or targets of another shape.
        """
        if self._mode == "hard":
            _alike(token_logits, teacher)
            distillation = self._choice(token_logits, teacher.argmax(axis=1))
        else:
            distillation = self._soft(token_logits, teacher)
        return (1 - self._alpha) * self._label(logits, targets) + self._alpha * distillation


def _alike(one: paddle.Tensor, other: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Both in 32 bits; raises DataError if the shapes differ, which Paddle would broadcast."""
    if list(one.shape) != list(other.shape):
        raise DataError(
            f"expected two outputs of one shape, received {list(one.shape)} and {list(other.shape)}"
        )
    return one.astype("float32"), other.astype("float32")


def _log_softmax(logits: paddle.Tensor) -> paddle.Tensor:
    import paddle.nn.functional as F

    return F.log_softmax(logits, axis=1)


def _kl(log_p: paddle.Tensor, log_q: paddle.Tensor) -> paddle.Tensor:
    """``KL(p || q)`` of each row, [N]."""
    return (log_p.exp() * (log_p - log_q)).sum(axis=1)


def _activated(
    outputs: paddle.Tensor, act: Activation | None
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Probabilities and their logarithms."""
    import paddle.nn.functional as F

    if act == "softmax":
        log_p = F.log_softmax(outputs, axis=1)
    elif act == "sigmoid":
        log_p = F.log_sigmoid(outputs)
    else:
        return outputs, outputs.clip(min=TINY).log()
    return log_p.exp(), log_p
