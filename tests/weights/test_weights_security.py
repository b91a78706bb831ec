"""Weights from strangers: nothing in a file is ever executed, and every refusal names the file."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from weights_files import DANGEROUS

import ppcls
from ppcls.errors import WeightsError
from ppcls.weights import load_weights, read_weights


@pytest.fixture(scope="module")
def net():
    return ppcls.create_model("MobileNeXt_x0_1", class_num=3)


def refused(path):
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.exit_code == 1
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".pdparams", ".pdopt", ".safetensors"])
@pytest.mark.parametrize("kind", DANGEROUS)
def test_a_pickle_that_calls_functions_is_refused(tmp_path, kind, suffix):
    canary = tmp_path / "canary"
    payload = DANGEROUS[kind](canary)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(payload)
    refused(path)
    assert not canary.exists(), "the file was executed"
    pickle.loads(payload)
    assert canary.exists(), "the test's file is harmless and proves nothing"


def test_the_refusal_says_what_the_file_wanted(tmp_path):
    path = tmp_path / "model.pdparams"
    path.write_bytes(DANGEROUS["os.system"](tmp_path / "canary"))
    message = refused(path)
    assert "posix.system" in message
    assert "nothing was executed" in message


def test_loading_goes_through_the_same_reader(tmp_path, net):
    canary = tmp_path / "canary"
    path = tmp_path / "model.pdparams"
    path.write_bytes(DANGEROUS["value of a table"](canary))
    for source in (path, tmp_path, tmp_path / "model"):
        with pytest.raises(WeightsError, match=str(path)):
            load_weights(net, source)
    with pytest.raises(WeightsError, match=str(path)):
        ppcls.create_model("MobileNeXt_x0_1", pretrained=str(path))
    assert not canary.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x02ccollections\nnamedtuple\n.",
        b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
        b"\x80\x02cbuiltins\ngetattr\n.",
        b"\x80\x02c__builtin__\neval\n.",
        b"\x80\x02c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"\x80\x02Vanother file\nQ.",
        b"\x80\x02Panother file\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02inumpy\nload\n.",
    ],
)
def test_other_ways_out_of_a_pickle_are_closed(tmp_path, payload):
    path = tmp_path / "model.pdparams"
    path.write_bytes(payload)
    refused(path)


@pytest.mark.parametrize(
    "content",
    [
        {"a": "text"},
        {"a": 3},
        {"a": None},
        {"a": [1.0, 2.0]},
        {"a": {"b": np.zeros(2)}},
        {"a": np.array([1, None], dtype=object)},
        {"a": np.zeros(2, [("x", "f4"), ("y", object)])},
        {"a": ("name", "text")},
        {"a": ("name", np.zeros(2), 3)},
        {3: np.zeros(2)},
        [np.zeros(2)],
        np.zeros(2),
        None,
        {},
        {"StructuredToParameterName@@": {"a": "b"}},
    ],
    ids=str,
)
def test_anything_but_arrays_is_refused(tmp_path, content):
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps(content, 4))
    refused(path)


@pytest.mark.parametrize(
    "content",
    [
        np.array(["a", "b", "c"]),
        np.array([b"a", b"b", b"c"]),
        np.zeros(3, [("x", "f4")]),
        np.zeros(3, "M8[s]"),
        np.zeros(3, "c8"),
    ],
    ids=lambda a: str(a.dtype),
)
def test_arrays_that_are_no_numbers_are_refused_and_change_nothing(tmp_path, net, content):
    state = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    changed = {name: value + 1 for name, value in state.items()} | {"classifier.1.bias": content}
    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps(changed, 4))
    for source in (path, changed):
        with pytest.raises(WeightsError, match=r"classifier\.1\.bias"):
            load_weights(net, source)
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), state[name])
