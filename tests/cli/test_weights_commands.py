"""``ppcls weights``: inspect, convert, diff, average."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
import support
from safetensors.numpy import load_file, save_file

import ppcls
from ppcls.weights import read_weights

SMALL = {
    "layer.weight": np.arange(6, dtype="float32").reshape(2, 3),
    "layer.bias": np.float32([-1, 1]),
    "steps": np.int64([7]),
    "scalar": np.array(2.5, "float32"),
}


@pytest.fixture
def small(tmp_path):
    """Four tensors in a file."""
    save_file(SMALL, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def changed(path, **entries):
    """A copy of the small file with other entries; None leaves one out."""
    weights = {**SMALL, **{name.replace("__", "."): value for name, value in entries.items()}}
    arrays = {name: np.array(value) for name, value in weights.items() if value is not None}
    save_file(arrays, path)
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network of three classes, and a file with its weights by timm's names and layouts."""
    net = ppcls.create_model("MobileNetV2_x0_35", class_num=3)
    [naming] = [n for n in net.namings() if n.library == "timm"]
    weights = {naming.rename(name): v.numpy() for name, v in net.state_dict().items()}
    weights = {n: np.ascontiguousarray(v.T if v.ndim == 2 else v) for n, v in weights.items()}
    path = tmp_path_factory.mktemp("timm") / "timm.safetensors"
    save_file(weights, path)
    return net, path


def lines(done):
    assert (done.code, done.err) == (0, "")
    return done.out.splitlines()


@pytest.mark.parametrize("action", ["inspect", "convert", "diff", "average"])
def test_help_has_an_example(cli, action):
    done = cli("weights", action, "--help")
    assert done.code == 0
    assert f"example: ppcls weights {action} " in " ".join(done.out.split())


# inspect ------------------------------------------------------------------------------------------


def test_inspect_prints_a_table(cli, small):
    first, empty, head, *rows, _, total = lines(cli("weights", "inspect", small))
    assert (first, empty) == (str(small), "")
    assert head.split() == ["name", "shape", "dtype", "min", "max", "mean"]
    cells = {row.split()[0]: row.replace(", ", ",").split()[1:] for row in rows}
    assert cells["layer.weight"] == ["[2,3]", "float32", "0", "5", "2.5"]
    assert cells["layer.bias"] == ["[2]", "float32", "-1", "1", "0"]
    assert cells["scalar"] == ["[]", "float32", "2.5", "2.5", "2.5"]
    assert total == "4 tensors, 10 numbers: 9 float32, 1 int64"


def test_inspect_prints_names_only(cli, small):
    assert sorted(lines(cli("weights", "inspect", small, "--names"))) == sorted(SMALL)


def test_inspect_tells_numbers_that_are_not_finite(cli, tmp_path):
    path = changed(tmp_path / "lost.safetensors", layer__bias=np.float32([np.nan, 1]))
    assert lines(cli("weights", "inspect", path))[-1].endswith("; NOT FINITE: layer.bias")


def test_inspect_reads_pytorchs_files(cli):
    path = support.ROOT / "tests/weights/torch/checkpoint.pth"
    found = lines(cli("weights", "inspect", path))
    assert found[0] == f"{path} (from 'state_dict', without 'module.')"
    assert found[-1].startswith("19 tensors, ")


def test_inspect_tells_how_a_network_loads_it(cli, network, small):
    _, path = network
    total = len(read_weights(path))
    last = lines(cli("weights", "inspect", path, "--model", "MobileNetV2_x0_35"))[-1]
    assert last == f"MobileNetV2_x0_35 loads it: {total} matched by the names of timm"
    done = cli("weights", "inspect", small, "--model", "MobileNetV2_x0_35")
    assert done.code == 1
    assert f"MobileNetV2_x0_35 does not load it: {small}: holds weights of another" in done.out


def test_inspect_holds_a_checkpoint_against_its_manifest(cli, checkpoint):
    assert cli("weights", "inspect", checkpoint, "--model", support.NET).code == 0
    support.flip_bit(checkpoint / "model.pdparams")
    done = cli("weights", "inspect", checkpoint)
    assert done.code == 1
    assert "is damaged" in done.err


@pytest.mark.parametrize("action", ["inspect", "names", "diff", "other"])
def test_names_do_not_steer_the_terminal(cli, small, tmp_path, action):
    path = tmp_path / "steering.safetensors"
    save_file({"w\x1b[31m\n\x07": np.float32([np.nan]), "größe": np.zeros(2)}, path)
    arguments = {
        "inspect": ["inspect", path],
        "names": ["inspect", path, "--names"],
        "diff": ["diff", path, small],
        "other": ["diff", small, path],
    }
    done = cli("weights", *arguments[action])
    assert r"'w\x1b[31m\n\x07'" in done.out
    assert "größe" in done.out
    assert "\x1b" not in done.out


# convert ------------------------------------------------------------------------------------------


def test_convert_keeps_names_and_numbers(cli, small, tmp_path):
    out = tmp_path / "new" / "folder" / "small.pdparams"
    last = lines(cli("weights", "convert", small, out))[-1]
    assert last == f"{out}: 4 tensors, 10 numbers: 9 float32, 1 int64"
    back = tmp_path / "back.safetensors"
    cli("weights", "convert", out, back)
    for name, value in load_file(back).items():
        assert (value.dtype, value.shape) == (SMALL[name].dtype, SMALL[name].shape)
        np.testing.assert_array_equal(value, SMALL[name])
    assert sorted(path.name for path in out.parent.iterdir()) == ["small.pdparams"]


def test_paddle_reads_what_convert_writes(cli, network, tmp_path):
    net, path = network
    out = tmp_path / "net.pdparams"
    done = cli("weights", "convert", path, out, "--model", "MobileNetV2_x0_35")
    assert "matched by the names of timm" in lines(done)[-1]
    state = paddle.load(str(out))
    assert sorted(state) == sorted(net.state_dict())
    other = ppcls.create_model("MobileNetV2_x0_35", class_num=3)
    other.set_state_dict(state)
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), net.state_dict()[name].numpy())


def test_convert_by_a_networks_names_to_safetensors(cli, network, tmp_path):
    net, path = network
    out = tmp_path / "net.safetensors"
    lines(cli("weights", "convert", path, out, "--model", "MobileNetV2_x0_35"))
    assert {n: list(v.shape) for n, v in load_file(out).items()} == {
        n: list(v.shape) for n, v in net.state_dict().items()
    }


def test_convert_tells_the_settings_that_go_with_weights(cli, tmp_path):
    net = ppcls.create_model("MobileNetV3_small_x0_5_paper", class_num=2)
    [naming] = [n for n in net.namings() if n.library == "timm"]
    weights = {naming.rename(name): v.numpy() for name, v in net.state_dict().items()}
    weights = {n: np.ascontiguousarray(v.T if v.ndim == 2 else v) for n, v in weights.items()}
    save_file(weights, tmp_path / "timm.safetensors")
    out = tmp_path / "net.pdparams"
    model = ["--model", "MobileNetV3_small_x0_5_paper"]
    done = cli("weights", "convert", tmp_path / "timm.safetensors", out, *model)
    assert lines(done)[-1].endswith("; these weights go with epsilon=1e-05")


def test_convert_writes_pytorchs_types(cli, tmp_path):
    source = support.ROOT / "tests/weights/torch/checkpoint.pth"
    expected = read_weights(source)
    for suffix in ("pdparams", "safetensors"):
        out = tmp_path / f"w.{suffix}"
        assert cli("weights", "convert", source, out).code == 0
        for name, value in read_weights(out).items():
            assert value.shape == expected[name].shape, name
            np.testing.assert_array_equal(value, expected[name], name)


def test_convert_leaves_an_older_file_if_it_fails(cli, small, tmp_path):
    out = tmp_path / "out.pdparams"
    out.write_bytes(b"older")
    done = cli("weights", "convert", small, out, "--model", "MobileNetV2")
    assert done.code == 1
    assert out.read_bytes() == b"older"


# diff ---------------------------------------------------------------------------------------------


def test_diff_of_the_same_is_zero(cli, small, tmp_path):
    cli("weights", "convert", small, tmp_path / "b.pdparams")
    assert lines(cli("weights", "diff", small, tmp_path / "b.pdparams")) == [
        "4 of 4 tensors are the same"
    ]


def test_diff_prints_what_differs(cli, small, tmp_path):
    other = changed(
        tmp_path / "b.safetensors",
        layer__weight=np.zeros((3, 2), "float32"),
        layer__bias=np.float32([-1, 1.25]),
        steps=None,
        scalar=np.float64(2.5),
        extra=np.zeros(1),
    )
    done = cli("weights", "diff", small, other)
    assert done.code == 1
    *differences, total = done.out.splitlines()
    assert sorted(differences) == [
        "layer.bias: largest absolute difference 0.25",
        "layer.weight: shape [2, 3] and [3, 2]",
        f"only in {other}: extra",
        f"only in {small}: steps",
        "scalar: float32 and float64, equal values",
    ]
    assert total == "0 of 5 tensors are the same"


def test_diff_takes_nothing_for_a_number_as_itself(cli, tmp_path):
    lost = {"layer__bias": np.float32([np.nan, np.inf])}
    one, same = (changed(tmp_path / f"{n}.safetensors", **lost) for n in "ab")
    assert cli("weights", "diff", one, same).code == 0
    other = changed(tmp_path / "c.safetensors", layer__bias=np.float32([0, np.inf]))
    done = cli("weights", "diff", one, other)
    assert done.code == 1
    assert "layer.bias: largest absolute difference nan" in done.out


# average ------------------------------------------------------------------------------------------


def test_average_is_the_mean(cli, small, tmp_path):
    bias, steps = np.float32([2, 5]), np.int64([9])
    other = changed(tmp_path / "b.safetensors", layer__bias=bias, steps=steps)
    out = tmp_path / "mean.safetensors"
    last = lines(cli("weights", "average", out, small, other, other))[-1]
    assert last.startswith(f"{out}: the mean of 3 files, 4 tensors")
    found = load_file(out)
    np.testing.assert_array_equal(found["layer.bias"], np.float32([1, 11 / 3]))
    assert found["layer.bias"].dtype == np.float32
    assert found["steps"].tolist() == [9], "integers are those of the last file"
    assert found["scalar"] == np.float32(2.5)


def test_average_does_not_lose_small_numbers(cli, tmp_path):
    """In float32 a sum with 1e8 forgets 1; in float64 it does not."""
    values = [1e8, 1, -1e8]
    paths = [
        changed(tmp_path / f"{i}.safetensors", scalar=np.float32(v)) for i, v in enumerate(values)
    ]
    cli("weights", "average", tmp_path / "mean.pdparams", *paths)
    assert read_weights(tmp_path / "mean.pdparams")["scalar"] == pytest.approx(1 / 3)


def test_average_of_bfloat16_is_of_numbers_and_not_of_bits(cli, tmp_path):
    for i, value in enumerate((1.0, -3.0)):
        tensor = paddle.to_tensor([value]).astype("bfloat16")
        paddle.save({"a": tensor}, str(tmp_path / f"{i}.pdparams"))
    out = tmp_path / "mean.pdparams"
    lines(cli("weights", "average", out, tmp_path / "0.pdparams", tmp_path / "1.pdparams"))
    assert read_weights(out)["a"].tolist() == [-1]


def test_average_takes_checkpoints(cli, trained, tmp_path):
    out = tmp_path / "mean.pdparams"
    lines(cli("weights", "average", out, trained / "epoch_1", trained / "epoch_3"))
    net = ppcls.create_model(support.NET, class_num=3, pretrained=out)
    one, other = (support.weights(trained / f"epoch_{n}") for n in (1, 3))
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(value.numpy(), (one[name] + other[name]) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"steps": None}, "lacks 'steps', which"),
        ({"extra": np.zeros(1)}, "lacks 'extra', which"),
        ({"steps": np.int64([1, 2])}, "the shape of 'steps' is [2], and [1] in"),
        ({"steps": np.float32([1])}, "the type of 'steps' is float32, and int64 in"),
    ],
)
def test_average_wants_the_same_names_and_shapes(cli, small, tmp_path, entries, what):
    other = changed(tmp_path / "b.safetensors", **entries)
    done = cli("weights", "average", tmp_path / "mean.pdparams", small, other)
    assert done.code == 1
    assert what in done.err
    assert not (tmp_path / "mean.pdparams").exists()


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["inspect", "/nowhere"], 1, "/nowhere: no weights there; looked for"),
        (["inspect", "{small}", "--model", "MobileNextV2"], 2, "did you mean 'MobileNetV2'?"),
        (["convert", "{small}", "out.pth"], 2, "out.pth: expected a file to write that ends in"),
        (["convert", "{small}", "/dev/null/out.pdparams"], 1, "cannot write /dev/null/out"),
        (["average", "out.pdparams", "{small}"], 2, "expected at least two files"),
        (["average", "{small}", "{small}", "{small}"], 2, "there already: OUT comes first"),
        (["average", "out", "{small}", "{small}"], 2, "out: expected a file to write"),
        (["diff", "{small}", "/nowhere"], 1, "/nowhere: no weights there"),
        (["diff", "{small}"], 2, "the following arguments are required"),
        (["merge"], 2, "invalid choice: 'merge'"),
        ([], 2, "the following arguments are required"),
    ],
)
def test_a_mistake_is_told_in_one_line(cli, small, arguments, code, what):
    done = cli("weights", *(argument.format(small=small) for argument in arguments))
    assert done.code == code
    assert what in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
