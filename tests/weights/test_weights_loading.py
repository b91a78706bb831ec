"""Weights into networks: what fits, what does not, and what becomes of the classifier."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
import safetensors.numpy

import ppcls
from ppcls.errors import WeightsError
from ppcls.weights import WeightReport, load_weights

HEAD = ["classifier.1.bias", "classifier.1.weight"]


def arrays(net):
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def small(class_num=5):
    return ppcls.create_model("MobileNeXt_x0_1", class_num=class_num)


@pytest.fixture(scope="module")
def given():
    """Weights for five classes, unlike those of any new network."""
    rng = np.random.RandomState(1)
    return {
        name: rng.uniform(0.1, 1, value.shape).astype("float32")
        for name, value in small().state_dict().items()
    }


@pytest.fixture(scope="module")
def network():
    return small()


@pytest.fixture
def net(network):
    """A network of five classes, zero everywhere."""
    for value in network.state_dict().values():
        value.set_value(paddle.zeros_like(value))
    return network


def equal(net, expected, names=None):
    found = arrays(net)
    for name in expected if names is None else names:
        np.testing.assert_array_equal(found[name], expected[name], name)


def untouched(net):
    for name, value in arrays(net).items():
        assert not value.any(), name


def save(weights, path):
    if path.suffix == ".safetensors":
        safetensors.numpy.save_file(weights, path)
    else:
        paddle.save({name: paddle.to_tensor(value) for name, value in weights.items()}, str(path))
    return path


@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors"])
def test_files_are_loaded(tmp_path, net, given, suffix):
    report = load_weights(net, save(given, tmp_path / f"w{suffix}"))
    equal(net, given)
    assert sorted(report.matched) == sorted(given)
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], {})
    assert report.new_head is False
    assert str(report) == f"{len(given)} matched"


@pytest.mark.parametrize("kind", ["arrays", "tensors", "lists"])
def test_tables_are_loaded(net, given, kind):
    make = {"arrays": np.array, "tensors": paddle.to_tensor, "lists": np.ndarray.tolist}[kind]
    load_weights(net, {name: make(value) for name, value in given.items()})
    equal(net, given)


def test_other_precisions_are_converted(net, given):
    load_weights(net, {name: value.astype("float64") for name, value in given.items()})
    equal(net, given)
    load_weights(net, {name: value.astype("float16") for name, value in given.items()})
    equal(net, {name: value.astype("float16").astype("float32") for name, value in given.items()})


def test_bfloat16_weights_are_not_taken_for_integers(tmp_path, net, given):
    """Paddle writes bfloat16 as uint16: the values, or a refusal, but never the bits as numbers."""
    path = tmp_path / "w.pdparams"
    tensors = {name: paddle.to_tensor(v).astype("bfloat16") for name, v in given.items()}
    paddle.save(tensors, str(path))
    try:
        load_weights(net, path)
    except WeightsError as error:
        assert "bfloat16" in str(error)
        untouched(net)
    else:
        for name, value in arrays(net).items():
            np.testing.assert_allclose(value, given[name], rtol=0.01)


def test_what_is_loaded_is_a_copy(net, given):
    source = {name: value.copy() for name, value in given.items()}
    load_weights(net, source)
    for value in source.values():
        value[...] = 9
    equal(net, given)


def test_further_names_in_the_source_are_reported(net, given):
    report = load_weights(net, {**given, "ema.step": np.zeros(1), "fc_extra": np.zeros(2)})
    assert report.unexpected == ["ema.step", "fc_extra"]
    assert "2 unexpected (ema.step, fc_extra)" in str(report)
    equal(net, given)


def test_the_name_table_of_paddle_is_no_weight(net, given):
    report = load_weights(net, {**given, "StructuredToParameterName@@": {"a": "b"}})
    assert report.unexpected == []


def test_a_missing_name_is_an_error_and_changes_nothing(net, given):
    weights = dict(given)
    last = list(weights)[-3]
    del weights[last]
    with pytest.raises(WeightsError) as caught:
        load_weights(net, weights)
    assert f"1 missing ({last})" in str(caught.value)
    untouched(net)


def test_another_architecture_is_an_error_and_changes_nothing(tmp_path, net):
    state = paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.Linear(4, 5)).state_dict()
    path = tmp_path / "other.pdparams"
    paddle.save(state, str(path))
    with pytest.raises(WeightsError) as caught:
        load_weights(net, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: holds weights of another architecture than MobileNeXt_x0_1")
    assert f"only 0 of the network's {len(net.state_dict())} names fit" in message
    assert "and 3" in message, "a long list of names is cut off"
    assert len(message) < 1000
    untouched(net)
    for option in ("ignore_head", "adapt_head"):
        with pytest.raises(WeightsError, match="another architecture"):
            load_weights(net, path, **{option: True})
    untouched(net)


def test_another_width_is_an_error_and_changes_nothing(net):
    other = ppcls.create_model("MobileNeXt_x0_35", class_num=5)
    for options in ({}, {"ignore_head": True}, {"adapt_head": True}):
        with pytest.raises(WeightsError) as caught:
            load_weights(net, other.state_dict(), **options)
        assert "features.0.0.weight: source [16, 3, 3, 3], network [4, 3, 3, 3]" in str(
            caught.value
        )
        untouched(net)


def test_another_number_of_classes_is_an_error_and_changes_nothing(net, given, tmp_path):
    weights = arrays(small(7)) | {n: v for n, v in given.items() if n not in HEAD}
    path = save(weights, tmp_path / "seven.pdparams")
    with pytest.raises(WeightsError) as caught:
        load_weights(net, path)
    message = str(caught.value)
    assert message.startswith(f"{path}: has 7 classes, the network MobileNeXt_x0_1 has 5")
    assert "Arch.class_num to 7" in message
    assert "ignore_head" in message
    untouched(net)


@pytest.mark.parametrize("option", ["ignore_head", "adapt_head"])
def test_a_classifier_of_other_classes_can_be_left_out(net, given, option):
    weights = {n: v for n, v in given.items() if n not in HEAD} | {
        name: arrays(small(7))[name] for name in HEAD
    }
    report = load_weights(net, weights, **{option: True})
    assert report.new_head is True
    assert sorted(report.matched) == sorted(set(given) - set(HEAD))
    assert report.mismatched == {}
    equal(net, given, set(given) - set(HEAD))
    assert not any(arrays(net)[name].any() for name in HEAD)


def test_ignore_head_keeps_the_classifier_whatever_the_source_holds(net, given):
    report = load_weights(net, given, ignore_head=True)
    assert report.new_head is True
    assert not any(arrays(net)[name].any() for name in HEAD)
    equal(net, given, set(given) - set(HEAD))
    headless = {name: value for name, value in given.items() if name not in HEAD}
    assert load_weights(net, headless, ignore_head=True).missing == []


def test_adapt_head_loads_a_classifier_that_fits(net, given):
    report = load_weights(net, given, adapt_head=True)
    assert report.new_head is False
    equal(net, given)


def test_adapt_head_does_not_excuse_a_missing_classifier(net, given):
    headless = {name: value for name, value in given.items() if name not in HEAD}
    with pytest.raises(WeightsError, match="2 missing"):
        load_weights(net, headless, adapt_head=True)
    untouched(net)


def test_any_layer_of_paddle_can_be_loaded():
    layer = paddle.nn.Linear(2, 3)
    report = load_weights(layer, {"weight": np.ones((2, 3)), "bias": np.full(3, 2.0)})
    assert report.matched == ["weight", "bias"]
    assert layer.bias.numpy().tolist() == [2, 2, 2]
    with pytest.raises(WeightsError, match=r"weight: source \[3, 2\], network \[2, 3\]"):
        load_weights(layer, {"weight": np.ones((3, 2)), "bias": np.zeros(3)})


def test_a_report_reads_well():
    report = WeightReport(
        matched=["a"],
        missing=["b", "c"],
        unexpected=[f"u{i}" for i in range(8)],
        mismatched={"d": ([1, 2], [3, 4])},
    )
    assert str(report) == (
        "1 matched, 2 missing (b, c), 8 unexpected (u0, u1, u2, u3, u4, and 3 more), "
        "1 mismatched (d: source [1, 2], network [3, 4])"
    )
    assert str(WeightReport()) == "0 matched"
