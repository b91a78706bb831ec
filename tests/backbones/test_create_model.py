"""Networks by name."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

import ppcls
from ppcls.errors import ArgumentError, PPClsError, UnknownName, WeightsError

SMALL = "MobileNeXt_x0_1"


def test_list_models_is_sorted_and_filtered():
    names = ppcls.list_models()
    assert names == sorted(set(names))
    assert {"MobileNeXt_x1_0", "MobileNeXt_100", SMALL} <= set(names)
    assert ppcls.list_models("MobileNeXt_x*") == [n for n in names if n.startswith("MobileNeXt_x")]
    assert ppcls.list_models("*NeXt_x0_3?") == ["MobileNeXt_x0_35"]
    assert ppcls.list_models("nothing*") == []


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("MobileNext_100", "MobileNeXt_100"),
        ("mobilenext_x1_0", "MobileNeXt_x1_0"),
        ("MobileNeXt_x1.0", "MobileNeXt_x1_0"),
    ],
)
def test_an_unknown_network_gets_a_suggestion(name, suggested):
    with pytest.raises(UnknownName) as caught:
        ppcls.create_model(name)
    assert str(caught.value) == f"unknown network '{name}'; did you mean '{suggested}'?"
    assert isinstance(caught.value, PPClsError)


def test_an_unknown_argument_gets_a_suggestion():
    with pytest.raises(
        ArgumentError, match=r"no argument 'dropuot'; did you mean 'dropout'\?"
    ) as e:
        ppcls.create_model(SMALL, dropuot=0.1)
    assert e.value.argument == "dropuot"


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_num": 0},
        {"class_num": 2.5},
        {"class_num": "ten"},
        {"dropout": 1.5},
        {"dropout": "much"},
        {"width": -1.0},
        {"divisor": 0},
        {"identity_tensor_multiplier": 2.0},
    ],
)
def test_a_value_that_cannot_be_used_is_refused(arguments):
    [argument] = arguments
    with pytest.raises(ArgumentError) as caught:
        ppcls.create_model(SMALL, **arguments)
    assert caught.value.argument == argument
    assert "expected" in str(caught.value)


def test_arguments_reach_the_network():
    net = ppcls.create_model(SMALL, class_num=3, dropout=0.0)
    assert net.class_num == 3
    assert net.arch_name == SMALL
    assert net.classifier[0].p == 0.0


def test_the_default_is_imagenets_number_of_classes():
    assert ppcls.create_model(SMALL).class_num == 1000


def test_published_weights_are_not_downloaded():
    with pytest.raises(WeightsError, match="give the path of a file"):
        ppcls.create_model(SMALL, pretrained=True)


@pytest.mark.parametrize("kind", ["path", "text"])
def test_pretrained_takes_a_file(tmp_path, kind):
    net = ppcls.create_model(SMALL, class_num=4)
    path = tmp_path / "w.pdparams"
    paddle.save(net.state_dict(), str(path))
    other = ppcls.create_model(SMALL, class_num=4, pretrained=path if kind == "path" else str(path))
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), value.numpy())


def test_pretrained_weights_of_other_classes_leave_a_new_classifier(tmp_path):
    net = ppcls.create_model(SMALL, class_num=4)
    path = tmp_path / "w.pdparams"
    paddle.save(net.state_dict(), str(path))
    other = ppcls.create_model(SMALL, class_num=6, pretrained=str(path))
    assert other.class_num == 6
    for name in set(net.state_dict()) - net.classifier_names():
        np.testing.assert_array_equal(
            other.state_dict()[name].numpy(), net.state_dict()[name].numpy()
        )


def test_pretrained_weights_of_another_width_are_refused(tmp_path):
    path = tmp_path / "w.pdparams"
    paddle.save(ppcls.create_model("MobileNeXt_x0_35").state_dict(), str(path))
    with pytest.raises(WeightsError, match=str(path)):
        ppcls.create_model(SMALL, class_num=4, pretrained=str(path))


def test_missing_weights_are_an_error(tmp_path):
    with pytest.raises(WeightsError, match="no weights there"):
        ppcls.create_model(SMALL, pretrained=str(tmp_path / "none"))
