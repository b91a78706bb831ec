"""Weights from strangers: nothing in a file is ever executed, and every refusal names the file."""

from __future__ import annotations

import pickle
import resource
import tracemalloc

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
    for source, what in (
        (path, "it asks for numbers of the kind"),
        (changed, r"classifier\.1\.bias"),
    ):
        with pytest.raises(WeightsError, match=what):
            load_weights(net, source)
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), state[name])


# States and lengths that are lies -----------------------------------------------------------------


class Made:
    """Pickled, it becomes what ``reduced`` says."""

    def __init__(self, *reduced):
        self._reduced = reduced

    def __reduce__(self):
        return self._reduced


RECONSTRUCT = np.empty(0).__reduce__()[0]
F4 = np.dtype("f4")


def array(shape, dtype, raw, turned=False, version=1):
    return Made(RECONSTRUCT, (np.ndarray, (0,), b"b"), (version, shape, dtype, turned, raw))


def dtype(code, *state):
    return Made(np.dtype, (code, False, True), state or None)


FIELDS = (("a",), {"a": (np.dtype("O"), 0)}, 8, 1)
HOSTILE_ARRAYS = {
    "objects by flags": array((4,), dtype("V8", 3, "|", None, *FIELDS, 63), b"A" * 32),
    "objects without flags": array((4,), dtype("V8", 3, "|", None, *FIELDS, 0), b"A" * 32),
    "fields of a number": array((4,), dtype("f8", 3, "|", None, *FIELDS, 0), b"A" * 32),
    "flags of a number": array((1,), dtype("f8", 3, "<", None, None, None, -1, -1, 63), b"A" * 8),
    "size of a number": array((1,), dtype("f4", 3, "<", None, None, None, 999, 1, 0), b"A" * 4),
    "order of a number": array((1,), dtype("f4", 3, "x", None, None, None, -1, -1, 0), b"A" * 4),
    "objects": array((1,), np.dtype("O"), [1]),
    "a subarray": array((1,), Made(np.dtype, ("(2,)f4", False, True)), b"A" * 8),
    "many types": array((1,), Made(np.dtype, ("f4,f4", False, True)), b"A" * 8),
    "type of a type": array((1,), Made(np.dtype, (F4, False, True)), b"A" * 4),
    "no type": array((1,), "f4", b"A" * 4),
    "too short": array((3,), F4, b"A" * 8),
    "too long": array((1,), F4, b"A" * 8),
    "negative": array((-1, -1), F4, b"A" * 4),
    "negative and empty": array((-1, 0), F4, b""),
    "huge and empty": array((0, 2**62, 2**62), F4, b""),
    "size that overflows": array((2**32, 2**32), F4, b""),
    "size of truth": array((True,), F4, b"A" * 4),
    "size of fractions": array((1.0,), F4, b"A" * 4),
    "too many axes": array((1,) * 65, F4, b"A" * 4),
    "numbers of text": array((1,), F4, "AAAA"),
    "no numbers": array((1,), F4, None),
    "another version": array((1,), F4, b"A" * 4, version=2),
    "no state": Made(RECONSTRUCT, (np.ndarray, (0,), b"b")),
    "part of a state": Made(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, (1,))),
    "a call": Made(np.ndarray, ((3_000_000_000,), "f8")),
    "scalar of objects": Made(np.float32(0).__reduce__()[0], (np.dtype("O"), b"A" * 8)),
    "scalar too short": Made(np.float32(0).__reduce__()[0], (F4, b"A")),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", HOSTILE_ARRAYS)
def test_an_array_is_what_it_says(tmp_path, kind, protocol):
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps({"w": HOSTILE_ARRAYS[kind]}, protocol))
    tracemalloc.start()
    try:
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_an_array_of_the_tests_own_writer_is_read(tmp_path):
    plain = {"plain": array((2, 1), F4, b"A" * 8), "kind": array((1,), dtype("f4"), b"A" * 4)}
    order = (3, ">", None, None, None, -1, -1, 0)
    plain["turned"] = array((1,), dtype("f4", *order), np.array(3, ">f4").tobytes())
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(plain, 4))
    assert read_weights(path)["turned"].tolist() == [3]


HUGE = {
    "memo": b"}r\xff\xff\xff\x07.",
    "memo in digits": b"}p99999999\n.",
    "memo of digits that are none": b"}px\n.",
    "negative memo": b"}p-1\n.",
    "bytes": b"B\xff\xff\xff\x7fabc.",
    "bytes 8": b"\x8e" + (1 << 34).to_bytes(8, "little") + b"abc.",
    "bytearray": b"\x96" + (1 << 34).to_bytes(8, "little") + b"abc.",
    "text": b"X\xff\xff\xff\x7fabc.",
    "text 8": b"\x8d" + (1 << 34).to_bytes(8, "little") + b"abc.",
    "number": b"\x8b\xff\xff\xff\x7fabc.",
    "frame": b"\x95" + (1 << 34).to_bytes(8, "little") + b"}.",
    "hidden behind a frame": b"\x95" + (3).to_bytes(8, "little") + b"}C\x06\x00r\xff\xff\xff\x07.",
    "line that a frame cuts": b"\x95" + (3).to_bytes(8, "little") + b"}p0\n.",
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_claimed_length_takes_no_memory(tmp_path, kind):
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"\x80\x04" + HUGE[kind])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "is damaged or truncated" in refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # in KiB


NESTED = b")" + 60 * b"2\x86"  # tuples of 2**60 leaves


@pytest.mark.parametrize(
    "value",
    [
        NESTED,
        b"c_codecs\nencode\n(Vx\n" + NESTED + b"tR",
        b"cnumpy\ndtype\n" + NESTED + b"\x85R",
        b"cnumpy.core.multiarray\nscalar\n" + NESTED + NESTED + b"\x86R",
        b"cbuiltins\ntuple\n" + NESTED + b"\x85R" + 60 * b"2\x86",
    ],
)
def test_values_are_not_printed(tmp_path, value):
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"\x80\x02}Vw\n" + value + b"s.")
    assert len(refused(path)) < 1000


@pytest.mark.parametrize("function", [b"c_codecs\nencode\n", b"cbuiltins\ntuple\n"])
def test_copies_do_not_fill_the_memory(tmp_path, function):
    text = b"X" + (100_000).to_bytes(4, "little") + bytes(100_000)
    many = text if b"codecs" in function else b"](" + 100_000 * b"N" + b"e"
    arguments = many + b"Vlatin1\n\x86" if b"codecs" in function else many + b"\x85"
    calls = b"h\x00h\x01R" * 10_000
    path = tmp_path / "w.pdparams"
    path.write_bytes(
        b"\x80\x02" + function + b"q\x000" + arguments + b"q\x010}Vw\n](" + calls + b"es."
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_arrays_of_one_row_of_bytes_do_not_fill_the_memory(tmp_path):
    raw = bytes(400_000)
    content = {str(i): array((100_000,), np.dtype(">f4"), raw) for i in range(100)}
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(content, 4))
    assert "far more numbers than the file has" in refused(path)


def test_methods_of_a_table_stay(tmp_path):
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"\x80\x02ccollections\nOrderedDict\n)R}Vitems\nVx\nsbVw\nVx\ns.")
    assert "expected arrays of numbers, but 'w' is a str" in refused(path)
