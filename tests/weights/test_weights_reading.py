"""Weights files that are as they should be, and files that are damaged."""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc

import numpy as np
import paddle
import pytest
import safetensors.numpy

from ppcls.errors import WeightsError
from ppcls.weights import read_weights
from ppcls.weights.read import NAME_TABLE, read_container

rng = np.random.RandomState(0)
ARRAYS = {
    "conv.weight": rng.randn(4, 3, 3, 3).astype("float32"),
    "norm._mean": rng.randn(4).astype("float32"),
    "half": rng.randn(5).astype("float16"),
    "double": rng.randn(2, 2),
    "count": np.arange(3, dtype="int64"),
    "scalar": np.array(2.5, "float32"),
    "ünïcode": np.ones(1, "float32"),
}


def same(found, expected=ARRAYS):
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)


def test_what_paddle_saves_is_read(tmp_path):
    path = tmp_path / "model.pdparams"
    paddle.save({name: paddle.to_tensor(value) for name, value in ARRAYS.items()}, str(path))
    same(read_weights(path))
    same(read_weights(str(path)))


def test_what_a_layer_saves_is_read(tmp_path):
    layer = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
    path = tmp_path / "model.pdparams"
    paddle.save(layer.state_dict(), str(path))
    assert NAME_TABLE.encode() in path.read_bytes()
    same(read_weights(path), {name: value.numpy() for name, value in layer.state_dict().items()})


def test_safetensors_are_read_equally(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(ARRAYS, path)
    same(read_weights(path))


def test_what_paddle_saves_as_safetensors_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {name: paddle.to_tensor(value) for name, value in ARRAYS.items()}
    try:
        paddle.save(tensors, str(path), safetensors=True)
    except ValueError:
        pytest.skip("this Paddle (before 3.3) does not write safetensors")
    same(read_weights(path))


def test_bfloat16_becomes_float32(tmp_path):
    expected = {"a": np.float32([1, -2.5, 3.140625]), "b": np.array(0.5, "float32")}
    tensors = {name: paddle.to_tensor(v).astype("bfloat16") for name, v in expected.items()}
    paddle.save(tensors, str(tmp_path / "w.pdparams"))
    same(read_weights(tmp_path / "w.pdparams"), expected)
    header = {
        "a": {"dtype": "BF16", "shape": [3], "data_offsets": [4, 10]},
        "b": {"dtype": "BF16", "shape": [], "data_offsets": [2, 4]},
        "c": {"dtype": "U16", "shape": [1], "data_offsets": [0, 2]},
    }
    text = json.dumps(header).encode()
    data = struct.pack("<5H", 7, 0x3F00, 0x3F80, 0xC020, 0x4049)
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    same(read_weights(path), {**expected, "c": np.uint16([7])})


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_published_files_of_any_age_are_read(tmp_path, protocol, module):
    """Tables of names, (name, array) pairs, and the module names of numpy 1 and 2."""
    table = {name: f"parameter_{i}" for i, name in enumerate(ARRAYS)}
    content = {name: (table[name], value) for name, value in ARRAYS.items()}
    data = pickle.dumps({**content, NAME_TABLE: table}, protocol)
    own = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    old, new = own.encode() + b".", module.encode() + b"."
    if protocol >= 4:  # there the length stands before the text
        for tail in (b"multiarray", b"numeric"):
            data = data.replace(
                b"\x8c" + bytes([len(old + tail)]) + old + tail,
                b"\x8c" + bytes([len(new + tail)]) + new + tail,
            )
        if len(new) != len(old):  # the frames' lengths no longer fit: leave them out
            data = without_frames(data)
    else:
        data = data.replace(b"c" + old, b"c" + new)
    assert new in data
    path = tmp_path / "published.pdparams"
    path.write_bytes(data)
    same(read_weights(path))


def without_frames(data: bytes) -> bytes:
    start = data.index(b"\x95")
    assert struct.unpack("<Q", data[start + 1 : start + 9])[0] > 0
    assert start == 2
    return data[:start] + data[start + 9 :]


def test_numbers_beside_the_arrays_of_an_ordered_table_are_read(tmp_path):
    import collections

    path = tmp_path / "model.pdparams"
    path.write_bytes(pickle.dumps(collections.OrderedDict(ARRAYS), 4))
    same(read_weights(path))


KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u4", "u8", "b1", ">f4", ">i2")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_of_every_kind_and_form_are_read(tmp_path, protocol):
    content = {kind: (np.arange(6) % 4).astype(kind).reshape(2, 3) for kind in KINDS}
    content |= {f"{kind} turned": np.asfortranarray(a) for kind, a in content.items()}
    content |= {
        "none": np.empty((0, 3), "f4"),
        "one": np.array(7, ">i4"),
        "axes": np.ones((1,) * 9),
    }
    content |= {"tied": content["f4"], "part": content["f8"][:, ::2]}
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(content, protocol))
    found = read_weights(path)
    same(found, {n: a.astype(a.dtype.newbyteorder("=")) for n, a in content.items()})
    assert all(a.dtype.isnative and type(a) is np.ndarray for a in found.values())
    assert found["f4"] is found["tied"]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_are_found_at_any_depth(tmp_path, protocol):
    import collections

    array, number = np.arange(3), np.float32(0.5)
    inner = collections.OrderedDict(a=array, b=[array, {"c": (1, (array, number))}])
    path = tmp_path / "w.pdopt"
    path.write_bytes(pickle.dumps([inner, ("name", array)], protocol))
    table, named = read_container(path)
    assert table["b"][1]["c"][1][1] == 0.5
    for found in (table["a"], table["b"][0], table["b"][1]["c"][1][0], named[1]):
        assert found is table["a"]
    np.testing.assert_array_equal(table["a"], array)


def test_containers_that_hold_themselves_are_read(tmp_path):
    loop = [np.ones(2)]
    loop.append((loop, {"a": loop}))
    path = tmp_path / "w.pdopt"
    path.write_bytes(pickle.dumps(loop, 4))
    found = read_container(path)
    assert found[1][0] is found
    assert found[0].tolist() == [1, 1]


def test_large_arrays_are_not_copied(tmp_path):
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps({"a": np.ones(5_000_000, "f4")}, 4))
    tracemalloc.start()
    try:
        assert read_weights(path)["a"].sum() == 5_000_000
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


# Damage ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[".pdparams", ".safetensors"])
def whole(request):
    """A suffix and the bytes of a right file."""
    if request.param == ".pdparams":
        return request.param, pickle.dumps({**ARRAYS, NAME_TABLE: {"half": "x"}}, 4)
    return request.param, safetensors.numpy.save(ARRAYS)


def refused(path):
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_truncated_file_is_refused(tmp_path, whole):
    suffix, data = whole
    path = tmp_path / f"model{suffix}"
    lengths = {1, 2, 3, 7, 8, 9, 16, *range(20, len(data), len(data) // 20), len(data) - 1}
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        refused(path)


def test_an_empty_file_is_refused(tmp_path, whole):
    path = tmp_path / f"model{whole[0]}"
    path.write_bytes(b"")
    assert "0 bytes" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b"\n<html>",
        b'{"message": "rate limit"}',
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        b"PK\x03\x04" + bytes(40),
        b"\x1f\x8b\x08" + bytes(40),
        bytes(64),
        b"\xff" * 64,
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, whole, content):
    path = tmp_path / f"model{whole[0]}"
    path.write_bytes(content)
    message = refused(path)
    assert f"is not a {whole[0].removeprefix('.') if whole[0] == '.safetensors' else whole[0]}" in (
        message
    )
    assert str(content[:5])[2:-1] in message, "the message shows how the file starts"


def test_a_pytorch_file_under_paddles_suffix_is_told(tmp_path):
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"PK\x03\x04" + bytes(40))
    assert "as PyTorch's files do: give it the ending .pth" in refused(path)


def test_a_file_under_the_other_suffix_is_refused(tmp_path, whole):
    other = {".pdparams": ".safetensors", ".safetensors": ".pdparams"}[whole[0]]
    path = tmp_path / f"model{other}"
    path.write_bytes(whole[1])
    refused(path)


def test_a_flipped_bit_in_the_header_is_refused_or_harmless(tmp_path, whole):
    suffix, data = whole
    path = tmp_path / f"model{suffix}"
    refusals = 0
    for position in range(64):
        for bit in (1, 16, 128):
            damaged = bytearray(data)
            damaged[position] ^= bit
            path.write_bytes(damaged)
            try:
                read_weights(path)
            except WeightsError as error:
                refusals += 1
                assert str(error).startswith(f"{path}: ")
    assert refusals > 40
    damaged = bytearray(data)
    damaged[0] ^= 1
    path.write_bytes(damaged)
    refused(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "there is no such file" in refused(tmp_path / "none.pdparams")
    (tmp_path / "folder.pdparams").mkdir()
    refused(tmp_path / "folder.pdparams")


@pytest.mark.parametrize("name", ["model.npz", "model", "model.pkl", "model.pdparams.txt"])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(ARRAYS, 4))
    assert ".safetensors" in refused(path)
