"""What every registered network promises. A new network is tested by being registered."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest

import ppcls
from ppcls.backbones.base import Backbone
from ppcls.registry import BACKBONES

SIDE = 33  # odd, and not a multiple of any stride
CLASSES = 7


def build(name, class_num=CLASSES):
    paddle.seed(1)
    return ppcls.create_model(name, class_num=class_num)


def batch(side=SIDE, seed=0):
    pixels = np.random.RandomState(seed).standard_normal((2, 3, side, side))
    return paddle.to_tensor(pixels.astype("float32"))


def different_networks():
    """All registered names but those that are aliases of another one."""
    rows = {}
    for registered in ppcls.list_models():
        entry = BACKBONES.entry(registered)
        rows[entry.builder, repr(sorted(entry.preset.items()))] = registered
    return sorted(rows.values())


@pytest.fixture(scope="module", params=different_networks())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def net(name):
    """One network of each name; a test that changes it builds its own."""
    network = build(name)
    network.eval()
    return network


def logits_of(net, images):
    net.eval()
    with paddle.no_grad():
        return net(images).numpy()


@pytest.mark.parametrize("registered", ppcls.list_models())
def test_every_registered_name_builds_a_working_network(registered):
    assert logits_of(build(registered), batch()).shape == (2, CLASSES)


def test_forward_gives_logits(net):
    logits = logits_of(net, batch())
    assert logits.shape == (2, CLASSES)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert isinstance(net, Backbone)
    assert net.class_num == CLASSES


def test_evaluation_is_deterministic_and_picture_by_picture(net):
    images = batch()
    logits = logits_of(net, images)
    np.testing.assert_array_equal(logits_of(net, images), logits)
    alone = logits_of(net, images[1:])
    np.testing.assert_allclose(
        alone, logits[1:], rtol=1e-3, atol=1e-4 * np.abs(logits).max() + 1e-6
    )


def test_every_parameter_gets_a_finite_gradient(name):
    net = build(name)
    net.train()
    images = batch()
    weights = paddle.to_tensor(np.random.RandomState(5).randn(2, CLASSES).astype("float32"))
    (net(images) * weights).sum().backward()
    trained = {key: p for key, p in net.named_parameters() if not p.stop_gradient}
    frozen = {key for key, p in net.named_parameters() if p.stop_gradient}
    assert all(key.endswith(("._mean", "._variance")) for key in frozen)
    for parameter_name, p in trained.items():
        assert p.grad is not None, parameter_name
        assert np.isfinite(p.grad.numpy()).all(), parameter_name
    assert any(np.abs(p.grad.numpy()).max() > 0 for p in trained.values())


@pytest.mark.parametrize("side", [32, SIDE])
def test_features_are_as_announced(net, side):
    with paddle.no_grad():
        maps = net.features(batch(side))
    assert len(maps) == len(net.feature_info) >= 1
    for found, info in zip(maps, net.feature_info, strict=True):
        cells = math.ceil(side / info.stride)
        assert found.shape == [2, info.channels, cells, cells]
    strides = [info.stride for info in net.feature_info]
    assert strides == sorted(set(strides)), "one map a stride, finest first"


def test_state_dict_makes_an_equal_network_in_the_same_process(name, net):
    other = build(name)
    assert list(other.state_dict()) == list(net.state_dict())
    for value in other.state_dict().values():
        value.set_value(value + 0.5)
    images = batch()
    logits = logits_of(net, images)
    report = ppcls.load_weights(other, net.state_dict())
    assert sorted(report.matched) == sorted(net.state_dict())
    np.testing.assert_array_equal(logits_of(other, images), logits)
    for value in other.state_dict().values():
        value.set_value(value + 0.5)
    np.testing.assert_array_equal(logits_of(net, images), logits, "the networks share weights")


def test_the_classifier_can_be_replaced(name):
    net = build(name)
    state = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    names, head, features = list(state), net.classifier_names(), net.num_features
    assert head <= set(names)
    assert head
    net.reset_classifier(3)
    assert net.class_num == 3
    assert net.num_features == features
    assert logits_of(net, batch()).shape == (2, 3)
    after = net.state_dict()
    assert list(after) == names
    assert net.classifier_names() == head
    for key in set(names) - head:
        np.testing.assert_array_equal(after[key].numpy(), state[key])
    trained = [p for key, p in net.named_parameters() if key in head and not p.stop_gradient]
    assert len(trained) == len(head)
    net.train()
    net(batch()).sum().backward()
    assert all(p.grad is not None for p in trained)


def test_num_features_is_what_enters_the_classifier(net):
    shapes = [
        value.shape for key, value in net.state_dict().items() if key in net.classifier_names()
    ]
    assert [net.num_features, CLASSES] in shapes


def test_what_never_decays_has_one_dimension(net):
    named = dict(net.named_parameters())
    excluded = net.no_weight_decay()
    assert excluded <= set(named), "only names of parameters"
    if type(net).__name__ == "MobileNeXt":
        assert excluded == {key for key, p in named.items() if p.ndim == 1}


def test_the_same_seed_gives_the_same_weights(name, net):
    for key, value in build(name).state_dict().items():
        np.testing.assert_array_equal(value.numpy(), net.state_dict()[key].numpy(), key)


def test_every_layer_can_be_copied_to_float16_and_back(net):
    state = {key: value.astype("float16") for key, value in net.state_dict().items()}
    other = build(net.arch_name)
    ppcls.load_weights(other, state)
    for value in other.state_dict().values():
        assert value.dtype == paddle.float32
