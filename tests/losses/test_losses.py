"""Losses against numpy."""

import numpy as np
import paddle
import pytest

from ppcls.errors import ArgumentError, DataError
from ppcls.losses import CombinedLoss
from ppcls.losses.ce import CELoss
from ppcls.registry import LOSSES

N, C = 6, 5


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(N, C), scale=3).astype("float32")


@pytest.fixture
def indices():
    return np.array([0, 1, 2, 3, 4, 0])


@pytest.fixture
def mixture(indices):
    onehot = np.eye(C, dtype="float32")
    return 0.7 * onehot[indices] + 0.3 * onehot[indices[::-1]]


def softmax(logits):
    exps = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def smoothed(target, epsilon):
    return (1 - (epsilon or 0)) * target + (epsilon or 0) / C


def reference(logits, target):
    return -(target * np.log(softmax(logits))).sum(axis=1).mean()


def onehot(indices):
    return np.eye(C)[indices]


@pytest.mark.parametrize("weight", [1.0, 0.25, 0.0])
@pytest.mark.parametrize("epsilon", [None, 0.0, 0.1])
@pytest.mark.parametrize("kind", ["[N]", "[N, 1]", "int32", "soft"])
def test_value_and_gradient(logits, indices, mixture, kind, epsilon, weight):
    given = {
        "[N]": indices,
        "[N, 1]": indices[:, None],
        "int32": indices.astype("int32"),
        "soft": mixture,
    }[kind]
    target = smoothed(mixture if kind == "soft" else onehot(indices), epsilon)
    x = paddle.to_tensor(logits, stop_gradient=False)
    loss = CELoss(weight, epsilon)(x, paddle.to_tensor(given))
    assert loss.shape == []
    assert loss.item() == pytest.approx(weight * reference(logits, target), rel=1e-5)
    loss.backward()
    gradient = weight * (softmax(logits) - target) / N
    np.testing.assert_allclose(x.grad.numpy(), gradient, atol=1e-6)


def test_a_confident_answer_to_a_mixture_is_better_than_none(mixture):
    # PaddleClas applies a softmax to the mixture and so punishes the right answer.
    loss = CELoss(1.0)
    confident = loss(paddle.to_tensor(np.log(mixture + 1e-6)), paddle.to_tensor(mixture)).item()
    uniform = loss(paddle.zeros([N, C]), paddle.to_tensor(mixture)).item()
    assert confident < 0.8 < uniform


def test_sum(logits, indices):
    x, y = paddle.to_tensor(logits), paddle.to_tensor(indices)
    total = CELoss(1.0, reduction="sum")(x, y).item()
    assert total == pytest.approx(N * CELoss(1.0)(x, y).item(), rel=1e-6)


def test_is_computed_in_32_bits(logits, indices):
    x = paddle.to_tensor(logits * 100).astype("bfloat16")
    loss = CELoss(1.0, 0.1)(x, paddle.to_tensor(indices))
    assert loss.dtype == paddle.float32
    target = smoothed(onehot(indices), 0.1)
    expected = -(target * paddle.nn.functional.log_softmax(x.astype("float32")).numpy()).sum(1)
    assert loss.item() == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("wrong", [C, -1, -100, 10**6])
@pytest.mark.parametrize("epsilon", [None, 0.1])
def test_an_index_that_is_no_class(logits, indices, wrong, epsilon):
    indices[2] = wrong
    low, high = indices.min(), indices.max()
    message = f"expected class indices from 0 to 4, received indices from {low} to {high}"
    with pytest.raises(DataError, match=message):
        CELoss(1.0, epsilon)(paddle.to_tensor(logits), paddle.to_tensor(indices))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros((N, C), "int64"), r"class indices of shape \[6\] or \[6, 1\], received \[6, 5\]"),
        (np.zeros(N + 1, "int64"), r"class indices of shape \[6\] or \[6, 1\], received \[7\]"),
        (np.zeros(N, "float32"), r"probabilities of shape \[6, 5\], received \[6\]"),
    ],
)
def test_targets_of_another_shape(logits, targets, message):
    with pytest.raises(DataError, match=message):
        CELoss(1.0)(paddle.to_tensor(logits), paddle.to_tensor(targets))


class TestCombinedLoss:
    def test_one_loss_keeps_its_weight(self, logits, indices):
        x, y = paddle.to_tensor(logits), paddle.to_tensor(indices)
        found = CombinedLoss([CELoss(0.5)])(x, y)
        half = 0.5 * CELoss(1.0)(x, y).item()
        assert {k: v.item() for k, v in found.items()} == pytest.approx(
            {"CELoss": half, "loss": half}
        )

    def test_two_of_a_kind_are_both_counted(self, logits, indices):
        x, y = paddle.to_tensor(logits, stop_gradient=False), paddle.to_tensor(indices)
        combined = CombinedLoss([CELoss(1.0), CELoss(2.0, 0.1), CELoss(3.0)])
        found = combined(x, y)
        assert list(found) == combined.names == ["CELoss", "CELoss_2", "CELoss_3", "loss"]
        *parts, total = (value.item() for value in found.values())
        assert total == pytest.approx(sum(parts), rel=1e-6)
        assert parts[2] == pytest.approx(3 * parts[0], rel=1e-6)
        found["loss"].backward()
        target = (4 * onehot(indices) + 2 * smoothed(onehot(indices), 0.1)) / 6
        np.testing.assert_allclose(x.grad.numpy(), 6 * (softmax(logits) - target) / N, atol=1e-5)

    def test_no_loss(self):
        with pytest.raises(ArgumentError, match="expected at least one loss, received none"):
            CombinedLoss([])


def test_weight_has_no_default():
    arguments = LOSSES.entry("CELoss").arguments()
    assert arguments["weight"].default is arguments["weight"].__class__.default
