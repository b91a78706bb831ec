"""A chain against Paddle's own layers: the same numbers, forward and back."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from apart import forked
from drawn import cases, is_well_posed
from hypothesis import assume, given, settings
from paddle import nn
from stock import (
    ACTIVATIONS,
    DOUBLE,
    SINGLE,
    Stack,
    compare,
    differences,
    normal,
    single,
    step,
    tensor,
)

bounded = {"deadline": None, "derandomize": True, "database": None}


def maps(*shape, seed=0):
    return tensor(normal(shape, seed))


def sandglass(**arguments):
    """Depthwise, reduce, expand, depthwise, on ten channels."""
    stack = Stack().depthwise(10, act="ReLU6", **arguments).conv(10, 4, **arguments)
    return stack.conv(4, 10, act="ReLU6", **arguments).depthwise(10, **arguments)


def assert_slope(gradient, stack, x, name, forward=None, size=1e-5):
    """The gradient is that of the sum that ``step`` takes, by central differences."""
    leaf = {"x": x, **stack.parameters()}[name]
    values = leaf.numpy().copy()
    expected = np.zeros(values.shape)

    def total(at, change):
        moved = values.copy()
        moved[at] += change
        leaf.set_value(moved)
        with paddle.no_grad():
            out = (forward or stack.chain)(x).numpy()
        return (out * normal(out.shape, seed=99)).sum()

    with stack.kept_statistics():
        for at in np.ndindex(*values.shape):
            expected[at] = (total(at, size) - total(at, -size)) / (2 * size)
    leaf.set_value(values)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6, err_msg=name)


# Drawn chains ------------------------------------------------------------------------------------


@settings(max_examples=300, **bounded)
@given(cases())
def test_double_precision(case):
    stack = case.stack()
    look = stack.look(case.x(stack))
    assume(is_well_posed(look, 1e-9))
    assert compare(stack, *case.inputs(stack, look)) == []


@settings(max_examples=80, **bounded)
@given(cases())
def test_single_precision_is_as_good_as_paddles(case):
    """Measured against double precision; what Paddle's own layers lose may be lost fourfold."""
    stack = case.stack()
    look = stack.look(case.x(stack))
    assume(is_well_posed(look, 1e-4))
    inputs = case.inputs(stack, look)
    exact, zero = step(stack, stack.stock, *inputs), stack.vanishing(inputs[0])
    stack.to("float32")
    inputs = case.inputs(stack, look)
    paddles, ours = (step(stack, way, *inputs) for way in (stack.stock, stack.chain))
    lost = {name: 4 * np.abs(paddles[name] - exact[name]).max(initial=0) for name in exact}
    assert differences(ours, exact, SINGLE, zero, also_allowed=lost) == []


@settings(max_examples=120, **bounded)
@given(cases())
def test_without_gradients(case):
    stack = case.stack()
    look = stack.look(case.x(stack))
    assume(is_well_posed(look, 1e-9))
    inputs = case.inputs(stack, look)
    with paddle.no_grad():
        assert compare(stack, *inputs) == []
        assert stack.chain(*inputs).stop_gradient


# Every kind of convolution -----------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_every_kernel_and_stride(kernel, stride, groups):
    stack = Stack().conv(12, 12, kernel, stride, kernel // 2, groups, act="ReLU6", bias=True)
    assert compare(stack.train(True), maps(2, 12, 13, 10)) == []


@pytest.mark.parametrize("channels", [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 65])
def test_channels_about_the_width_of_a_vector(channels):
    stack = Stack().conv(channels, channels, act="ReLU").depthwise(channels, act="Silu")
    stack.squeeze(channels, 3).conv(channels, channels + 1, 3, padding=1)
    x = maps(2, channels, 5, 6)
    assert compare(stack, x) == []
    stack.to("float32")
    x = tensor(normal(x.shape), "float32")
    assert compare(stack, x, tolerance=SINGLE) == []


PADDINGS = [0, 3, [1, 2], (2, 1), [0, 1, 2, 0], [3, 0, 0, 3], "SAME", "valid"]
NESTED = [[0, 0], [0, 0], [1, 2], [0, 1]]


@pytest.mark.parametrize("padding", [*PADDINGS, NESTED], ids=str)
@pytest.mark.parametrize("groups", [1, 6])
def test_every_way_to_say_a_padding(padding, groups):
    for kernel, stride in ((3, 1), (3, 2), (5, 2)):
        stack = Stack().conv(6, 6, kernel, stride, padding, groups)
        assert compare(stack, maps(2, 6, 9, 8)) == []


@pytest.mark.parametrize("padding", [[0, 1, 0, 0], [0, 0, 0, 2], [0, 1, 0, 1], [1, 0, 0, 0], 1])
@pytest.mark.parametrize("groups", [1, 6])
def test_padding_of_a_kernel_of_one_pixel(padding, groups):
    stack = Stack().conv(6, 6, 1, 1, padding, groups)

    def check():
        assert compare(stack, maps(2, 6, 5, 4)) == []

    forked(check)


def test_a_kernel_wider_than_the_map():
    for groups in (1, 5):
        stack = Stack().conv(5, 5, 7, 2, 3, groups).depthwise(5, 5)
        assert compare(stack, maps(3, 5, 2, 1)) == []


def test_maps_and_batches_large_enough_for_many_blocks():
    stack = sandglass()
    x = maps(5, 10, 31, 29)
    assert compare(stack, x, x) == []
    assert compare(stack.train(False), x, x, 4) == []


def test_more_sizes_than_are_remembered():
    stack = Stack().depthwise(3).train(False)
    chain = stack.chain
    with paddle.no_grad():
        for size in [*range(1, 80), 1, 2, 79]:
            x = maps(1, 3, size, 2)
            np.testing.assert_allclose(chain(x).numpy(), stack.stock(x).numpy(), atol=1e-12)


def test_a_batch_of_no_pictures_is_refused_or_stays_one():
    stack = sandglass().squeeze(10, 2).train(False)

    def check():
        for keeps_graph in (True, False):
            x = maps(0, 10, 5, 5)
            with paddle.set_grad_enabled(keeps_graph):
                try:
                    out = stack.chain(x)
                except ValueError:
                    continue
            assert out.shape == [0, 10, 5, 5]
            if keeps_graph:
                out.sum().backward()
                assert x.grad.shape == [0, 10, 5, 5]
                assert not stack.layers[0].weight.grad.numpy().any()

    forked(check)


# Normalisation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trained", [(True,), (False,), (True, False), (False, True, False, True)])
def test_some_normalisations_frozen(trained):
    stack = sandglass(bias=True).train(*trained)
    assert compare(stack, maps(3, 10, 6, 5)) == []


# False in evaluation mode is left out: there Paddle's backward pass contradicts its forward pass,
# and a network's norm with False is left to Paddle.
@pytest.mark.parametrize(
    ("use_global_stats", "training"),
    [(True, True), (True, False), (False, True), (None, True), (None, False)],
)
def test_global_statistics_on_request(use_global_stats, training):
    norm = {"use_global_stats": use_global_stats}
    stack = Stack().conv(4, 6, norm=norm, bias=True, act="ReLU").train(training)
    x = maps(2, 4, 5, 5)
    assert compare(stack, x) == []
    with paddle.no_grad():
        assert compare(stack, x) == []


def test_one_value_a_channel_is_left_as_it_is():
    stack = Stack().conv(4, 6, bias=True)
    x = maps(1, 4, 1, 1)
    conv = stack.layers[0]
    with paddle.no_grad():
        np.testing.assert_allclose(stack.chain(x).numpy(), conv(x).numpy(), atol=1e-12)
    for act in ACTIVATIONS:
        stack = Stack().conv(4, 6, bias=True, act=act).depthwise(6, act=act)
        assert compare(stack, x) == []


def test_two_values_a_channel():
    assert compare(Stack().conv(4, 6, bias=True, act="ReLU"), maps(2, 4, 1, 1)) == []


@pytest.mark.parametrize(("missing", "kept"), [("weight", "bias"), ("bias", "weight")])
def test_a_normalisation_without_one_of_its_parameters(missing, kept):
    """Paddle then gives the other one no gradient; here it gets its own."""
    stack, x = Stack().conv(4, 6, norm={f"{missing}_attr": False}, act="Silu"), maps(2, 4, 3, 3)
    expected, actual = step(stack, stack.stock, x), step(stack, stack.chain, x)
    assert_slope(actual.pop(f"d1.{kept}"), stack, x, f"1.{kept}")
    assert differences(actual, expected, DOUBLE) == []


def test_a_mean_far_from_zero_costs_no_digits():
    """The spread is a thousandth of the mean: squares summed up would have lost it."""
    stack = Stack().conv(3, 3, norm=True)
    values = single(normal((4, 3, 16, 16)) + 2000)
    eye = np.eye(3).reshape(3, 3, 1, 1)
    stack.layers[0].weight.set_value(eye)
    exact = step(stack, stack.stock, tensor(values))
    stack.to("float32")
    actual = step(stack, stack.chain, tensor(values, "float32"))
    assert differences(actual, exact, 1e-3, also_allowed={"d0.weight": np.inf}) == []


def test_running_statistics_move_in_training_only():
    stack = Stack().conv(4, 6, norm={"momentum": 0.8}, bias=True)
    x = maps(2, 4, 5, 5)
    mean, variance = (value.numpy().copy() for value in stack.statistics().values())
    stack.train(False).chain(x)
    with paddle.no_grad():
        stack.chain(x)
        assert (stack.norms[0]._mean.numpy() == mean).all()
        y = stack.layers[0](x).numpy()
        stack.train(True).chain(x)
    expected = 0.8 * mean + 0.2 * y.mean((0, 2, 3))
    np.testing.assert_allclose(stack.norms[0]._mean.numpy(), expected, atol=1e-7)
    expected = 0.8 * variance + 0.2 * y.var((0, 2, 3))
    np.testing.assert_allclose(stack.norms[0]._variance.numpy(), expected, atol=1e-7)


# Activations -------------------------------------------------------------------------------------


def activation_alone(act, values, way, dtype="float64"):
    stack = Stack().conv(1, 1, norm=False, act=act)
    stack.layers[0].weight.set_value(np.ones([1, 1, 1, 1]))
    x = tensor(np.array(values).reshape(1, 1, 1, -1), dtype)
    return step(stack.to(dtype), getattr(stack, way), x)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_at_the_corners_of_an_activation(act):
    values = [-3.0, 0.0, 3.0, 6.0, -6.0, -0.0]
    ours, paddles = (activation_alone(act, values, way) for way in ("chain", "stock"))
    np.testing.assert_allclose(ours["out"], paddles["out"], atol=1e-15)
    np.testing.assert_allclose(ours["dx"], paddles["dx"], atol=1e-15)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_what_is_not_a_number_stays_so(act):
    """Else a run that has gone wrong would look healthy. (Of Paddle's, ReLU makes it a zero.)"""
    values = [np.nan, 1.0, np.inf, -np.inf]
    ours, paddles = (activation_alone(act, values, way) for way in ("chain", "stock"))
    assert np.isnan(ours["out"].ravel()[0])
    np.testing.assert_allclose(ours["out"].ravel()[1:], paddles["out"].ravel()[1:])


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_large_numbers_in_single_precision(act):
    """Measured against double precision, in which e^600 has room."""
    values = [-600.0, -100, -88, -20, 20, 88, 100, 600]
    exact = activation_alone(act, values, "stock")
    actual = activation_alone(act, values, "chain", "float32")
    for name in ("out", "dx"):
        np.testing.assert_allclose(actual[name], exact[name], rtol=1e-5, atol=1e-30)


# Shortcuts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("carried", [None, 1, 4, 9, 10])
def test_a_shortcut_that_is_the_input(carried):
    x = maps(2, 10, 6, 5)
    assert compare(sandglass(), x, x, carried) == []


@pytest.mark.parametrize("carried", [None, 1, 4, 9, 10])
def test_a_shortcut_that_is_another_map(carried):
    assert compare(sandglass(), maps(2, 10, 6, 5), maps(2, 10, 6, 5, seed=1), carried) == []


def test_a_shortcut_from_another_chain():
    first, second = Stack(1).conv(4, 6, act="ReLU"), Stack(2).depthwise(6).conv(6, 6)
    results = []
    for way in ("stock", "chain"):
        x = maps(2, 4, 5, 5)
        with first.kept_statistics(), second.kept_statistics():
            y = getattr(first, way)(x)
            (getattr(second, way)(y, y.detach() * 0 + y) * y).sum().backward()
        leaves = [x, *first.parameters().values(), *second.parameters().values()]
        results.append({f"d{i}": leaf.grad.numpy().copy() for i, leaf in enumerate(leaves)})
        for leaf in leaves:
            leaf.grad = None
    assert differences(*results, DOUBLE) == []


@pytest.mark.parametrize("units", [("squeeze",), ("squeeze", "conv"), ("conv", "squeeze")])
def test_a_shortcut_past_a_squeeze_excitation(units):
    stack = Stack()
    for unit in units:
        stack.squeeze(6, 2) if unit == "squeeze" else stack.conv(6, 6, act="Hardswish")
    x = maps(3, 6, 4, 5)
    assert compare(stack, x, x, 5) == []
    with paddle.no_grad():
        assert compare(stack.train(False), x, x, 5) == []


def test_a_shortcut_that_wants_no_gradient():
    shortcut = maps(2, 10, 6, 5, seed=1)
    shortcut.stop_gradient = True
    assert compare(sandglass(), maps(2, 10, 6, 5), shortcut) == []


def test_only_the_shortcut_wants_a_gradient():
    stack, x = sandglass(), maps(2, 10, 6, 5)
    x.stop_gradient = True
    for parameter in stack.parameters().values():
        parameter.stop_gradient = True
    assert compare(stack, x, maps(2, 10, 6, 5, seed=1), 7) == []


@pytest.mark.parametrize("shape", [(1, 10, 1, 1), (2, 10, 1, 5), (1, 10, 6, 5)])
def test_a_smaller_shortcut_is_spread_or_refused(shape):
    stack, x = sandglass().train(False), maps(2, 10, 6, 5)

    def check():
        try:
            out = stack.chain(x, tensor(normal(shape)))
        except ValueError:
            return
        np.testing.assert_allclose(out.numpy(), stack.stock(x, tensor(normal(shape))).numpy())

    forked(check)


@pytest.mark.parametrize("channels_out", [3, 4, 9])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_shortcut_that_is_the_input_and_does_not_fit_is_refused(stride, channels_out):
    stack, x = Stack().conv(4, channels_out, 3, stride, 1).train(False), maps(2, 4, 5, 5)
    if (stride, channels_out) == (1, 4):
        assert compare(stack, x, x) == []
        return

    def check():
        with pytest.raises(ValueError):
            stack.chain(x, x)
        with paddle.no_grad(), pytest.raises(ValueError):
            stack.chain(x, x)

    forked(check)


@pytest.mark.parametrize("carried", [0, 11, 1000])
def test_a_shortcut_that_carries_no_channel_or_more_than_there_are(carried):
    def check():
        x = maps(2, 10, 6, 5)
        for shortcut in (x, maps(2, 10, 6, 5, seed=1)):
            assert compare(sandglass(), x, shortcut, carried) == []

    forked(check)


# Gradients on request ----------------------------------------------------------------------------


def curved():
    """Without two linear layers in a row, no gradient but a bias's vanishes."""
    stack = Stack().depthwise(6, act="Hardswish", bias=True).conv(6, 4, act="Silu", bias=True)
    return stack.conv(4, 5, 3, padding=1, norm=False, act="ReLU", bias=True).squeeze(5, 3)


def every_leaf():
    return ["x", *curved().parameters()]


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "alone"])
@pytest.mark.parametrize("name", every_leaf())
def test_one_leaf_frozen_and_one_leaf_alone(name, frozen):
    """Measured against Paddle's gradients of all: it freezes a norm's parameters only together."""
    stack, x = curved(), maps(2, 6, 4, 5)
    leaves = {"x": x, **stack.parameters()}
    expected = step(stack, stack.stock, x)
    for other, leaf in leaves.items():
        leaf.stop_gradient = (other == name) == frozen
        if leaf.stop_gradient:
            del expected[f"d{other}"]
    actual = step(stack, stack.chain, x)
    assert differences(actual, expected, DOUBLE, stack.vanishing(x)) == []


def test_nothing_wants_a_gradient():
    stack, x = sandglass(), maps(2, 10, 4, 5)
    for leaf in (x, *stack.parameters().values()):
        leaf.stop_gradient = True
    assert stack.chain(x).stop_gradient
    assert compare(stack, x) == []


def test_what_paddle_grad_can_ask_for():
    """All that wants a gradient: of some of it alone, Paddle 3.3 refuses every PyLayer's."""
    stack, x = curved(), maps(2, 6, 4, 5)
    wanted = [x, *stack.parameters().values()]
    for leaves in (wanted, [x]):
        for leaf in wanted[len(leaves) :]:
            leaf.stop_gradient = True
        both = [paddle.grad(way(x).square().sum(), leaves) for way in (stack.stock, stack.chain)]
        expected, actual = ({f"d{i}": g.numpy() for i, g in enumerate(gs)} for gs in both)
        assert differences(actual, expected, 1e-8) == []


def test_a_chain_used_twice_gathers_both_gradients():
    stack = Stack().conv(4, 4, act="Silu").depthwise(4)
    chain = stack.chain
    expected = step(stack, lambda x, *_: stack.stock(stack.stock(x)), maps(2, 4, 5, 5))
    actual = step(stack, lambda x, *_: chain(chain(x)), maps(2, 4, 5, 5))
    assert differences(actual, expected, DOUBLE) == []


def test_two_passes_before_the_way_back():
    """What the first pass keeps is not the second one's."""
    stack = sandglass()
    gradients = []
    for way in (stack.stock, stack.chain):
        one, two = maps(2, 10, 4, 5), maps(3, 10, 5, 4, seed=1)
        with stack.kept_statistics():
            first, second = way(one), way(two)
            (first.square().sum() + second.square().sum()).backward()
        gradients.append({"dx": one.grad.numpy(), "dy": two.grad.numpy()})
    assert differences(*gradients, DOUBLE) == []


# Layouts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_a_channels_last_map_gives_the_same_bits(channels):
    stack = Stack().conv(channels, 6, 3, padding=1, act="ReLU").depthwise(6)
    values = normal((2, channels, 5, 4))
    dense, view = tensor(values), tensor(values, channels_last=True)
    first, second = (step(stack, stack.chain, x) for x in (dense, view))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, name)


def test_parts_of_a_larger_map():
    whole = normal((2, 8, 9, 6))
    for part in (np.s_[:, ::2], np.s_[:, 4:, 1::2], np.s_[:, :4, :, 2:]):
        x = paddle.to_tensor(whole)[part].detach()
        x.stop_gradient = False
        stack = Stack().conv(4, 6, 3, act="ReLU")
        assert compare(stack, x) == []
        assert compare(Stack().depthwise(4), maps(*x.shape), x) == []


def test_it_answers_in_the_layout_that_it_was_asked_in():
    stack = Stack().conv(8, 8, act="ReLU")
    values = normal((2, 8, 5, 4))
    dense, view = tensor(values), tensor(values, channels_last=True)
    assert stack.chain(dense).is_contiguous()
    assert stack.chain(view).transpose([0, 2, 3, 1]).is_contiguous()
    image = Stack().conv(3, 8)
    assert image.chain(maps(2, 3, 5, 4)).transpose([0, 2, 3, 1]).is_contiguous()


def test_a_gradient_that_comes_in_any_layout():
    stack = Stack().conv(4, 6, act="Silu")
    gradients = []
    for way in (stack.stock, stack.chain):
        x = maps(2, 4, 5, 3)
        with stack.kept_statistics():
            out = way(x)
            (out.transpose([0, 3, 1, 2]) * tensor(normal((2, 3, 6, 5)))).sum().backward()
            first = x.grad.numpy().copy()
            x.grad = None
            way(x).mean([2, 3]).square().sum().backward()
        gradients.append({"dfirst": first, "dsecond": x.grad.numpy()})
    assert differences(*gradients, DOUBLE) == []


# Numerical gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize("trained", [(True,), (False,), (True, False)])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gradients_are_slopes(act, trained):
    stack = Stack(3).conv(3, 4, 3, padding=1, act=act, bias=True)
    stack.depthwise(4, 3, 2, act=act, norm={"epsilon": 0.1}).squeeze(4, 2, act="Silu").conv(4, 3)
    stack.train(*trained)
    x = maps(2, 3, 4, 3)
    assert stack.look(x).corner > 1e-3
    gradients = step(stack, stack.chain, x)
    for name in ["x", *stack.parameters()]:
        assert_slope(gradients[f"d{name}"], stack, x, name)


def test_a_gradient_with_a_shortcut_is_a_slope():
    stack = Stack(3).depthwise(4, act="Hardswish").conv(4, 4)
    x = maps(2, 4, 3, 3)
    assert stack.look(x).corner > 1e-3
    gradient = step(stack, stack.chain, x, x, 3)["dx"]
    assert_slope(gradient, stack, x, "x", lambda x: stack.chain(x, x, 3))


# What Paddle refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 4, 5, 5), (1, 2, 5, 5)])
def test_another_number_of_channels_is_refused(shape):
    """Reading on behind the map's end would give numbers that look right."""
    stack = Stack().conv(3, 6, norm=False)

    def check():
        for way in (stack.stock, stack.chain):
            with pytest.raises(ValueError):
                way(tensor(normal(shape)))

    forked(check)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_another_precision_than_the_weights_is_refused(dtype):
    stack = Stack().conv(3, 6, norm=False).to({"float32": "float64", "float64": "float32"}[dtype])

    def check():
        for way in (stack.stock, stack.chain):
            with pytest.raises((ValueError, TypeError)):
                way(tensor(normal((1, 3, 2, 2)), dtype))

    forked(check)


def cut_weight(stack):
    conv = stack.layers[0]
    conv.weight = conv.create_parameter([5, 4, 1, 1], dtype="float64")


def long_weight(stack):
    conv = stack.layers[0]
    conv.weight = conv.create_parameter([7, 4, 1, 1], dtype="float64")


def other_norm(stack):
    stack.units[0].norm = stack.layers[1] = nn.BatchNorm2D(4).to(dtype="float64")


def other_gate(stack):
    stack.layers[2].fc2 = stack.units[1].expand = nn.Conv2D(2, 6, 1).to(dtype="float64")


@pytest.mark.parametrize("change", [cut_weight, long_weight, other_norm, other_gate])
def test_parameters_of_another_size_are_refused(change):
    """Tools that cut channels out change a weight, and not what its layer says of itself."""
    stack = Stack().conv(4, 6).squeeze(6, 3).train(False)
    change(stack)

    def check():
        for way in (stack.stock, stack.chain):
            with paddle.no_grad(), pytest.raises(ValueError):
                way(maps(2, 4, 5, 5))

    forked(check)
