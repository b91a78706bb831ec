"""Whole networks on the kernels, beside the same networks on Paddle's layers."""

from __future__ import annotations

import copy

import numpy as np
import paddle
import pytest
from apart import forked
from paddle import nn
from paddle.vision import models
from paddle.vision.models.mobilenetv3 import SqueezeExcitation

import ppcls
from ppcls.ops import accelerate, restore
from ppcls.ops.chain import Chain

NETWORKS = {
    "MobileNeXt_x0_35": lambda: ppcls.create_model("MobileNeXt_x0_35", class_num=5),
    "MobileNeXt_x0_1": lambda: ppcls.create_model(
        "MobileNeXt_x0_1", class_num=5, identity_tensor_multiplier=0.5
    ),
    "mobilenet_v1": lambda: models.mobilenet_v1(scale=0.25, num_classes=5),
    "mobilenet_v2": lambda: models.mobilenet_v2(scale=0.25, num_classes=5),
    "mobilenet_v3_small": lambda: models.mobilenet_v3_small(scale=0.5, num_classes=5),
    "mobilenet_v3_large": lambda: models.mobilenet_v3_large(scale=0.35, num_classes=5),
}


def build(name, dtype="float64"):
    """Without dropout, which would be drawn anew at every pass."""
    paddle.seed(4)
    net = NETWORKS[name]()
    for layer in net.sublayers():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return net.to(dtype=dtype)


def pictures(dtype="float64", count=3, side=64, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, 3, side, side))
    return paddle.to_tensor(values.astype(dtype))


def state(net):
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def outcome(net, images):
    """Logits, all gradients, and the state behind a step; the network is left as it was."""
    before = state(net)
    logits = net(images)
    weights = np.random.default_rng(5).normal(size=logits.shape)
    (logits * paddle.to_tensor(weights).astype(logits.dtype)).sum().backward()
    result = {"logits": logits.numpy(), **state(net)}
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            result[f"gradient of {name}"] = parameter.grad.numpy().copy()
            parameter.grad = None
    for name, value in net.state_dict().items():
        value.set_value(before[name])
    return result


def differences(actual, expected, tolerance=1e-7):
    """What differs by more than rounding; one line each.

    Paddle's pooling divides its gradient in single precision, hence the tolerance. Small gradients
    are measured by a hundredth of the largest, means by the spread about them.
    """
    assert set(actual) == set(expected)
    largest = max((np.abs(v).max() for n, v in expected.items() if "gradient" in n), default=0)
    found = []
    for name, value in expected.items():
        scale = np.abs(value).max()
        if "gradient" in name:
            scale = max(scale, 0.01 * largest)
        if name.endswith("_mean"):
            scale = max(scale, expected[name.replace("_mean", "_variance")].max() ** 0.5)
        error = np.abs(actual[name] - value).max()
        if not error <= tolerance * scale:
            found.append(f"{name}: off by {error:.1e} of {scale:.1e}")
    return found


def own_ways(net):
    """Layers whose way forward is not their class's."""
    return [layer for layer in net.sublayers(include_self=True) if "forward" in vars(layer)]


def convolutions(net):
    return sum(isinstance(layer, nn.Conv2D) for layer in net.sublayers(include_self=True))


@pytest.fixture
def chains(monkeypatch):
    """A list that gets an entry whenever a chain is used."""
    uses, call = [], Chain.__call__

    def used(self, *arguments):
        uses.append(self)
        return call(self, *arguments)

    monkeypatch.setattr(Chain, "__call__", used)
    return uses


@pytest.fixture(params=NETWORKS)
def net(request):
    return build(request.param)


# The same numbers --------------------------------------------------------------------------------


def test_a_training_step(net):
    expected = outcome(net, pictures())
    accelerate(net)
    actual = outcome(net, pictures())
    assert differences(actual, expected) == []
    assert len([name for name in actual if "gradient" in name]) == len(
        [p for p in net.parameters() if not p.stop_gradient]
    )


def test_evaluation_with_and_without_gradients(net):
    net.eval()
    images = pictures(side=33)
    expected = outcome(net, images)
    accelerate(net)
    assert differences(outcome(net, images), expected) == []
    with paddle.no_grad():
        logits = net(images).numpy()
    np.testing.assert_allclose(logits, expected["logits"], rtol=1e-7, atol=1e-9)


def test_every_convolution_is_covered(net, monkeypatch):
    assert accelerate(net) == convolutions(net)

    def refused(*arguments):
        raise AssertionError("Paddle's convolution is used")

    monkeypatch.setattr(nn.Conv2D, "forward", refused)
    net(pictures())
    restore(net)
    with pytest.raises(AssertionError):
        net(pictures())


@pytest.mark.parametrize("name", ["MobileNeXt_x0_35", "mobilenet_v3_small"])
def test_single_precision(name):
    net = build(name, "float32")
    net.eval()
    expected = outcome(net, pictures("float32"))
    accelerate(net)
    assert differences(outcome(net, pictures("float32")), expected, 1e-3) == []


def test_images_that_want_a_gradient(net):
    gradients = []
    for accelerated in (False, True):
        if accelerated:
            accelerate(net)
        images = pictures()
        images.stop_gradient = False
        net(images).square().sum().backward()
        gradients.append({"gradient": images.grad.numpy()})
    assert np.abs(gradients[0]["gradient"]).max() > 0
    assert differences(*gradients) == []


def test_frozen_normalisations_of_a_network_in_training(net):
    norms = [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    for norm in norms[::2]:
        norm.eval()
    expected = outcome(net, pictures())
    before = state(net)
    accelerate(net)
    actual = outcome(net, pictures())
    assert differences(actual, expected) == []
    kept = [name for name in before if "_mean" in name and (actual[name] == before[name]).all()]
    assert len(kept) == len(norms[::2])


def test_frozen_parameters_of_a_network_in_training(net):
    parameters = [p for p in net.parameters() if p.ndim == 4]
    for parameter in parameters[: len(parameters) // 2]:
        parameter.stop_gradient = True
    expected = outcome(net, pictures())
    accelerate(net)
    assert differences(outcome(net, pictures()), expected) == []


def test_feature_maps():
    for name in ("MobileNeXt_x0_35", "MobileNeXt_x0_1"):
        net = build(name)
        net.eval()
        expected = net.features(pictures())
        accelerate(net)
        for ours, paddles in zip(net.features(pictures()), expected, strict=True):
            np.testing.assert_allclose(ours.numpy(), paddles.numpy(), rtol=1e-8, atol=1e-9)


def calm(dtype):
    """A network in which rounding stays small: it can be followed for many steps.

    Of four pictures, and maps of one pixel, the usual normalisation makes noise of what a dead
    channel leaves, and each layer enlarges it.
    """
    net = build("MobileNeXt_x0_1", dtype)
    for layer in net.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._epsilon = 0.1
    net.classifier[1].weight.set_value(net.classifier[1].weight * 10)
    return net


def train(net, dtype, steps, seed=0):
    """The losses; at the end the network knows its four pictures."""
    optimizer = paddle.optimizer.Momentum(0.02, 0.9, parameters=net.parameters())
    images, labels = pictures(dtype, 4, 32, seed), paddle.to_tensor([0, 1, 2, 3])
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    return losses


def both(dtype):
    plain, fast = calm(dtype), calm(dtype)
    assert accelerate(fast) == convolutions(fast)
    return plain, fast


def test_fifty_steps_of_training():
    paddles, ours = (train(net, "float64", 50) for net in both("float64"))
    np.testing.assert_allclose(ours, paddles, rtol=1e-6)
    assert paddles[-1] < 0.01 < 1 < paddles[0]


def test_five_steps_of_training_in_single_precision():
    paddles, ours = (train(net, "float32", 5) for net in both("float32"))
    np.testing.assert_allclose(ours, paddles, rtol=1e-3)


def test_evaluation_between_steps_of_training():
    """What is remembered of a shape is not the mode or the weights that it was met with."""
    nets = both("float64")
    for seed in range(3):
        results = []
        for net in nets:
            losses = train(net, "float64", 3, seed)
            net.eval()
            with paddle.no_grad():
                logits = net(pictures(count=4, side=32)).numpy()
            net.train()
            results.append({"losses": np.array(losses), "logits": logits})
        assert differences(results[1], results[0]) == []


# In and out again --------------------------------------------------------------------------------


def test_names_and_values_stay(net):
    before, names = state(net), [name for name, _ in net.named_sublayers()]
    for change in (accelerate, restore):
        change(net)
        after = state(net)
        assert list(after) == list(before)
        assert all((after[name] == value).all() for name, value in before.items())
        assert [name for name, _ in net.named_sublayers()] == names


def test_restore_leaves_nothing_behind(net):
    attributes = [set(vars(layer)) for layer in net.sublayers(include_self=True)]
    expected = outcome(net, pictures())
    accelerate(net)
    assert own_ways(net)
    outcome(net, pictures())
    restore(net)
    assert own_ways(net) == []
    assert [set(vars(layer)) for layer in net.sublayers(include_self=True)] == attributes
    actual = outcome(net, pictures())
    assert all((actual[name] == value).all() for name, value in expected.items())


def test_accelerate_twice_and_restore_twice(net):
    restore(net)
    expected = outcome(net, pictures())
    assert accelerate(net) == accelerate(net) == convolutions(net)
    assert differences(outcome(net, pictures()), expected) == []
    restore(net)
    restore(net)
    assert own_ways(net) == []


def test_weights_that_are_loaded_afterwards_count():
    net, other = build("MobileNeXt_x0_1"), build("MobileNeXt_x0_1")
    accelerate(net)
    net(pictures())
    for value in other.state_dict().values():
        value.set_value(value * 0.9 + 0.01)
    net.set_state_dict(other.state_dict())
    assert differences(outcome(net, pictures()), outcome(other, pictures())) == []


def test_the_precision_may_change_afterwards():
    net = build("MobileNeXt_x0_1", "float32")
    accelerate(net)
    net(pictures("float32"))
    net.to(dtype="float64")
    actual = outcome(net, pictures())
    restore(net)
    assert differences(actual, outcome(net, pictures())) == []


@pytest.mark.parametrize("used", [False, True])
def test_a_copy_works_on_its_own(used, chains):
    net = build("MobileNeXt_x0_1")
    accelerate(net)
    if used:
        net(pictures())
    expected = outcome(net, pictures())
    twin = copy.deepcopy(net)
    assert differences(outcome(twin, pictures()), expected) == []
    for parameter in twin.parameters():
        parameter.set_value(parameter * 0.9)
    changed = outcome(twin, pictures())
    assert not np.allclose(changed["logits"], expected["logits"])
    assert differences(outcome(net, pictures()), expected) == []
    del chains[:]
    outcome(twin, pictures())
    assert chains
    restore(twin)
    assert own_ways(net)
    assert differences(changed, outcome(twin, pictures())) == []


def test_two_networks_side_by_side(chains):
    plain, fast = build("mobilenet_v2"), build("mobilenet_v2")
    accelerate(fast)
    expected = outcome(plain, pictures())
    assert not chains
    assert differences(outcome(fast, pictures()), expected) == []
    assert chains
    assert differences(outcome(plain, pictures()), expected, 0) == []


class Linear(nn.Layer):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5))

    def forward(self, x):
        return self.classifier(x)


@pytest.mark.parametrize("other", [lambda: models.resnet18(num_classes=5), Linear, nn.Identity])
def test_a_network_of_other_layers_is_left_alone(other):
    net = other().to(dtype="float64")
    expected = net(pictures()).numpy()
    assert accelerate(net) == 0
    assert own_ways(net) == []
    assert (net(pictures()).numpy() == expected).all()


# Where the kernels cannot serve ------------------------------------------------------------------


def test_hooks_inside_are_called(net):
    expected = outcome(net, pictures())
    accelerate(net)
    seen = []
    hooks = []
    for layer in net.sublayers():
        if isinstance(layer, (nn.Conv2D, nn.BatchNorm2D)):
            hooks.append(layer.register_forward_post_hook(lambda *_: seen.append(1)))
    assert differences(outcome(net, pictures()), expected) == []
    assert len(seen) == len(hooks)


def test_a_hook_may_change_what_comes_out():
    net = build("MobileNeXt_x0_1")
    accelerate(net)
    expected = net(pictures()).numpy()
    norm = net.blocks[3].conv[1]
    for register in (norm.register_forward_post_hook, norm.register_forward_pre_hook):
        hook = register(lambda layer, *maps: maps[-1][0] * 0 if len(maps) == 1 else maps[-1] * 0)
        changed = net(pictures()).numpy()
        assert not np.allclose(changed, expected)
        hook.remove()
    np.testing.assert_allclose(net(pictures()).numpy(), expected, rtol=1e-8, atol=1e-10)


def test_the_kernels_come_back_when_a_hook_goes(chains):
    net = build("MobileNeXt_x0_1")
    accelerate(net)
    net(pictures())
    all_of_them = len(chains)
    hook = net.blocks[3].conv[1].register_forward_post_hook(lambda *_: None)
    del chains[:]
    net(pictures())
    assert 0 < len(chains) < all_of_them
    hook.remove()
    del chains[:]
    net(pictures())
    assert len(chains) == all_of_them


def test_mixed_precision_does_not_break_it():
    net = build("MobileNeXt_x0_1", "float32")
    net.eval()
    results = []
    for change in (restore, accelerate):
        change(net)
        with paddle.amp.auto_cast(level="O1", dtype="bfloat16"):
            results.append(net(pictures("float32")).astype("float32").numpy())
    np.testing.assert_allclose(results[1], results[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("restored", [True, False])
def test_export(restored, tmp_path):
    """Also while the kernels are in: a program that is traced is made of Paddle's layers."""
    net = build("MobileNeXt_x0_1", "float32")
    net.eval()
    images = pictures("float32", side=32)
    expected = net(images).numpy()
    accelerate(net)
    net(images)
    if restored:
        restore(net)
    spec = paddle.static.InputSpec([None, 3, 32, 32], "float32")
    paddle.jit.save(paddle.jit.to_static(net, input_spec=[spec]), str(tmp_path / "net"))
    loaded = paddle.jit.load(str(tmp_path / "net"))
    np.testing.assert_allclose(loaded(images).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_with_other_channels_are_refused(channels):
    net = build("MobileNeXt_x0_1", "float32")
    accelerate(net)
    images = paddle.ones([2, channels, 32, 32])

    def check():
        with pytest.raises(ValueError):
            net(images)

    forked(check)


# Networks of one's own ---------------------------------------------------------------------------


class Net(nn.Layer):
    """Known layers, then what a test is about, then known layers."""

    def __init__(self, *inner):
        super().__init__()
        known = [nn.Conv2D(3, 8, 3), nn.BatchNorm2D(8), nn.ReLU(), nn.Conv2D(8, 8, 1)]
        self.path = nn.Sequential(*known, *inner, nn.Conv2D(8, 4, 1), nn.Hardswish())

    def forward(self, x):
        return self.path(x)


def in_both_modes(net, side):
    results = []
    for change in (net.train, net.eval):
        change()
        results.append(outcome(net, pictures(side=side)))
    return results


def check_same(net, tolerance=1e-8, side=9):
    """Accelerated, a network gives what it gave, in training and in evaluation mode."""
    expected = in_both_modes(net.to(dtype="float64"), side)
    assert accelerate(net) > 0
    for ours, paddles in zip(in_both_modes(net, side), expected, strict=True):
        assert differences(ours, paddles, tolerance) == []


class Doubled(nn.ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


class Halved(nn.Conv2D):
    def forward(self, x):
        return super().forward(x) / 2


class Reversed(nn.Sequential):
    def forward(self, x):
        for layer in reversed(list(self)):
            x = layer(x)
        return x


class ChannelsLastPool(nn.Layer):
    """A pooling over width and channels of a [N, H, W, C] map."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1, data_format="NHWC")

    def forward(self, x):
        return x * self.pool(x)


ODD = {
    "nothing": lambda: [],
    "dilation": lambda: [nn.Conv2D(8, 8, 3, padding=2, dilation=2), nn.ReLU()],
    "oblong kernel": lambda: [nn.Conv2D(8, 8, (3, 1), padding=(1, 0)), nn.BatchNorm2D(8)],
    "oblong stride": lambda: [nn.Conv2D(8, 8, 3, stride=(2, 1))],
    "mirrored padding": lambda: [nn.Conv2D(8, 8, 3, padding=1, padding_mode="reflect")],
    "transposed convolution": lambda: [nn.Conv2DTranspose(8, 8, 3), nn.ReLU6()],
    "channels-last convolution": lambda: [nn.Conv2D(7, 7, 1, data_format="NHWC")],
    "channels-last norm": lambda: [nn.BatchNorm2D(7, data_format="NHWC")],
    "channels-last pooling": lambda: [ChannelsLastPool()],
    "group norm": lambda: [nn.GroupNorm(2, 8), nn.ReLU()],
    "norm and activation without a convolution": lambda: [nn.BatchNorm2D(8), nn.ReLU6(), nn.ReLU()],
    "norm by the batch always": lambda: [
        nn.Conv2D(8, 8, 1),
        nn.BatchNorm2D(8, use_global_stats=False),
    ],
    "norm by the past always": lambda: [
        nn.Conv2D(8, 8, 1),
        nn.BatchNorm2D(8, use_global_stats=True),
    ],
    "two norms": lambda: [nn.BatchNorm2D(8), nn.BatchNorm2D(8)],
    "another activation": lambda: [nn.GELU(), nn.LeakyReLU(0.3), nn.PReLU()],
    "pooling": lambda: [nn.MaxPool2D(2), nn.AvgPool2D(2)],
    "pooling to one pixel": lambda: [nn.AdaptiveAvgPool2D(1)],
    "pooling to more pixels": lambda: [nn.AdaptiveAvgPool2D(2), nn.AdaptiveMaxPool2D(1)],
    "identity": lambda: [nn.Identity(), nn.ReLU(), nn.Identity(), nn.BatchNorm2D(8)],
    "nested": lambda: [nn.Sequential(nn.Sequential(nn.Conv2D(8, 8, 1)), nn.ReLU()), nn.ReLU6()],
    "named": lambda: [nn.Sequential(("first", nn.Conv2D(8, 8, 1)), ("second", nn.Silu()))],
    "derived activation": lambda: [Doubled(), nn.Conv2D(8, 8, 1), Doubled()],
    "derived convolution": lambda: [Halved(8, 8, 1), nn.ReLU()],
    "derived sequence": lambda: [Reversed(nn.ReLU(), nn.Conv2D(8, 8, 1))],
    "squeeze-excitation": lambda: [SqueezeExcitation(8, 3)],
    "two squeeze-excitations": lambda: [SqueezeExcitation(8, 3), SqueezeExcitation(8, 2)],
    "grouped": lambda: [nn.Conv2D(8, 16, 5, 2, 2, groups=4), nn.Swish(), nn.Conv2D(16, 8, 1)],
}


@pytest.mark.parametrize("odd", ODD)
def test_layers_of_every_kind(odd):
    paddle.seed(2)
    forked(lambda: check_same(Net(*ODD[odd]()), 1e-7))


def test_a_layer_that_stands_twice_in_a_sequence():
    act, conv = nn.ReLU6(), nn.Conv2D(8, 8, 3, padding=1)
    check_same(Net(act, conv, act, conv, nn.BatchNorm2D(8), act))


class Gated(SqueezeExcitation):
    """Not what its parts look like: the gated map is added."""

    def forward(self, x):
        return x + super().forward(x)


def squeeze_with(**layers):
    squeeze = SqueezeExcitation(8, 4)
    for name, layer in layers.items():
        setattr(squeeze, name, layer)
    return squeeze


SQUEEZES = {
    "sigmoid": lambda: SqueezeExcitation(8, 4),
    "hard sigmoid": lambda: SqueezeExcitation(8, 4, nn.Silu, nn.Hardsigmoid),
    "another way": lambda: Gated(8, 4),
    "no bias": lambda: squeeze_with(fc1=nn.Conv2D(8, 4, 1, bias_attr=False)),
    "groups": lambda: squeeze_with(fc1=nn.Conv2D(8, 4, 1, groups=2)),
    "another gate": lambda: squeeze_with(scale_activation=nn.Tanh()),
    "another activation": lambda: squeeze_with(activation=nn.GELU()),
    "another pooling": lambda: squeeze_with(avgpool=nn.AdaptiveMaxPool2D(1)),
}


@pytest.mark.parametrize("kind", SQUEEZES)
def test_squeeze_excitations_and_what_looks_like_them(kind):
    paddle.seed(2)
    forked(lambda: check_same(Net(nn.ReLU(), SQUEEZES[kind]()), 1e-7))


def first_convolution(net):
    net.path[0] = nn.Conv2D(3, 8, 3)


def activation(net):
    net.path[2] = nn.Silu()


def kind_of_layer(net):
    net.path[1] = nn.GroupNorm(2, 8)


def part_of_a_squeeze_excitation(net):
    net.path[4].fc1 = nn.Conv2D(8, 3, 1)


def longer_sequence(net):
    net.path.add_sublayer("last", nn.Conv2D(4, 4, 1))


def constants_of_a_normalisation(net):
    net.path[1]._momentum, net.path[1]._epsilon = 0.5, 0.1


CHANGES = [
    *(first_convolution, activation, kind_of_layer, part_of_a_squeeze_excitation),
    *(longer_sequence, constants_of_a_normalisation),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_afterwards_counts(change):
    net = Net(SqueezeExcitation(8, 3)).to(dtype="float64")
    accelerate(net)
    before = outcome(net, pictures(side=9))
    change(net)
    net.to(dtype="float64")
    actual = outcome(net, pictures(side=9))
    assert not np.allclose(actual["logits"], before["logits"])
    restore(net)
    assert differences(actual, outcome(net, pictures(side=9))) == []


def test_a_way_of_its_own_that_a_layer_has_is_taken():
    """Put there by another tool, before or afterwards; restoring leaves it in place."""
    for accelerated_first in (False, True):
        net = Net(nn.ReLU()).to(dtype="float64")
        conv = net.path[3]
        if accelerated_first:
            accelerate(net)
        conv.forward = lambda x: x * 2
        if not accelerated_first:
            accelerate(net)
        actual = outcome(net, pictures(side=9))
        restore(net)
        assert own_ways(net) == [conv]
        assert differences(actual, outcome(net, pictures(side=9))) == []


def test_a_sequence_alone_and_a_convolution_alone():
    check_same(nn.Sequential(nn.Conv2D(3, 4, 3), nn.ReLU()))
    assert accelerate(nn.Conv2D(3, 4, 3)) == 0
