"""Each optimizer for several steps against its closed form in 64 bits; its state when resuming."""

import numpy as np
import paddle
import pytest
from paddle import nn
from small_network import NAMES, RUN, Small, constant, train, values

from ppcls.errors import ArgumentError
from ppcls.optim.optimizers import (
    LARS,
    SGD,
    Adam,
    AdamW,
    AdamWDL,
    Lamb,
    Lion,
    Momentum,
    RMSProp,
)
from ppcls.optim.regularizers import L1, L2
from ppcls.optim.schedules import Cosine

MATRICES = ("conv.weight", "head.weight")
DEPTH = {"conv": 0, "norm": 1, "head": 2}


# Closed forms: (weight, gradient, rate, decay, slots, step from 1) -> weight ----------------------


def sgd(w, g, rate, decay, slots, t):
    return w - rate * (g + decay * w)


def momentum(w, g, rate, decay, slots, t):
    slots["v"] = 0.8 * slots.get("v", 0.0) + g + decay * w
    return w - rate * slots["v"]


def moments(g, slots, t, beta1, beta2):
    slots["m"] = beta1 * slots.get("m", 0.0) + (1 - beta1) * g
    slots["s"] = beta2 * slots.get("s", 0.0) + (1 - beta2) * g * g
    return slots["m"] / (1 - beta1**t), slots["s"] / (1 - beta2**t)


def adam(w, g, rate, decay, slots, t):
    m, s = moments(g + decay * w, slots, t, 0.8, 0.95)
    return w - rate * m / (np.sqrt(s) + 0.01)


def adamw(w, g, rate, decay, slots, t):
    m, s = moments(g, slots, t, 0.8, 0.95)
    return w - rate * decay * w - rate * m / (np.sqrt(s) + 0.01)


def lamb(w, g, rate, decay, slots, t, adapts=False):
    m, s = moments(g, slots, t, 0.8, 0.95)
    r = m / (np.sqrt(s) + 0.01) + decay * w
    own, its = np.linalg.norm(w), np.linalg.norm(r)
    trust = own / its if (decay or adapts) and own > 0 and its > 0 else 1.0
    return w - rate * trust * r


def lamb_everywhere(*arguments):
    return lamb(*arguments, adapts=True)


def rmsprop(start):
    def step(w, g, rate, decay, slots, t):
        g = g + decay * w
        slots["s"] = 0.7 * slots.get("s", start) + 0.3 * g * g
        slots["v"] = 0.8 * slots.get("v", 0.0) + rate * g / np.sqrt(slots["s"] + 0.05)
        return w - slots["v"]

    return step


def lars(w, g, rate, decay, slots, t):
    if decay:
        own, its = np.linalg.norm(w), np.linalg.norm(g)
        rate = rate * 0.3 * own / (its + decay * own + 0.02)
    slots["v"] = 0.8 * slots.get("v", 0.0) + rate * (g + decay * w)
    return w - slots["v"]


def lion(w, g, rate, decay, slots, t):
    m = slots.get("m", 0.0)
    slots["m"] = 0.97 * m + 0.03 * g
    return w - rate * (np.sign(0.8 * m + 0.2 * g) + decay * w)


BETAS = {"beta1": 0.8, "beta2": 0.95, "epsilon": 0.01}
ROOT = {"rho": 0.7, "momentum": 0.8, "epsilon": 0.05}
FORMS = [
    pytest.param(SGD, {}, sgd, id="SGD"),
    pytest.param(Momentum, {"momentum": 0.8}, momentum, id="Momentum"),
    pytest.param(Adam, BETAS, adam, id="Adam"),
    pytest.param(AdamW, BETAS, adamw, id="AdamW"),
    pytest.param(AdamWDL, BETAS, adamw, id="AdamWDL"),
    pytest.param(Lamb, BETAS, lamb, id="Lamb"),
    pytest.param(Lamb, {**BETAS, "always_adapt": True}, lamb_everywhere, id="Lamb-everywhere"),
    pytest.param(RMSProp, ROOT, rmsprop(1.0), id="RMSProp"),
    pytest.param(RMSProp, {**ROOT, "initial_mean_square": 0.0}, rmsprop(0.0), id="RMSProp-0"),
    pytest.param(LARS, {"momentum": 0.8, "lars_coeff": 0.3, "epsilon": 0.02}, lars, id="LARS"),
    pytest.param(Lion, {"beta1": 0.8, "beta2": 0.97}, lion, id="Lion"),
]


def draw_gradients(network, step):
    """Sets gradients that do not depend on the weights; returns them by name, in 64 bits."""
    gradients = {}
    for i, (name, p) in enumerate(network.named_parameters()):
        if not p.stop_gradient:
            drawn = np.random.default_rng((step, i)).normal(size=p.shape).astype("float32")
            (p * paddle.to_tensor(drawn)).sum().backward()
            gradients[name] = drawn.astype("float64")
    return gradients


def run(network, optimizer, form, decay=0.0, factors=None, clip=None, steps=6):
    """Steps the network, and beside it the closed form; compares the weights."""
    expected = {name: value.astype("float64") for name, value in values(network).items()}
    slots = {name: {} for name in NAMES}
    for step in range(steps):
        rate = optimizer.set_step(step)
        gradients = draw_gradients(network, step)
        if clip is not None:
            gradients = clip(gradients)
        for name, g in gradients.items():
            own_rate = rate * (factors or {}).get(name, 1.0)
            own_decay = decay if name in MATRICES else 0.0
            arguments = expected[name], g, own_rate, own_decay, slots[name], step + 1
            expected[name] = form(*arguments)
        optimizer.step()
        optimizer.clear_grad()
    for name, weight in values(network).items():
        np.testing.assert_allclose(weight, expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


def shorten(limit):
    """All gradients together, to a length of at most ``limit``."""

    def clip(gradients):
        length = np.sqrt(sum((g * g).sum() for g in gradients.values()))
        assert length > limit
        return {name: g * limit / length for name, g in gradients.items()}

    return clip


@pytest.mark.parametrize(("builder", "arguments", "form"), FORMS)
class TestClosedForms:
    def test_with_decay_of_some(self, builder, arguments, form):
        network = Small()
        optimizer = builder(
            Cosine(0.1, **RUN),
            **arguments,
            weight_decay=0.3,
            one_dim_param_no_weight_decay=True,
            network=network,
        )
        run(network, optimizer, form, decay=0.3)

    def test_with_clipping_and_rates_by_depth(self, builder, arguments, form):
        network = Small()
        optimizer = builder(
            Cosine(0.1, **RUN),
            **arguments,
            weight_decay=0.3,
            one_dim_param_no_weight_decay=True,
            layer_decay=0.5,
            clip_grad=2.0,
            network=network,
        )
        factors = {name: 0.5 ** (2 - DEPTH[name.split(".")[0]]) for name in NAMES}
        assert optimizer.rate_factors() == factors
        run(network, optimizer, form, decay=0.3, factors=factors, clip=shorten(2.0))

    def test_resuming_in_another_network_is_bit_identical(self, builder, arguments, form):
        def build(network):
            return builder(
                Cosine(0.02, **RUN),
                **arguments,
                weight_decay=0.1,
                layer_decay=0.7,
                clip_norm=0.05,
                network=network,
            )

        first = Small()
        optimizer = build(first)
        train(first, optimizer, range(3))
        weights = {name: t.numpy().copy() for name, t in first.state_dict().items()}
        state = optimizer.state_dict()
        assert {key.rpartition("/")[0] for key in state} == (set() if form is sgd else set(NAMES))

        nn.Sequential(nn.Linear(2, 2), nn.Conv2D(3, 4, 3))  # shifts Paddle's names
        second = Small()
        resumed = build(second)
        second.set_state_dict(weights)
        resumed.load_state_dict(state)
        train(first, optimizer, range(3, 6))
        train(second, resumed, range(3, 6))
        for name, tensor in first.state_dict().items():
            assert np.array_equal(tensor.numpy(), second.state_dict()[name].numpy()), name
        now, then = optimizer.state_dict(), resumed.state_dict()
        assert all(np.array_equal(now[key], then[key]) for key in now)

    def test_a_parameter_without_gradient_stays_where_it_is(self, builder, arguments, form):
        network = Small()
        optimizer = builder(constant(), **arguments, clip_grad=1.0, network=network)
        train(network, optimizer, range(2))
        before = values(network)
        network.head.weight.sum().backward()
        optimizer.step()
        moved = {name for name, value in values(network).items() if (value != before[name]).any()}
        assert moved == {"head.weight"}

    def test_an_earlier_optimizers_decay_and_rates_do_not_stay(self, builder, arguments, form):
        network = Small()
        Momentum(constant(), regularizer=L1(0.5), layer_decay=0.1, network=network)
        spared = {"no_weight_decay_name": "weight bias"}
        run(network, builder(constant(), **arguments, **spared, network=network), form)

    def test_master_weights_of_16_bit_weights(self, builder, arguments, form):
        network = nn.Linear(2, 3)
        network.bfloat16()
        optimizer = builder(constant(), **arguments, multi_precision=True, network=network)
        state = optimizer.state_dict()
        assert {"weight/master_weight", "bias/master_weight"} <= state.keys()
        changed = {key: value + 0.123 for key, value in state.items()}
        optimizer.load_state_dict(changed)
        again = optimizer.state_dict()
        assert all(np.array_equal(again[key], changed[key]) for key in changed)


COUPLED = [SGD, Momentum, Adam, RMSProp]


@pytest.mark.parametrize("builder", COUPLED)
def test_an_l1_regularizer_pulls_by_the_sign(builder):
    network = Small()
    optimizer = builder(constant(), regularizer=L1(0.5), network=network)
    reference = Small()
    reference.set_state_dict(network.state_dict())
    other = builder(constant(), network=reference)
    gradients = draw_gradients(network, 0)
    for name, p in reference.named_parameters():
        if name in gradients:
            pulled = gradients[name] + 0.5 * np.sign(p.numpy())
            (p * paddle.to_tensor(pulled.astype("float32"))).sum().backward()
    optimizer.step()
    other.step()
    for name, value in values(network).items():
        np.testing.assert_allclose(value, values(reference)[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("builder", COUPLED)
def test_regularizer_and_weight_decay_exclude_each_other(builder):
    with pytest.raises(ArgumentError, match="expected either regularizer or weight_decay"):
        builder(constant(), regularizer=L2(0.1), weight_decay=0.1, network=Small())


@pytest.mark.parametrize("builder", [LARS, Lion])
def test_a_step_moves_master_weights_and_rounds_them(builder):
    network = nn.Linear(2, 3)
    network.bfloat16()
    optimizer = builder(constant(0.01), weight_decay=0.1, multi_precision=True, network=network)
    before = optimizer.state_dict()["weight/master_weight"]
    network.weight.astype("float32").sum().backward()
    optimizer.step()
    master = optimizer.state_dict()["weight/master_weight"]
    assert (master < before).all()
    rounded = paddle.to_tensor(master).astype("bfloat16").astype("float32")
    assert np.array_equal(rounded.numpy(), network.weight.astype("float32").numpy())


def test_rmsprop_divides_by_the_root_with_epsilon_in_it():
    # The first step in numbers, with TensorFlow's start: 0.1 * 3 / sqrt(0.9 + 0.1 * 9 + 0.2).
    network = nn.Linear(1, 1)
    optimizer = RMSProp(constant(0.1), momentum=0.9, rho=0.9, epsilon=0.2, network=network)
    before = network.weight.item()
    (3 * network.weight).sum().backward()
    optimizer.step()
    assert before - network.weight.item() == pytest.approx(0.3 / np.sqrt(2.0), rel=1e-5)


class TestAdamWDL:
    def test_is_adamw_with_layer_decay_and_without_decay_of_biases(self):
        network = Small()
        optimizer = AdamWDL(constant(), layerwise_decay=0.6, weight_decay=0.1, network=network)
        assert optimizer.decayed_names() == list(MATRICES)
        assert optimizer.rate_factors()["conv.weight"] == pytest.approx(0.36)
        assert optimizer.rate_factors()["head.weight"] == 1.0

    def test_everything_decays_if_it_is_told(self):
        arguments = {"weight_decay": 0.1, "filter_bias_and_bn": False}
        assert AdamWDL(constant(), **arguments, network=Small()).decayed_names() == NAMES

    def test_two_ways_of_layer_decay(self):
        with pytest.raises(ArgumentError, match="expected either layerwise_decay or layer_decay"):
            AdamWDL(constant(), layerwise_decay=0.6, layer_decay=0.6, network=Small())


class TestRates:
    def test_scaled_later(self):
        network = Small()
        optimizer = SGD(constant(), network=network)
        optimizer.scale_rates({"conv.weight": 0.5})
        optimizer.scale_rates({"conv.weight": 0.5, "conv.bias": 0.0})
        run(network, optimizer, sgd, factors={"conv.weight": 0.25, "conv.bias": 0.0})

    def test_by_the_kernels(self):
        network = Small()
        arguments = {"momentum": 0.8, "weight_decay": 0.3, "one_dim_param_no_weight_decay": True}
        optimizer = Momentum(constant(), **arguments, layer_decay=0.5, network=network)
        assert optimizer.use_kernels()
        optimizer.scale_rates({"head.weight": 0.1})
        factors = {name: 0.5 ** (2 - DEPTH[name.split(".")[0]]) for name in NAMES}
        factors["head.weight"] = 0.1
        run(network, optimizer, momentum, decay=0.3, factors=factors)

    def test_the_kernels_do_not_clip(self):
        assert not Momentum(constant(), clip_norm=1.0, network=Small()).use_kernels()


def test_clipping_through_a_grad_scaler():
    network = Small()
    optimizer = SGD(constant(), clip_global_norm=2.0, network=network)
    before = values(network)
    gradients = draw_gradients(network, 0)
    paddle.amp.GradScaler(enable=False).step(optimizer.inner)
    for name, g in shorten(2.0)(gradients).items():
        moved = values(network)[name]
        np.testing.assert_allclose(moved, before[name] - 0.1 * g, rtol=1e-5, atol=1e-6)
