"""Momentum against its closed form, and what decays."""

import numpy as np
import paddle
import pytest
from paddle import nn
from small_network import NAMES, RUN, Small, build, constant, train, values

import ppcls
from ppcls.errors import ArgumentError, TrainingError
from ppcls.optim.optimizers import Momentum
from ppcls.optim.regularizers import L1, L2
from ppcls.optim.schedules import Cosine
from ppcls.registry import OPTIMIZERS


def set_gradients(network, step):
    """Gradients that do not depend on the weights; returned by name."""
    gradients = {}
    for i, (name, p) in enumerate(network.named_parameters()):
        if p.stop_gradient:  # running statistics are parameters too
            continue
        rng = np.random.default_rng((step, i))
        gradients[name] = rng.normal(size=p.shape).astype("float32")
        (p * paddle.to_tensor(gradients[name])).sum().backward()
    return gradients


class TestUpdates:
    @pytest.mark.parametrize("nesterov", [False, True])
    @pytest.mark.parametrize("decay", [None, L2(0.3), L1(0.3)])
    def test_closed_form(self, nesterov, decay):
        network = Small()
        optimizer = Momentum(
            Cosine(0.1, **RUN),
            momentum=0.8,
            regularizer=decay,
            use_nesterov=nesterov,
            one_dim_param_no_weight_decay=True,
            network=network,
        )
        weights = values(network)
        velocity = dict.fromkeys(NAMES, 0.0)
        for step in range(4):
            rate = optimizer.set_step(step)
            for name, g in set_gradients(network, step).items():
                if decay and name in ("conv.weight", "head.weight"):
                    w = weights[name]
                    g = g + 0.3 * (w if isinstance(decay, L2) else np.sign(w))
                velocity[name] = 0.8 * velocity[name] + g
                weights[name] = weights[name] - rate * (
                    g + 0.8 * velocity[name] if nesterov else velocity[name]
                )
            optimizer.step()
            optimizer.clear_grad()
        for name, weight in values(network).items():
            np.testing.assert_allclose(weight, weights[name], rtol=1e-5, atol=1e-6, err_msg=name)

    def test_weight_decay_is_short_for_l2(self):
        after = []
        for arguments in ({"regularizer": L2(0.3)}, {"weight_decay": 0.3}):
            paddle.seed(0)
            network = Small()
            optimizer = Momentum(constant(), **arguments, network=network)
            train(network, optimizer, range(2))
            after.append(values(network))
        assert all(np.array_equal(after[0][name], after[1][name]) for name in NAMES)

    def test_the_rate_of_a_step_is_the_schedules(self):
        network = Small()
        schedule = Cosine(0.1, **RUN)
        optimizer = Momentum(schedule, momentum=0.0, network=network)
        for step in (0, 7, 19):
            before = values(network)
            gradients = set_gradients(network, step)
            assert optimizer.set_step(step) == schedule(step)
            optimizer.step()
            optimizer.clear_grad()
            moved = before["conv.bias"] - network.conv.bias.numpy()
            np.testing.assert_allclose(moved, schedule(step) * gradients["conv.bias"], atol=1e-6)

    def test_a_parameter_without_gradient_stays_where_it_is(self):
        network = Small()
        optimizer = Momentum(constant(), weight_decay=0.3, network=network)
        train(network, optimizer, range(2))
        before = values(network)
        network.head.weight.sum().backward()
        optimizer.step()
        moved = {name for name, value in values(network).items() if (value != before[name]).any()}
        assert moved == {"head.weight"}


EXCLUSIONS = [
    ({}, (), NAMES),
    ({"one_dim_param_no_weight_decay": True}, (), ["conv.weight", "head.weight"]),
    ({"no_weight_decay_name": ".bias"}, (), ["conv.weight", "norm.weight", "head.weight"]),
    ({"no_weight_decay_name": "norm head"}, (), ["conv.weight", "conv.bias"]),
    ({"no_weight_decay_name": ""}, (), NAMES),
    ({}, ("conv.weight",), [n for n in NAMES if n != "conv.weight"]),
    (
        {"no_weight_decay_name": "head", "one_dim_param_no_weight_decay": True},
        ("conv.weight",),
        [],
    ),
]


class TestWeightDecay:
    @pytest.mark.parametrize(("arguments", "spared", "decayed"), EXCLUSIONS)
    def test_what_decays(self, arguments, spared, decayed):
        network = Small(spared)
        optimizer = Momentum(constant(), regularizer=L2(0.5), **arguments, network=network)
        assert optimizer.decayed_names() == decayed
        for p in network.parameters():
            p.set_value(paddle.ones_like(p))
            (p * 0).sum().backward()  # a gradient of zero: only decay moves the weights
        optimizer.step()
        for name, value in values(network).items():
            np.testing.assert_allclose(value, 0.95 if name in decayed else 1.0, rtol=1e-6)

    def test_none(self):
        assert Momentum(constant(), network=Small()).decayed_names() == []

    def test_a_network_that_names_nothing(self):
        optimizer = Momentum(constant(), weight_decay=0.1, network=nn.Linear(2, 2))
        assert optimizer.decayed_names() == ["weight", "bias"]

    def test_the_names_that_paddleclas_publishes_count(self):
        network = ppcls.create_model("MobileNetV2_x0_25")
        fragments = {"no_weight_decay_name": "_batch_norm out.bias"}
        optimizer = Momentum(constant(), weight_decay=0.1, **fragments, network=network)
        matrices = [name for name, p in network.named_parameters() if p.ndim > 1]
        assert optimizer.decayed_names() == matrices

    def test_of_an_earlier_optimizer_does_not_stay_on_the_parameters(self):
        network = Small()
        Momentum(constant(), regularizer=L1(0.5), network=network)
        optimizer = Momentum(constant(), network=network)
        for p in network.parameters():
            (p * 0).sum().backward()
        before = values(network)
        optimizer.step()
        assert all(np.array_equal(before[name], value) for name, value in values(network).items())

    def test_both_ways_at_once(self):
        with pytest.raises(ArgumentError) as caught:
            Momentum(constant(), regularizer=L2(0.1), weight_decay=0.1, network=Small())
        assert caught.value.argument == "weight_decay"
        assert str(caught.value) == "expected either regularizer or weight_decay, received both"


class TestFrozen:
    def test_is_left_out(self):
        network = Small()
        network.conv.weight.stop_gradient = True
        optimizer = Momentum(constant(), weight_decay=0.1, network=network)
        before = network.conv.weight.numpy().copy()
        train(network, optimizer, range(2))
        assert np.array_equal(before, network.conv.weight.numpy())
        assert "conv.weight/velocity" not in optimizer.state_dict()
        assert "conv.weight" not in optimizer.decayed_names()

    def test_everything(self):
        network = nn.Linear(2, 2)
        for p in network.parameters():
            p.stop_gradient = True
        with pytest.raises(TrainingError, match="expected a network with trainable parameters"):
            Momentum(constant(), network=network)


def test_built_by_its_registered_name():
    optimizer = OPTIMIZERS.build("Momentum", {"lr": constant()}, network=Small(), epochs=3)
    assert optimizer.schedule.name == "Constant"
    assert OPTIMIZERS.entry("Momentum").context() == {"network"}


def test_steps_through_a_grad_scaler():
    network = Small()
    optimizer = build(network)
    before = values(network)
    scaler = paddle.amp.GradScaler(enable=False)
    scaler.scale(network(paddle.ones([2, 3, 8, 8])).mean()).backward()
    scaler.step(optimizer.inner)
    scaler.update()
    optimizer.clear_grad()
    assert any((before[name] != value).any() for name, value in values(network).items())
