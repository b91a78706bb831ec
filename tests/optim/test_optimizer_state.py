"""State of an optimizer across steps, networks and Paddle's own names."""

import numpy as np
import paddle
import pytest
from paddle import nn
from small_network import NAMES, Small, build, constant, train, values

from ppcls.errors import WeightsError
from ppcls.optim.optimizers import Momentum


class TestState:
    def test_resuming_in_another_network_is_bit_identical(self):
        first = Small()
        optimizer = build(first)
        train(first, optimizer, range(3))
        weights = {name: t.numpy().copy() for name, t in first.state_dict().items()}
        state = optimizer.state_dict()
        assert sorted(state) == sorted(f"{name}/velocity" for name in NAMES)

        nn.Sequential(nn.Linear(2, 2), nn.Conv2D(3, 4, 3))  # shifts Paddle's names
        second = Small()
        assert first.conv.weight.name != second.conv.weight.name
        resumed = build(second)
        second.set_state_dict(weights)
        resumed.load_state_dict(state)
        loaded = resumed.state_dict()
        assert all(np.array_equal(loaded[key], state[key]) for key in state)

        train(first, optimizer, range(3, 6))
        train(second, resumed, range(3, 6))
        assert all(
            np.array_equal(t.numpy(), second.state_dict()[name].numpy())
            for name, t in first.state_dict().items()
        )
        now, then = optimizer.state_dict(), resumed.state_dict()
        assert all(np.array_equal(now[key], then[key]) for key in now)

    def test_can_be_loaded_after_a_step_and_by_a_second_optimizer_of_the_network(self):
        network = Small()
        optimizer = build(network)
        train(network, optimizer, range(2))
        state, weights = optimizer.state_dict(), values(network)
        train(network, optimizer, range(2, 4))
        outcome = values(network)
        for again in (optimizer, build(network)):
            for name, p in network.named_parameters():
                p.set_value(weights[name])
            again.load_state_dict(state)
            train(network, again, range(2, 4))
            assert all(np.array_equal(outcome[n], v) for n, v in values(network).items())

    def test_is_a_copy(self):
        network = Small()
        optimizer = build(network)
        train(network, optimizer, range(1))
        state = optimizer.state_dict()
        before = state["conv.weight/velocity"].copy()
        train(network, optimizer, range(1, 3))
        assert np.array_equal(before, state["conv.weight/velocity"])
        optimizer.load_state_dict(state)
        train(network, optimizer, range(1, 3))
        assert np.array_equal(before, state["conv.weight/velocity"])

    def test_before_the_first_step_it_is_zero(self):
        state = build(Small()).state_dict()
        assert len(state) == len(NAMES) and not any(value.any() for value in state.values())

    def test_asking_for_it_changes_nothing(self):
        outcomes = []
        for ask in (False, True):
            paddle.seed(0)
            network = Small()
            optimizer = build(network)
            for step in range(3):
                if ask:
                    optimizer.state_dict()
                train(network, optimizer, [step])
            outcomes.append(values(network))
        assert all(np.array_equal(outcomes[0][name], outcomes[1][name]) for name in NAMES)

    def test_misfits_are_listed_and_nothing_is_loaded(self):
        optimizer = build(Small())
        state = {key: value + 1 for key, value in optimizer.state_dict().items()}
        del state["conv.bias/velocity"]
        state["other.weight/velocity"] = np.zeros(3)
        state["head.weight/velocity"] = np.zeros((4, 7))
        with pytest.raises(WeightsError) as caught:
            optimizer.load_state_dict(state)
        assert str(caught.value).splitlines() == [
            "the optimizer's state does not fit the network:",
            "  missing: conv.bias/velocity",
            "  unexpected: other.weight/velocity",
            "  head.weight/velocity: expected shape [4, 2], received [4, 7]",
        ]
        assert not any(value.any() for value in optimizer.state_dict().values())

    def test_at_most_ten_misfits_are_listed(self):
        state = {f"other{i}/velocity": np.zeros(1) for i in range(20)}
        with pytest.raises(WeightsError) as caught:
            build(Small()).load_state_dict(state)
        lines = str(caught.value).splitlines()
        assert len(lines) == 12 and lines[-1] == "  and 16 more"

    def test_master_weights_have_structured_names_too(self):
        # Only the state: Paddle has no 16-bit momentum kernel for a CPU.
        networks = [nn.Linear(2, 3), nn.Linear(2, 3)]
        states = []
        for network in networks:
            network.bfloat16()
            optimizer = Momentum(constant(), multi_precision=True, network=network)
            states.append(optimizer.state_dict())
        assert sorted(states[0]) == sorted(
            f"{name}/{kind}"
            for name in ("weight", "bias")
            for kind in ("master_weight", "velocity")
        )
        assert {value.dtype for value in states[0].values()} == {np.dtype("float32")}
        state = {key: value + 0.123 for key, value in states[0].items()}
        optimizer.load_state_dict(state)
        assert all(np.array_equal(optimizer.state_dict()[key], state[key]) for key in state)


def test_two_optimizers_live_side_by_side():
    paddle.seed(0)
    alone = Small()
    weights = values(alone)
    train(alone, build(alone), range(3))
    networks = [Small(), Small()]
    for network in networks:
        for name, p in network.named_parameters():
            p.set_value(weights[name])
    optimizers = [build(network) for network in networks]
    for step in range(3):
        for network, optimizer in zip(networks, optimizers, strict=True):
            train(network, optimizer, [step])
    for network in networks:
        assert all(np.array_equal(v, values(network)[n]) for n, v in values(alone).items())
