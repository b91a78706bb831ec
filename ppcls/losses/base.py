"""What losses have in common: annotations, targets in the form wanted, and reductions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ppcls.errors import DataError

if TYPE_CHECKING:
    import paddle

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # factor of a loss, or of a class
Smoothing = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Reduction = Literal["mean", "sum"]

# Paddle gives a target equal to this number a loss of zero. Its default, -100, would hide a wrong
# label in that way; this one cannot come from a list file by mistake.
NOT_A_CLASS = -(2**31)


def check_shape(logits: paddle.Tensor, targets: paddle.Tensor) -> bool:
    """Whether the targets are probabilities [N, C], not class indices [N] or [N, 1].

    Raises:
        DataError: they have the shape of neither.
    """
    import paddle

    batch, classes = logits.shape
    soft = bool(paddle.is_floating_point(targets))
    admitted = [[batch, classes]] if soft else [[batch], [batch, 1]]
    if list(targets.shape) not in admitted:
        expected = " or ".join(str(shape) for shape in admitted)
        kind = "probabilities" if soft else "class indices"
        raise DataError(f"expected {kind} of shape {expected}, received {list(targets.shape)}")
    return soft


def probabilities(logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
    """The targets as probabilities, float32 [N, C]; class indices become one-hot rows.

    Raises:
        DataError: targets of another shape, or, on a CPU, indices that are no class.
    """
    import paddle.nn.functional as F

    if check_shape(logits, targets):
        return targets.astype("float32")
    batch, classes = logits.shape
    indices = targets.astype("int64").reshape([batch])
    # Paddle's check of a range ends in an error of its own on a CPU, and stops a GPU.
    if "cpu" in str(targets.place).lower():
        check_range(indices, classes)
    return F.one_hot(indices, classes)


def check_range(indices: paddle.Tensor, classes: int) -> None:
    """Raises DataError if an index is no class."""
    lowest, highest = indices.min().item(), indices.max().item()
    if lowest < 0 or highest >= classes:
        expected = f"expected class indices from 0 to {classes - 1}"
        raise DataError(f"{expected}, received indices from {lowest} to {highest}")


def decisions(logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
    """The targets of multi-label pictures, one from 0 to 1 for each class, float32 [N, C].

    Raises:
        DataError: targets of another shape, such as class indices.
    """
    if list(targets.shape) != list(logits.shape):
        expected = f"expected one target a class, shape {list(logits.shape)}"
        raise DataError(f"{expected}, received {list(targets.shape)}")
    return targets.astype("float32")


def reduced(values: paddle.Tensor, reduction: Reduction) -> paddle.Tensor:
    """The mean or the sum of all values, a scalar."""
    return values.mean() if reduction == "mean" else values.sum()


def smoothed(targets: paddle.Tensor, epsilon: float) -> paddle.Tensor:
    """``(1 - epsilon) * target + epsilon / C`` (arXiv:1512.00567, section 7)."""
    return (1 - epsilon) * targets + epsilon / targets.shape[1] if epsilon else targets


def ratio_weights(targets: paddle.Tensor, ratio: paddle.Tensor) -> paddle.Tensor:
    """Weights of positive and negative answers of classes that few pictures have.

    A positive one has ``exp(1 - r)``, a negative one ``exp(r)`` (Li et al., "Multi-attribute
    learning for pedestrian attribute recognition in surveillance scenarios", ACPR 2015).

    Args:
        targets: [N, C]; those above 0.5 are positive.
        ratio: [C], part of the training pictures that have the class.
    """
    positive = (targets > 0.5).astype("float32")
    return (positive * (1 - ratio) + (1 - positive) * ratio).exp()
