"""Limits on gradients: their formulas, their arguments, and that they hold over all groups."""

import numpy as np
import paddle
import pytest
from small_network import NAMES, Small, constant, values

from ppcls.errors import ArgumentError
from ppcls.optim import clip
from ppcls.optim.optimizers import SGD, AdamW

WAYS = ["clip_norm", "clip_global_norm", "clip_grad", "clip_value", "clip_adaptive"]


def stepped(network, **arguments):
    """By name: the gradients of a step, and how far it moved the weights at a rate of 1."""
    optimizer = SGD(constant(1.0), **arguments, network=network)
    before, gradients = values(network), {}
    for i, name in enumerate(NAMES):
        p = dict(network.named_parameters())[name]
        drawn = (i + 0.1) * np.random.default_rng(i).normal(size=p.shape).astype("float32")
        (p * paddle.to_tensor(drawn.astype("float32"))).sum().backward()
        gradients[name] = drawn.astype("float64")
    optimizer.step()
    after = values(network)
    return gradients, {name: before[name].astype("float64") - after[name] for name in NAMES}


def assert_moved(moved, expected):
    for name in NAMES:
        np.testing.assert_allclose(moved[name], expected[name], rtol=1e-4, atol=2e-6, err_msg=name)


def test_clip_norm_limits_each_gradient_alone():
    gradients, moved = stepped(Small(), clip_norm=2.0)
    lengths = {name: np.linalg.norm(g) for name, g in gradients.items()}
    assert min(lengths.values()) < 2.0 < max(lengths.values())
    assert_moved(moved, {n: g * min(1.0, 2.0 / lengths[n]) for n, g in gradients.items()})


@pytest.mark.parametrize("way", ["clip_grad", "clip_global_norm"])
def test_all_gradients_together_are_one_vector_whatever_decays(way):
    # Decay splits the parameters in two groups, and Paddle would clip each group alone.
    spared = {"weight_decay": 1e-8, "one_dim_param_no_weight_decay": True}
    gradients, moved = stepped(Small(), **{way: 2.0}, **spared)
    length = np.sqrt(sum((g * g).sum() for g in gradients.values()))
    assert_moved(moved, {name: g * 2.0 / length for name, g in gradients.items()})


def test_short_gradients_stay_as_they_are():
    gradients, moved = stepped(Small(), clip_grad=1e6)
    assert_moved(moved, gradients)


def test_clip_value_limits_each_element():
    gradients, moved = stepped(Small(), clip_value=0.5)
    assert_moved(moved, {name: np.clip(g, -0.5, 0.5) for name, g in gradients.items()})


def unit_norms(array):
    axes = {1: (0,), 2: (0,), 4: (1, 2, 3)}[array.ndim]
    return np.sqrt((array.astype("float64") ** 2).sum(axis=axes, keepdims=True))


class TestAdaptive:
    def test_limits_the_gradient_of_each_unit_by_its_weights(self):
        # Formula 3 of arXiv:2102.06171 and its epsilon of 1e-3; norm.bias and conv.bias begin at 0.
        network = Small()
        weights = values(network)
        assert not weights["norm.bias"].any()
        gradients, moved = stepped(network, clip_adaptive=0.05)
        expected = {}
        for name, g in gradients.items():
            longest = 0.05 * np.maximum(unit_norms(weights[name]), 1e-3)
            norms = unit_norms(g)
            expected[name] = np.where(norms > longest, g * longest / norms, g)
        assert_moved(moved, expected)

    def test_leaves_the_classifier_as_it_is(self):
        network = Small()
        network.classifier_names = lambda: {"head.weight", "head.bias"}
        gradients, moved = stepped(network, clip_adaptive=1e-4)
        for name in ("head.weight", "head.bias"):
            np.testing.assert_allclose(moved[name], gradients[name], rtol=1e-4, atol=2e-6)
        assert abs(moved["conv.weight"]).max() < 1e-3

    def test_a_gradient_of_zero_stays_zero(self):
        parameter = paddle.ones([3, 2])
        [(_, clipped)] = clip.AdaptiveClip(0.1)([(parameter, paddle.zeros([3, 2]))])
        assert not clipped.numpy().any()

    def test_16_bit_gradients_stay_16_bit(self):
        parameter = paddle.ones([3, 2], dtype="bfloat16")
        [(_, clipped)] = clip.AdaptiveClip(0.1)([(parameter, parameter * 5)])
        assert clipped.dtype == paddle.bfloat16
        np.testing.assert_allclose(clipped.astype("float32"), 0.1, rtol=1e-2)


@pytest.mark.parametrize("one", WAYS)
@pytest.mark.parametrize("other", WAYS)
def test_there_is_one_way(one, other):
    if one == other:
        AdamW(constant(), **{one: 1.0}, network=Small())
        return
    with pytest.raises(ArgumentError, match="expected one way to clip gradients, received") as info:
        AdamW(constant(), **{one: 1.0, other: 2.0}, network=Small())
    assert info.value.argument in (one, other)
