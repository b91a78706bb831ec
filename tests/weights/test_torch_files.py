"""PyTorch's files, read without PyTorch."""

from __future__ import annotations

import os
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import paddle
import pytest
from torch_files import (
    Call,
    Changed,
    Global,
    Outside,
    emit,
    pickled,
    storage,
    tensor,
    view,
    write_arrays,
    write_legacy,
    write_zip,
)

import ppcls
from ppcls.errors import WeightsError
from ppcls.weights import find_weights, load_weights, read_weights
from ppcls.weights.read import open_weights

REAL = Path(__file__).parent / "torch"
BASE = np.arange(24, dtype="float32").reshape(4, 6)
NUMBERS = BASE[0].tobytes()  # six numbers


def refused(path):
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# What PyTorch 2.13 wrote (write_torch_files.py) ---------------------------------------------------


@pytest.mark.parametrize("name", ["checkpoint.pth", "legacy.pth"])
def test_a_real_checkpoint_is_read(name):
    found, taken = open_weights(REAL / name)
    expected = {
        "double": np.linspace(0, 1, 5),
        "half": np.float16([1.5, 65504]),
        "bfloat16": np.float32([1, -2.5, 3.140625]),
        **{n: np.array([-3, 0, 7], n) for n in ("int64", "int32", "int16", "int8")},
        "uint16": np.uint16([0, 65535]),
        "uint8": np.uint8([0, 255]),
        "bool": np.array([True, False, True]),
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 3), "float32"),
        "whole": BASE,
        "tied": BASE,
        "turned": BASE.T,
        "part": BASE[1:3, ::2],
        "channels_last": np.arange(16, dtype="float32").reshape(1, 2, 2, 4),
        "parameter": np.float32([4, 5]),
        "noted": np.ones(3, "float32"),
    }
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        np.testing.assert_array_equal(found[key], value, key)
    assert taken == "from 'state_dict', without 'module.'"
    assert np.shares_memory(found["whole"], found["turned"]), "a shared storage is read once"


def test_a_real_state_dict_goes_into_layers():
    layers = paddle.nn.Sequential(paddle.nn.Conv2D(3, 2, 1, bias_attr=False), paddle.nn.ReLU())
    weights = read_weights(REAL / "layers.pt")
    report = load_weights(layers, {"0.weight": weights["0.weight"]})
    assert report.matched == ["0.weight"]
    assert layers[0].weight.numpy().ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert weights["1.running_var"].tolist() == [40, 41]


def test_a_whole_module_is_refused_and_the_message_helps():
    message = refused(REAL / "module.pt")
    assert "torch.nn.modules.container.Sequential" in message
    assert "nothing was executed" in message
    assert "torch.save(net.state_dict(), new_path)" in message


# What this test's own writer wrote ----------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_network_is_loaded_from_either_form(tmp_path, legacy, suffix):
    net = ppcls.create_model("MobileNeXt_x0_1", class_num=3)
    weights = {
        name: np.random.RandomState(i).rand(*value.shape).astype("float32")
        for i, (name, value) in enumerate(net.state_dict().items())
    }
    path = write_arrays(tmp_path / f"net{suffix}", weights, legacy)
    assert find_weights(tmp_path / "net") == path
    report = load_weights(net, tmp_path / "net")
    assert (report.missing, report.unexpected, report.taken) == ([], [], "")
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), weights[name])


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "state_dict", "model"])
def test_a_wrapped_state_dict_is_found(tmp_path, key):
    plain = {"epoch": 3, "args": Changed(Call(Global("argparse", "Namespace"), ()), {"lr": 0.1})}
    content = {**plain, "optimizer": {}, key: {"module.model.a": tensor("0", BASE)}}
    found, taken = open_weights(write_zip(tmp_path / "w.pth", content, {"0": BASE.tobytes()}))
    np.testing.assert_array_equal(found["a"], BASE)
    assert taken == f"from '{key}', without 'module.model.'"


def test_averaged_weights_win_and_empty_ones_do_not(tmp_path):
    def content(average):
        return {"state_dict": {"a": tensor("0", BASE)}, "state_dict_ema": average}

    storages = {"0": BASE.tobytes(), "1": (BASE + 1).tobytes()}
    path = write_zip(tmp_path / "w.pth", content({"a": tensor("1", BASE)}), storages)
    assert read_weights(path)["a"][0, 0] == 1
    for none in (None, {}):
        path = write_zip(tmp_path / "w.pth", content(none), storages)
        assert read_weights(path)["a"][0, 0] == 0


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["module.a", "module.b"], ["a", "b"]),
        (["_orig_mod.module.a"], ["a"]),
        (["module.a", "b"], ["module.a", "b"]),
        (["module."], ["module."]),
        (["model.model.a", "model.model.b"], ["a", "b"]),
    ],
)
def test_a_prefix_that_all_names_have_is_left_out(tmp_path, names, expected):
    path = write_zip(
        tmp_path / "w.pth", {name: tensor("0", BASE) for name in names}, {"0": BASE.tobytes()}
    )
    assert list(read_weights(path)) == expected


def test_the_report_tells_what_was_taken(tmp_path):
    layer = paddle.nn.Linear(6, 4, bias_attr=False)
    content = {"model": {"module.weight": view(storage("0", 24), 0, (6, 4), (1, 6))}}
    path = write_zip(tmp_path / "w.pth", content, {"0": BASE.tobytes()})
    report = load_weights(layer, path)
    assert str(report) == "1 matched (from 'model', without 'module.')"
    np.testing.assert_array_equal(layer.weight.numpy(), BASE.T)


def test_big_endian_numbers_are_turned_around(tmp_path):
    data = BASE.astype(">f4").tobytes()
    path = write_zip(tmp_path / "w.pth", {"a": tensor("0", BASE)}, {"0": data}, b"big")
    found = read_weights(path)["a"]
    assert found.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(found, BASE)


def test_a_file_from_before_the_order_of_bytes_was_written(tmp_path):
    path = write_zip(tmp_path / "w.pth", {"a": tensor("0", BASE)}, {"0": BASE.tobytes()}, None)
    np.testing.assert_array_equal(read_weights(path)["a"], BASE)


@pytest.mark.parametrize(
    ("kind", "data", "value", "dtype"),
    [
        ("BFloat16Storage", b"\x20\xc0", -2.5, "float32"),
        ("BoolStorage", b"\x02", True, "bool"),
        ("HalfStorage", b"\x00\x3e", 1.5, "float16"),
    ],
)
def test_single_numbers_stay_arrays(tmp_path, kind, data, value, dtype):
    content = {"a": view(storage("0", 1, kind), 0, (), ())}
    found = read_weights(write_zip(tmp_path / "w.pth", content, {"0": data}))["a"]
    assert isinstance(found, np.ndarray)
    assert (found.shape, found.dtype, found.item()) == ((), dtype, value)


def test_arrays_are_not_to_be_written_to(tmp_path):
    found = read_weights(write_arrays(tmp_path / "w.pth", {"a": BASE}))
    with pytest.raises(ValueError, match="read-only"):
        found["a"][0, 0] = 1


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["checkpoint.pth", "legacy.pth"])
def test_a_truncated_file_is_refused(tmp_path, name):
    data = (REAL / name).read_bytes()
    path = tmp_path / name
    for length in {1, 2, 3, 15, 16, 100, *range(200, len(data), 97), len(data) - 1}:
        path.write_bytes(data[:length])
        refused(path)
    path.write_bytes(b"")
    assert "0 bytes" in refused(path)


@pytest.mark.parametrize("name", ["checkpoint.pth", "legacy.pth"])
def test_flipped_bits_are_refused_or_harmless(tmp_path, name):
    data = (REAL / name).read_bytes()
    path = tmp_path / name
    refusals = 0
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except WeightsError:
            refusals += 1
    assert refusals > 20


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html>", b'{"message": "not found"}', b"\x1f\x8b\x08" + bytes(40)]
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    message = refused(path)
    assert "is not a PyTorch file" in message
    assert str(content[:5])[2:-1] in message


def test_other_archives_and_pickles_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    np.savez(path.with_suffix(".npz"), a=BASE)
    path.with_suffix(".npz").rename(path)
    assert "none that torch.save has written" in refused(path)
    path.write_bytes(pickled({"a": 1}))
    assert "none that torch.save has written" in refused(path)


def test_a_tar_of_the_first_versions_says_how_to_convert_it(tmp_path):
    path = tmp_path / "w.pth"
    with tarfile.open(path, "w") as archive:
        archive.add(REAL / "layers.pt", "storages")
    assert "torch.save(torch.load(path), new_path)" in refused(path)


def test_a_torchscript_program_says_what_to_do(tmp_path):
    path = write_arrays(tmp_path / "w.pt", {"a": BASE})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", pickled(()))
        archive.writestr("archive/code/net.py", b"")
    message = refused(path)
    assert "TorchScript" in message
    assert "torch.jit.load(path).state_dict()" in message


def test_an_unknown_order_of_bytes_is_refused(tmp_path):
    path = write_zip(tmp_path / "w.pth", {"a": tensor("0", BASE)}, {"0": BASE.tobytes()}, b"middle")
    assert "b'middle', expected little or big" in refused(path)


@pytest.mark.parametrize(
    ("storages", "what"), [({}, "data/0"), ({"0": b"12"}, "expected 96 bytes in storage 0")]
)
def test_a_missing_or_short_storage_is_refused(tmp_path, storages, what):
    assert what in refused(write_zip(tmp_path / "w.pth", {"a": tensor("0", BASE)}, storages))


@pytest.mark.parametrize(
    "storages",
    [
        {},
        {"0": (24, b"")},
        {"0": (23, BASE.tobytes())},
        {"0": (-1, BASE.tobytes())},
        {"1": (24, BASE.tobytes())},
        {"0": (24, BASE.tobytes()), "1": (1, b"1234")},
    ],
)
def test_storages_that_do_not_fit_are_refused(tmp_path, storages):
    refused(write_legacy(tmp_path / "w.pth", {"a": tensor("0", BASE)}, storages))


@pytest.mark.parametrize(
    "content",
    [[tensor("0", BASE)], tensor("0", BASE), None, 3, {}, {"model": {}}, {3: tensor("0", BASE)}],
    ids=str,
)
def test_what_is_no_table_of_names_is_refused(tmp_path, content):
    refused(write_zip(tmp_path / "w.pth", content, {"0": BASE.tobytes()}))


# Malice -------------------------------------------------------------------------------------------

TORCH = "torch._utils"
HOSTILE_VIEWS = {
    "behind the end": (storage("0", 6), 1, (6,), (1,)),
    "before the start": (storage("0", 6), -1, (2,), (1,)),
    "negative stride": (storage("0", 6), 5, (6,), (-1,)),
    "huge stride": (storage("0", 6), 0, (2,), (2**62,)),
    "huge size": (storage("0", 6), 0, (2**62,), (1,)),
    "huge size without a stride": (storage("0", 6), 0, (2**40,), (0,)),
    "size that overflows": (storage("0", 6), 0, (2**32, 2**32), (0, 0)),
    "empty and huge": (storage("0", 6), 0, (0, 2**62, 2**62), (0, 0, 0)),
    "negative size": (storage("0", 6), 0, (-1,), (1,)),
    "size of text": (storage("0", 6), 0, ("6",), (1,)),
    "size of truth": (storage("0", 6), 0, (True,), (1,)),
    "size of fractions": (storage("0", 6), 0, (6.0,), (1,)),
    "no size": (storage("0", 6), 0, None, None),
    "sizes without strides": (storage("0", 6), 0, (2, 3), (1,)),
    "offset of text": (storage("0", 6), "0", (6,), (1,)),
    "too many dimensions": (storage("0", 6), 0, (1,) * 100, (1,) * 100),
    "no storage": ("0", 0, (6,), (1,)),
    "storage of another length": (storage("0", 7), 0, (6,), (1,)),
    "storage of a negative length": (storage("0", -6), 0, (6,), (1,)),
    "storage of huge length": (storage("0", 2**60), 0, (6,), (1,)),
    "storage of another kind": (storage("0", 6, "LongStorage"), 0, (6,), (1,)),
    "storage elsewhere": (storage("../version", 6), 0, (6,), (1,)),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", HOSTILE_VIEWS)
def test_a_view_never_reaches_outside_of_its_storage(tmp_path, kind, legacy):
    content = {"a": view(*HOSTILE_VIEWS[kind])}
    path = tmp_path / "w.pth"
    if legacy:
        write_legacy(path, content, {"0": (6, NUMBERS)})
    else:
        write_zip(path, content, {"0": NUMBERS})
    tracemalloc.start()
    try:
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_row_of_one_may_have_any_stride(tmp_path):
    content = {"a": view(storage("0", 6), 2, (1, 3), (2**62, 1))}
    path = write_zip(tmp_path / "w.pth", content, {"0": NUMBERS})
    assert read_weights(path)["a"].tolist() == [[2, 3, 4]]


def test_one_storage_cannot_stand_for_any_number_of_tensors(tmp_path):
    big = np.zeros(1_000_000, "float32")
    content = {str(i): tensor("0", big) for i in range(100)}
    path = write_zip(tmp_path / "w.pth", content, {"0": big.tobytes()})
    assert "far more numbers than the file has" in refused(path)


def test_a_compressed_entry_is_refused(tmp_path):
    """A few bytes could unpack to any number."""
    path = tmp_path / "w.pth"
    for packed in ("data.pkl", "data/0"):
        entries = {"data.pkl": pickled({"a": tensor("0", BASE)}), "data/0": BASE.tobytes()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                kind = zipfile.ZIP_DEFLATED if name == packed else zipfile.ZIP_STORED
                archive.writestr(f"archive/{name}", data, kind)
        assert f"{packed} is compressed" in refused(path)


TOUCH = "touch '{canary}'"
CALLS = {
    "os.system": lambda c: Call(Global("os", "system"), (f"touch '{c}'",)),
    "posix.system": lambda c: Call(Global("posix", "system"), (f"touch '{c}'",)),
    "builtins.eval": lambda c: Call(Global("builtins", "eval"), (f"open({str(c)!r}, 'w')",)),
    "python 2's eval": lambda c: Call(Global("__builtin__", "eval"), (f"open({str(c)!r}, 'w')",)),
    "torch.load": lambda c: Call(Global("torch", "load"), (str(c),)),
    "rebuilding by another": lambda c: Call(
        Global("torch._tensor", "_rebuild_from_type_v2"),
        (Global("os", "system"), Global("torch", "Tensor"), (f"touch '{c}'",), None),
    ),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["value", "beside", "key", "argument"])
@pytest.mark.parametrize("kind", CALLS)
def test_nothing_is_executed(tmp_path, kind, place, legacy):
    canary = tmp_path / "canary"
    call = CALLS[kind](canary)
    contents = {
        "value": lambda: {"a": call},
        "beside": lambda: {"state_dict": {"a": tensor("0", BASE)}, "args": [1, (call,)]},
        "key": lambda: Changed({"a": tensor("0", BASE)}, call),
        "argument": lambda: {"a": view(call, 0, (1,), (1,))},
    }
    path = tmp_path / "w.pth"
    if legacy:
        write_legacy(path, contents[place](), {"0": (24, BASE.tobytes())})
    else:
        write_zip(path, contents[place](), {"0": BASE.tobytes()})
    message = refused(path)
    assert "nothing was executed: it asks to run '" in message
    assert not canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"a": Outside(("module", "net", "source"))},
        {"a": Outside("storage")},
        {"a": Outside(("storage", "FloatStorage", "0", "cpu", 6))},
        {"a": Outside(("storage", Global("torch", "FloatStorage"), 0, "cpu", 6))},
        {"a": Changed(Global("torch._utils", "_rebuild_tensor_v2"), (None, {"__defaults__": ()}))},
        {"a": Call(Global("torch._tensor", "_rebuild_from_type_v2"), ("text", "x", (), None))},
        {"a": Call(Global("torch", "FloatStorage"), (3,))},
        {"a": Call(Global("collections", "OrderedDict"), (3,))},
        {"a": Global("torch", "FloatStorage")},
        {"a": Global("collections", "OrderedDict")},
    ],
    ids=str,
)
def test_other_ways_out_are_closed(tmp_path, content):
    refused(write_zip(tmp_path / "w.pth", content, {"0": NUMBERS}))


NESTED = b")" + 60 * b"2\x86"  # tuples of 2**60 leaves


@pytest.mark.parametrize("place", ["size", "stride", "offset", "dtype"])
def test_the_description_of_a_view_is_not_printed(tmp_path, place):
    own = {"offset": b"K\x00", "size": b"K\x06\x85", "stride": b"K\x01\x85", "dtype": b"Vf\n"}
    own[place] = NESTED
    call = b"ctorch._utils\n_rebuild_tensor_v3\n(" + emit(storage("0", 6))
    call += own["offset"] + own["size"] + own["stride"] + b"NN" + own["dtype"] + b"tR"
    path = tmp_path / "w.pth"
    write_zip(path, b"\x80\x02}Va\n" + call + b"s.", {"0": NUMBERS})
    assert len(refused(path)) < 1000


@pytest.mark.parametrize("place", range(4))
def test_the_pickles_of_an_old_file_are_not_printed(tmp_path, place):
    path = write_legacy(tmp_path / "w.pth", {"a": tensor("0", BASE)}, {"0": (24, BASE.tobytes())})
    parts = [pickled(1001), pickled({"little_endian": True})]
    parts += [pickled({"a": tensor("0", BASE)}), pickled(["0"])]
    data = path.read_bytes()
    nested = b"\x80\x02" + (b"](" + NESTED + b"e" if place == 3 else NESTED) + b"."
    assert data.count(parts[place]) == 1
    path.write_bytes(data.replace(parts[place], nested))
    if place == 1:
        assert list(read_weights(path)) == ["a"], "the machine does not matter"
    else:
        assert len(refused(path)) < 1000


def test_arrays_beside_tensors_are_read(tmp_path):
    import pickle

    path = write_zip(tmp_path / "w.pth", pickle.dumps({"model": {"a": BASE}}, 2), {})
    np.testing.assert_array_equal(read_weights(path)["a"], BASE)


def test_a_named_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    assert "there is no such file" in refused(tmp_path / "w.pth")
