"""Momentum by the CPU kernels against Paddle's."""

import numpy as np
import pytest

paddle = pytest.importorskip("paddle")

from small_network import Small, build, constant, train, values  # noqa: E402

from ppcls.optim.optimizers import Momentum  # noqa: E402
from ppcls.optim.regularizers import L1, L2  # noqa: E402


def pair(make):
    """Two equal networks and their optimizers, the second one's on the kernels."""
    networks = Small(), Small()
    networks[1].set_state_dict(networks[0].state_dict())
    optimizers = [make(network) for network in networks]
    assert optimizers[1].use_kernels()
    return networks, optimizers


def assert_equal_after_steps(networks, optimizers):
    for network, optimizer in zip(networks, optimizers, strict=True):
        train(network, optimizer, range(6))
    one, other = map(values, networks)
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=2e-6, atol=1e-7, err_msg=name)
    one, other = (optimizer.state_dict() for optimizer in optimizers)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_nesterov_with_decay_of_some_parameters():
    assert_equal_after_steps(*pair(build))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [None, 0.05])
def test_every_combination(nesterov, decay):
    def make(network):
        regularizer = L2(decay) if decay else None
        return Momentum(constant(), 0.8, regularizer, use_nesterov=nesterov, network=network)

    assert_equal_after_steps(*pair(make))


def test_a_parameter_without_gradient_stays_as_it_is():
    networks, optimizers = pair(build)
    for network in networks:
        network.norm.weight.stop_gradient = True
    before = networks[1].norm.weight.numpy().copy()
    assert_equal_after_steps(networks, optimizers)
    assert np.array_equal(networks[1].norm.weight.numpy(), before)


def test_a_parameters_own_learning_rate_counts():
    def make(network):
        network.head.weight.optimize_attr["learning_rate"] = 0.1
        return build(network)

    assert_equal_after_steps(*pair(make))


def test_its_state_goes_on_in_paddles_and_back():
    (one, other), (stock, fused) = pair(build)
    train(one, stock, range(3))
    train(other, fused, range(3))
    stock.load_state_dict(fused.state_dict())
    fused.load_state_dict(stock.state_dict())
    one.set_state_dict(other.state_dict())
    assert_equal_after_steps((one, other), (stock, fused))


def test_a_parameter_larger_than_a_threads_share():
    def make(network):
        return Momentum(constant(), weight_decay=0.01, network=network)

    networks = paddle.nn.Linear(301, 407), paddle.nn.Linear(301, 407)
    networks[1].set_state_dict(networks[0].state_dict())
    stock, fused = map(make, networks)
    assert fused.use_kernels()
    for network, optimizer in zip(networks, (stock, fused), strict=True):
        for step in range(3):
            optimizer.set_step(step)
            network(paddle.ones([2, 301]) * (step + 1)).square().sum().backward()
            optimizer.inner.set_lr(1e-5)
            optimizer.step()
            optimizer.clear_grad()
    np.testing.assert_allclose(networks[1].weight, networks[0].weight, rtol=1e-5, atol=1e-6)


def test_what_the_kernels_do_not_know_stays_paddles():
    assert not Momentum(constant(), regularizer=L1(1e-3), network=Small()).use_kernels()
    half = Small().to(dtype="float64")
    assert not build(half).use_kernels()
