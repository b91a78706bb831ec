"""Comparing a loss with its formula: the value, and the gradient with differences of the formula.

The formulas are in NumPy, 64 bits, written from the papers' equations and not from the losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle

STEP = 1e-6


def softmax(x: np.ndarray) -> np.ndarray:
    exps = np.exp(x - x.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Of each row."""
    return (p * np.log(p / q)).sum(axis=1)


def differences(formula: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    """The gradient of a formula by central differences."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[index] = STEP
        gradient[index] = (formula(x + step) - formula(x - step)) / (2 * STEP)
    return gradient


def assert_agrees(
    loss: Callable[[paddle.Tensor], paddle.Tensor],
    formula: Callable[[np.ndarray], float],
    x: np.ndarray,
    constant: Callable[[np.ndarray], float] | None = None,
) -> None:
    """Value and gradient of ``loss`` at x are the formula's.

    Args:
        constant: the formula to differentiate, where a part of it is no part of the gradient.
    """
    logits = paddle.to_tensor(x.astype("float32"), stop_gradient=False)
    found = loss(logits)
    assert found.shape == []
    exact = x.astype("float32").astype("float64")
    np.testing.assert_allclose(found.item(), formula(exact), rtol=1e-5)
    found.backward()
    wanted = differences(constant or formula, exact)
    np.testing.assert_allclose(logits.grad.numpy(), wanted, rtol=1e-4, atol=1e-6)


def tensor(values: Any) -> paddle.Tensor:
    return paddle.to_tensor(np.asarray(values))
