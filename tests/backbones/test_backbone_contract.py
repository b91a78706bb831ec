"""What every registered network promises. A new network is tested by being registered."""

from __future__ import annotations

import copy
import gc
import math
from functools import cache

import numpy as np
import paddle
import published
import pytest
from paddle.static import InputSpec
from zero_weights import zero_weights

import ppcls
from ppcls import zoo
from ppcls.backbones.base import Backbone
from ppcls.deploy.paddle_runtime import PaddleRuntime
from ppcls.registry import BACKBONES

SIDE = 33  # odd, and not a multiple of any stride
CLASSES = 7
STATISTICS = ("._mean", "._variance")
LARGE = 8e6  # parameters
LACKING = {"SqueezeNet1_0": 3.5}  # cells that a map lacks where convolutions do not pad


def build(name, class_num=CLASSES, **arch):
    paddle.seed(1)
    return ppcls.create_model(name, class_num=class_num, **arch)


def batch(side=SIDE, seed=0, channels=3):
    shape = (2, channels, *(side if isinstance(side, tuple) else (side, side)))
    return paddle.to_tensor(np.random.RandomState(seed).standard_normal(shape).astype("float32"))


def logits_of(net, images):
    net.eval()
    with paddle.no_grad():
        return net(images).numpy()


def spread(logits):
    """What differences of logits are measured by."""
    return max(float(np.abs(logits).max()), 1e-6)


def rows():
    """Each different network once, under the first of its names."""
    found = {}
    for registered in ppcls.list_models():
        entry = BACKBONES.entry(registered)
        found.setdefault((entry.builder, repr(sorted(entry.preset.items()))), registered)
    return sorted(found.values())


@cache
def sizes():
    return {n: m.params for m in zoo.models() for n in (m.name, *m.aliases)}


def size_of(name):
    return sizes().get(name, math.inf)


def smallest_of_each_family():
    first = {}
    for name in rows():
        best = first.setdefault(BACKBONES.entry(name).builder, name)
        if size_of(name) < size_of(best):
            first[BACKBONES.entry(name).builder] = name
    return sorted(first.values())


def with_argument(argument):
    names = smallest_of_each_family()
    return [name for name in names if argument in BACKBONES.entry(name).arguments()]


def marked(name):
    return pytest.param(name, marks=[pytest.mark.slow] if size_of(name) > LARGE else [])


@pytest.fixture(scope="module", params=map(marked, rows()))
def name(request):
    return request.param


def instance(name):
    """A network; a large one is not initialised, which would take long, but filled."""
    if size_of(name) <= LARGE:
        return build(name)
    # Windows as large as for 384 pixels would be padding for the most part.
    smaller = {"image_size": 64} if name.startswith("SwinTransformerV2") else {}
    with zero_weights():
        network = build(name, **smaller)
    published.draw_quickly(network)
    return network


@pytest.fixture(scope="module")
def net(name):
    """One network of each name; a test that changes it makes a copy."""
    network = instance(name)
    network.eval()
    yield network
    del network
    gc.collect()


def test_an_alias_is_the_same_network():
    names = ppcls.list_models()
    assert len(rows()) < len(names), "there are aliases"
    for registered in set(names) - set(rows()):
        entry = BACKBONES.entry(registered)
        assert any(
            entry.builder is BACKBONES.entry(row).builder
            and entry.preset == BACKBONES.entry(row).preset
            for row in rows()
        )


def test_forward_gives_logits(net):
    logits = logits_of(net, batch())
    assert logits.shape == (2, CLASSES)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert isinstance(net, Backbone)
    assert net.class_num == CLASSES


def test_evaluation_is_deterministic_and_picture_by_picture(net):
    images = batch((65, 47))
    logits = logits_of(net, images)
    np.testing.assert_array_equal(logits_of(net, images), logits)
    alone = logits_of(net, images[1:])
    np.testing.assert_allclose(alone, logits[1:], rtol=1e-3, atol=1e-4 * spread(logits))


def test_every_parameter_gets_a_finite_gradient(net):
    running = {k: v for k, v in net.state_dict().items() if k.endswith(STATISTICS)}
    before = {k: v.numpy().copy() for k, v in running.items()}
    net.train()
    weights = paddle.to_tensor(np.random.RandomState(5).randn(2, CLASSES).astype("float32"))
    (net(batch()) * weights).sum().backward()
    trained = {key: p for key, p in net.named_parameters() if not p.stop_gradient}
    frozen = {key for key, p in net.named_parameters() if p.stop_gradient}
    assert frozen == set(running)
    for parameter_name, p in trained.items():
        assert p.grad is not None, parameter_name
        assert np.isfinite(p.grad.numpy()).all(), parameter_name
    assert any(np.abs(p.grad.numpy()).max() > 0 for p in trained.values())
    for p in trained.values():
        p.clear_gradient(False)
    net.eval()
    for key, value in running.items():  # the next test finds the network as it was
        value.set_value(before[key])


@pytest.mark.parametrize("side", [32, SIDE])
def test_features_are_as_announced(net, side):
    with paddle.no_grad():
        maps = net.features(batch(side))
    assert len(maps) == len(net.feature_info) >= 1
    for found, info in zip(maps, net.feature_info, strict=True):
        assert found.shape[:2] == [2, info.channels]
        height, width = found.shape[2:]
        assert height == width
        assert abs(height - side / info.stride) < LACKING.get(net.arch_name, 1.5)
    strides = [info.stride for info in net.feature_info]
    assert strides == sorted(set(strides)), "one map a stride, finest first"


def test_a_second_network_in_the_process_is_equal_and_shares_nothing(name, net):
    other, state = instance(name), net.state_dict()
    assert list(other.state_dict()) == list(state)
    for key, value in other.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[key].numpy(), key)  # the same seed
        value.set_value(value + 0.5)
    images = batch()
    logits = logits_of(net, images)
    report = ppcls.load_weights(other, state)
    assert sorted(report.matched) == sorted(state)
    assert report.library is None
    np.testing.assert_array_equal(logits_of(other, images), logits)


def test_the_classifier_can_be_replaced(net):
    net = copy.deepcopy(net)
    state = net.state_dict()
    names, head, features = list(state), net.classifier_names(), net.num_features
    assert [features, CLASSES] in [sorted_matrix(state[key].shape) for key in head]
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
        assert after[key] is state[key]
    trained = [p for key, p in net.named_parameters() if key in head and not p.stop_gradient]
    assert len(trained) == len(head)
    net.train()
    net(batch()).sum().backward()
    assert all(p.grad is not None for p in trained)


def sorted_matrix(shape):
    """[in, out] of a linear layer, or of a pointwise convolution [out, in, 1, 1]."""
    shape = list(shape)
    return [shape[1], shape[0]] if shape[2:] == [1, 1] else shape


def test_what_never_decays_are_parameters(net):
    named = dict(net.named_parameters())
    excluded = net.no_weight_decay()
    assert excluded <= set(named), "only names of parameters"
    if type(net).__name__ == "MobileNeXt":
        assert excluded == {key for key, p in named.items() if p.ndim == 1}


def test_names_of_other_libraries_are_one_to_one(net):
    own = list(net.state_dict())
    for naming in net.namings():
        theirs = [naming.rename(key) for key in own]
        assert len(set(theirs)) == len(own), naming.library
        known = BACKBONES.entry(net.arch_name).arguments()
        assert set(naming.settings) <= set(known), "what is adopted can be configured"


# One network of each family ----------------------------------------------------------------------


@pytest.mark.parametrize("name", smallest_of_each_family())
def test_an_exported_network_answers_as_before(name, tmp_path):
    net = build(name)
    if not name.startswith("EfficientNetV2"):  # chaotic with such weights
        published.draw_state(net)
    net.eval()
    images = batch(64)
    logits = logits_of(net, images)
    spec = InputSpec([None, 3, 64, 64], "float32", name="x")
    static = paddle.jit.to_static(net, input_spec=[spec], full_graph=True)
    paddle.jit.save(static, str(tmp_path / "inference"))
    runtime = PaddleRuntime(tmp_path)
    answers = runtime(images.numpy())
    np.testing.assert_allclose(answers, logits, rtol=1e-3, atol=1e-4 * spread(logits))
    assert runtime(images.numpy()[:1]).shape == (1, CLASSES)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", with_argument("in_channels"))
def test_images_may_have_other_channels(name, channels):
    net = build(name, in_channels=channels)
    assert logits_of(net, batch(channels=channels)).shape == (2, CLASSES)


def test_every_family_takes_other_channels():
    assert with_argument("in_channels") == smallest_of_each_family()


@pytest.mark.parametrize("name", with_argument("data_format"))
def test_the_layout_between_the_layers_changes_nothing(name):
    net, other = build(name), build(name, data_format="NHWC")
    for network in (net, other):
        published.draw_state(network)
    images = batch()
    logits = logits_of(net, images)
    np.testing.assert_allclose(
        logits_of(other, images), logits, rtol=1e-4, atol=1e-4 * spread(logits)
    )
    with paddle.no_grad():
        for a, b in zip(net.features(images), other.features(images), strict=True):
            a, b = a.numpy(), b.numpy()
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * spread(a))
    other.train()
    other(images).sum().backward()
    assert all(p.grad is not None for p in other.parameters() if not p.stop_gradient)


@pytest.mark.parametrize("argument", ["dropout", "drop_path_rate"])
@pytest.mark.parametrize("name", smallest_of_each_family())
def test_dropping_happens_in_training_only(name, argument):
    known = BACKBONES.entry(name).arguments()
    if argument not in known:
        pytest.skip(f"{name} has no argument {argument}")
    others = {"dropout": 0.0, "drop_path_rate": 0.0, "attention_dropout": 0.0}
    others |= {"dropout_mode": "upscale_in_train"}  # the other one scales in evaluation
    others = {a: value for a, value in others.items() if a in known}
    images = batch()
    plain, dropping = (build(name, **{**others, argument: rate}) for rate in (0.0, 0.7))
    for net in (plain, dropping):
        published.draw_state(net)  # some paths begin at zero
    np.testing.assert_array_equal(logits_of(dropping, images), logits_of(plain, images))
    different = []
    for net in (plain, dropping):
        net.train()
        for layer in net.sublayers():
            if isinstance(layer, paddle.nn.BatchNorm2D):
                layer.eval()  # of what is left over, only dropping is random
        different.append(not np.array_equal(net(images).numpy(), net(images).numpy()))
    assert different == [False, True]


@pytest.mark.parametrize("name", smallest_of_each_family())
def test_weights_of_half_precision_load(name):
    net = build(name)
    ppcls.load_weights(net, {k: v.astype("float16") for k, v in net.state_dict().items()})
    assert {value.dtype for value in net.state_dict().values()} == {paddle.float32}


@pytest.mark.parametrize("name", smallest_of_each_family())
def test_a_copy_is_independent(name):
    net = build(name)
    other = copy.deepcopy(net)
    images = batch()
    logits = logits_of(net, images)
    np.testing.assert_array_equal(logits_of(other, images), logits)
    for value in other.state_dict().values():
        value.set_value(value + 0.5)
    np.testing.assert_array_equal(logits_of(net, images), logits)
