"""Limits on gradients, applied before weight decay is added.

A limit is called with pairs of a parameter and its gradient, all of a step, and returns such pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import paddle

Pairs = Sequence[tuple[paddle.Tensor, paddle.Tensor]]
Clip = Callable[[Pairs], Pairs]

LEAST_NORM = 1e-3  # of weights that are still zero, as in the paper


def by_value(limit: float) -> Clip:
    """Every element is brought into ``[-limit, limit]``."""
    return paddle.nn.ClipGradByValue(max=limit)


def by_norm(limit: float) -> Clip:
    """Each gradient ``g`` longer than ``limit`` becomes ``g * limit / |g|``."""
    return paddle.nn.ClipGradByNorm(limit)


def by_global_norm(limit: float) -> Clip:
    """All gradients, together a vector longer than ``limit``, are shortened by one factor to it."""
    return paddle.nn.ClipGradByGlobalNorm(limit)


class AdaptiveClip:
    """Adaptive gradient clipping (AGC): https://arxiv.org/abs/2102.06171, section 4.1.

    The gradient of a unit (the weights of one output channel or output, or a whole vector) is at
    most ``factor`` times as long as its weights.

    Args:
        factor: the paper's lambda.
        spared: parameters (Paddle's names) that are not clipped: the paper leaves out the
            classifier.
    """

    def __init__(self, factor: float, spared: Collection[str] = ()):
        self._factor = factor
        self._spared = set(spared)

    def __call__(self, pairs: Pairs) -> Pairs:
        """The pairs with clipped gradients."""
        return [(p, g if p.name in self._spared else self._clipped(p, g)) for p, g in pairs]

    def _clipped(self, parameter: paddle.Tensor, gradient: paddle.Tensor) -> paddle.Tensor:
        longest = self._factor * paddle.clip(_unit_norms(parameter), min=LEAST_NORM)
        norms = _unit_norms(gradient)
        factors = paddle.where(norms > longest, longest / norms, paddle.ones_like(norms))
        return (gradient.astype(norms.dtype) * factors).astype(gradient.dtype)


def _unit_norms(tensor: paddle.Tensor) -> paddle.Tensor:
    """Norms of a parameter's units, to be broadcast against it; 64-bit stays, the rest is 32-bit.

    Kernels of convolutions are [out, in, ...], matrices of linear layers [in, out].
    """
    exact = tensor if tensor.dtype == paddle.float64 else tensor.astype("float32")
    sizes = [size for size in tensor.shape if size != 1]
    if len(sizes) <= 1:
        axes = list(range(tensor.ndim))
    elif tensor.ndim >= 4:
        axes = list(range(1, tensor.ndim))
    else:
        axes = [0]
    if not axes:
        return exact.abs()
    return exact.square().sum(axis=axes, keepdim=True).sqrt()
