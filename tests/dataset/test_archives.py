"""The scripts of dataset/ that fetch and unpack: generated archives, and a local server."""

from __future__ import annotations

import hashlib
import importlib
import io
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ppcls.transfer

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "dataset"), str(REPOSITORY / "tests" / "weights")]

from web import Site, served  # noqa: E402

WNIDS = (REPOSITORY / "dataset/imagenet1k_wnids.txt").read_text().split()


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


def tar(files: dict[str, bytes], kind: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def replaced(archive: Any, data: bytes, url: str = "") -> Any:
    """An archive's entry as it would be if its publisher had generated ours."""
    return type(archive)(archive.name, md5(data), url)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


# MAT-files ---------------------------------------------------------------------------------------


def element(kind: int, data: bytes) -> bytes:
    if 0 < len(data) <= 4:
        return struct.pack("<I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind: int, shape: tuple[int, ...], *content: bytes, name: str = "") -> bytes:
    head = element(6, struct.pack("<II", kind, 0)), element(5, struct.pack("<2i", *shape))
    return element(14, b"".join((*head, element(1, name.encode()), *content)))


def numbers(values: list[int], name: str = "") -> bytes:
    """A row of class double, stored in 16 bits as MATLAB does if they fit."""
    data = np.array(values, "<u2").tobytes()
    return matrix(6, (1, len(values)), element(4, data), name=name)


def text(value: str) -> bytes:
    return matrix(4, (1, len(value)), element(16, value.encode()))


def structures(rows: list[dict[str, bytes]], name: str) -> bytes:
    names = b"".join(key.encode().ljust(32, b"\0") for key in rows[0])
    fields = [value for row in rows for value in row.values()]
    sizes = element(5, struct.pack("<i", 32)), element(1, names)
    return matrix(2, (len(rows), 1), *sizes, *fields, name=name)


def mat(*variables: bytes, packed: bool = True) -> bytes:
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    if packed:
        variables = tuple(
            struct.pack("<II", 15, len(z)) + z for z in (zlib.compress(v) for v in variables)
        )
    return header + b"".join(variables)


@pytest.mark.parametrize("packed", [True, False])
def test_mat_files(packed):
    read_mat = script("matfile").read_mat
    pairs = ((7, "n01440764"), (1, "x"))
    rows = [{"id": numbers([number]), "name": text(name)} for number, name in pairs]
    data = mat(numbers([5, 300, 2], "labels"), structures(rows, "synsets"), packed=packed)
    found = read_mat(data, "a.mat")
    assert found["labels"].tolist() == [[5, 300, 2]]
    assert [(s["id"].item(), s["name"]) for s in found["synsets"]] == list(pairs)


def test_mat_files_as_scipy_writes_them():
    scipy_io = pytest.importorskip("scipy.io")
    read_mat = script("matfile").read_mat
    synsets = np.zeros((3, 1), dtype=[("ILSVRC2012_ID", object), ("WNID", object)])
    for i in range(3):
        synsets[i, 0] = (i + 1, f"n0000000{i}")
    labels = np.arange(300, dtype=np.uint16).reshape(2, 150)
    for packed in (False, True):
        buffer = io.BytesIO()
        variables = {"labels": labels, "synsets": synsets, "x": np.array([[0.5, -1.0]])}
        scipy_io.savemat(buffer, variables, do_compression=packed)
        found = read_mat(buffer.getvalue(), "a.mat")
        assert np.array_equal(found["labels"], labels)
        assert found["x"].tolist() == [[0.5, -1.0]]
        assert [s["WNID"] for s in found["synsets"]] == ["n00000000", "n00000001", "n00000002"]
        assert found["synsets"][2]["ILSVRC2012_ID"].item() == 3


@pytest.mark.parametrize("cut", [10, 127, 140, -20])
def test_broken_mat_files_are_refused(cut):
    matfile = script("matfile")
    data = mat(numbers([5, 300, 2], "labels"), packed=False)
    with pytest.raises(matfile.MatError, match=r"^a\.mat: "):
        matfile.read_mat(data[:cut], "a.mat")


# CIFAR: fetching ---------------------------------------------------------------------------------


@pytest.fixture
def cifar(monkeypatch):
    """The script, for a CIFAR-10 of one picture a file, and its archive."""
    module = script("cifar")
    whole = module.CIFARS["cifar10"]
    rng = np.random.default_rng(0)
    records = {
        name: bytes([i]) + rng.integers(0, 256, 3072, np.uint8).tobytes()
        for i, name in enumerate(whole.files)
    }
    names = "".join(f"class{i}\n" for i in range(10)).encode()
    files = {f"cifar-10-batches-bin/{name}": data for name, data in records.items()}
    data = tar({**files, "cifar-10-batches-bin/batches.meta.txt": names}, "gz")
    small = type(whole)(
        replaced(whole.archive, data), whole.folder, whole.dataset, dict.fromkeys(whole.files, 3073)
    )
    monkeypatch.setitem(module.CIFARS, "cifar10", small)
    monkeypatch.setattr(ppcls.transfer, "FIRST_PAUSE", 0.01)
    return module, data


def offered(monkeypatch, module, data: bytes, site: Site) -> None:
    small = module.CIFARS["cifar10"]
    site.files["/cifar-10-binary.tar.gz"] = data
    archive = type(small.archive)(
        small.archive.name, small.archive.md5, f"{site.url}/cifar-10-binary.tar.gz"
    )
    entry = type(small)(archive, small.folder, small.dataset, small.files)
    monkeypatch.setitem(module.CIFARS, "cifar10", entry)


def test_cifar_is_fetched_in_spite_of_breaks_and_read_by_its_data_set(
    cifar, monkeypatch, tmp_path, capsys
):
    from ppcls.registry import DATASETS

    module, data = cifar
    with served(Site(breaks=[1000, 2000])) as site:
        offered(monkeypatch, module, data, site)
        assert module.main(["cifar10", "--output", str(tmp_path / "c")]) == 0
        ranges = [wanted for _, wanted in site.asked]
        assert ranges == [None, "bytes=1000-", "bytes=3000-"]
        assert module.main(["cifar10", "--output", str(tmp_path / "c")]) == 0
        assert len(site.asked) == 3  # what is there is not fetched again
    folder = tmp_path / "c" / "cifar-10-batches-bin"
    out = capsys.readouterr().out
    assert f"{{name: Cifar10, data_file: {folder}, mode: train}}" in out
    dataset = DATASETS.build("Cifar10", {"data_file": str(folder), "mode": "train"})
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4]
    assert dataset.class_names == [f"class{i}" for i in range(10)]


def test_another_file_than_was_meant_is_refused(cifar, monkeypatch, tmp_path, capsys):
    module, data = cifar
    with served(Site()) as site:
        offered(monkeypatch, module, data[:-1] + b"x", site)
        assert module.main(["cifar10", "--output", str(tmp_path / "c")]) == 1
    assert "its MD5 is" in capsys.readouterr().err
    left = {path.name for path in (tmp_path / "c").iterdir()}
    assert not {"cifar-10-binary.tar.gz", "cifar-10-batches-bin"} & left


def test_a_given_archive_is_checked_and_unpacking_goes_on(cifar, tmp_path, capsys):
    module, data = cifar
    given = tmp_path / "cifar-10-binary.tar.gz"
    given.write_bytes(data[:-5])
    command = ["cifar10", "--output", str(tmp_path / "c"), "--archives", str(given)]
    assert module.main(command) == 1
    assert "damaged, cut off or another one" in capsys.readouterr().err
    given.write_bytes(data)
    folder = tmp_path / "c" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "data_batch_1.bin").write_bytes(b"half")
    whole = folder / "data_batch_2.bin"
    whole.write_bytes(bytes(3073))
    assert module.main([*command[:-1], str(tmp_path)]) == 0  # the folder that holds it
    assert (folder / "data_batch_1.bin").read_bytes()[0] == 0
    assert len((folder / "data_batch_1.bin").read_bytes()) == 3073
    assert whole.read_bytes() == bytes(3073)  # of the right size: from an earlier run


def test_archives_cannot_write_elsewhere(cifar, monkeypatch, tmp_path):
    module, _ = cifar
    small = module.CIFARS["cifar10"]
    files = {f"../../{name}": bytes(3073) for name in small.files}
    data = tar({"../evil.txt": b"x", "/evil.txt": b"x", **files}, "gz")
    entry = type(small)(replaced(small.archive, data), small.folder, small.dataset, small.files)
    monkeypatch.setitem(module.CIFARS, "cifar10", entry)
    (tmp_path / "a.tar.gz").write_bytes(data)
    output = tmp_path / "deep" / "c"
    command = ["cifar10", "--output", str(output), "--archives", str(tmp_path / "a.tar.gz")]
    assert module.main(command) == 0
    outside = [p for p in tmp_path.rglob("*") if output not in (p, *p.parents)]
    assert {p.name for p in outside} == {"a.tar.gz", "deep"}


# Flowers-102 -------------------------------------------------------------------------------------


@pytest.fixture
def flowers(monkeypatch, tmp_path):
    """The script and a folder of archives: six photos of three classes."""
    module = script("flowers102")
    pictures = {f"jpg/image_{i:05d}.jpg": bytes([i]) * 50 for i in range(1, 7)}
    files = {
        "PICTURES": tar({**pictures, "jpg/notes.txt": b"x"}, "gz"),
        "LABELS": mat(numbers([3, 1, 2, 2, 1, 3], "labels")),
        "SPLITS": mat(numbers([6, 2, 3], "trnid"), numbers([1], "valid"), numbers([4, 5], "tstid")),
    }
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name, data in files.items():
        archive = getattr(module, name)
        (folder / archive.name).write_bytes(data)
        monkeypatch.setattr(module, name, replaced(archive, data))
    return module, folder


def test_flowers(flowers, tmp_path, capsys):
    module, folder = flowers
    output = tmp_path / "flowers"
    command = ["--archives", str(folder), "--output", str(output)]
    assert module.main(command) == 0
    assert lines(output / "train_list.txt") == [
        "jpg/image_00006.jpg 2",
        "jpg/image_00002.jpg 0",
        "jpg/image_00003.jpg 1",
    ]
    assert lines(output / "val_list.txt") == ["jpg/image_00001.jpg 2"]
    assert lines(output / "test_list.txt") == ["jpg/image_00004.jpg 1", "jpg/image_00005.jpg 0"]
    assert (output / "jpg/image_00004.jpg").read_bytes() == bytes([4]) * 50
    assert len(list((output / "jpg").iterdir())) == 6
    (output / "jpg/image_00004.jpg").unlink()
    capsys.readouterr()
    assert module.main(command) == 0
    out = capsys.readouterr().out
    assert "1 pictures unpacked" in out
    assert "checking" not in out  # once for each file


def test_flowers_without_network_says_what_to_do(flowers, monkeypatch, tmp_path, capsys):
    module, folder = flowers
    shutil.rmtree(folder)
    nowhere = replaced(module.LABELS, b"", "http://127.0.0.1:1/imagelabels.mat")
    monkeypatch.setattr(module, "LABELS", nowhere)
    monkeypatch.setattr(ppcls.transfer, "FIRST_PAUSE", 0.001)
    assert module.main(["--output", str(tmp_path / "flowers")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "cannot download http://127.0.0.1:1/imagelabels.mat" in error
    assert f"put it at {tmp_path}/flowers/imagelabels.mat" in error
    assert not (tmp_path / "flowers").exists()
    assert module.main(["--archives", str(tmp_path / "gone")]) == 1


# ImageNet ----------------------------------------------------------------------------------------


@pytest.fixture
def imagenet(monkeypatch, tmp_path):
    """The script and a folder of archives: a thousand classes of one picture, three in val."""
    module = script("imagenet_archives")
    # ILSVRC's own numbers are in another order: here, backwards. Two nodes are no classes.
    rows = [(1000 - i, wnid, 0) for i, wnid in enumerate(WNIDS)]
    rows += [(1001, "n00001740", 2), (1002, "n00001930", 5)]
    keys = ("ILSVRC2012_ID", "WNID", "num_children")
    synsets = [
        dict(zip(keys, (numbers([number]), text(wnid), numbers([children])), strict=True))
        for number, wnid, children in rows
    ]
    meta = mat(structures(synsets, "synsets"))
    truth = b"1000\n1\n999\n"
    kit = "ILSVRC2012_devkit_t12/data"
    files = {
        "TRAIN": tar({f"{w}.tar": tar({f"{w}_1.JPEG": w.encode()}) for w in WNIDS}),
        "VAL": tar({f"ILSVRC2012_val_{i:08d}.JPEG": bytes([i]) for i in (2, 1, 3)}),
        "DEVKIT": tar(
            {
                f"{kit}/{module.META}": meta,
                f"{kit}/{module.TRUTH}": truth,
            },
            "gz",
        ),
    }
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name, data in files.items():
        archive = getattr(module, name)
        (folder / archive.name).write_bytes(data)
        monkeypatch.setattr(module, name, replaced(archive, data))
    return module, folder


def test_imagenet(imagenet, tmp_path, capsys):
    module, folder = imagenet
    output = tmp_path / "ILSVRC2012"
    assert module.main([str(folder), "--output", str(output)]) == 0
    assert lines(output / "val_list.txt") == [
        "val/n01440764/ILSVRC2012_val_00000001.JPEG 0",
        "val/n01443537/ILSVRC2012_val_00000003.JPEG 1",
        f"val/{WNIDS[999]}/ILSVRC2012_val_00000002.JPEG 999",
    ]
    assert lines(output / "train_list.txt")[7] == f"train/{WNIDS[7]}/{WNIDS[7]}_1.JPEG 7"
    assert (output / f"train/{WNIDS[7]}/{WNIDS[7]}_1.JPEG").read_text() == WNIDS[7]
    assert "1000 classes unpacked, 0 were there" in capsys.readouterr().out


def test_imagenet_goes_on_after_an_interruption(imagenet, monkeypatch, tmp_path, capsys):
    module, folder = imagenet
    output = tmp_path / "ILSVRC2012"
    write, calls = module.unpack, []

    def interrupted(archive, *arguments):
        calls.append(archive)
        if len(calls) == 400:
            raise KeyboardInterrupt
        return write(archive, *arguments)

    monkeypatch.setattr(module, "unpack", interrupted)
    command = [str(folder), "--output", str(output)]
    assert module.main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    whole = {p.name for p in (output / "train").iterdir() if not p.name.startswith(".")}
    assert len(whole) == 399
    assert module.main(command) == 0
    out = capsys.readouterr().out
    assert "601 classes unpacked, 399 were there" in out
    assert "checking" not in out  # the digests of 145 GB are compared once
    assert not [p for p in output.rglob(".*") if p.name != ".checked.json"]
    assert len(lines(output / "train_list.txt")) == 1000


def test_damaged_archives_of_imagenet_are_refused(imagenet, tmp_path, capsys):
    module, folder = imagenet
    output = tmp_path / "ILSVRC2012"
    command = [str(folder), "--output", str(output)]
    path = folder / module.VAL.name
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    assert module.main(command) == 1
    assert f"{path} is not the {module.VAL.name} that was meant" in capsys.readouterr().err
    assert not (output / "train").exists()
    path.unlink()
    assert module.main(command) == 1
    assert f"{path} is missing" in capsys.readouterr().err


# Own photos --------------------------------------------------------------------------------------


def photos(root: Path) -> Path:
    """Two classes of ten photos; 3.png to 6.png of `cat` are the same."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    for i in (4, 5, 6):
        shutil.copy(root / "cat/3.png", root / f"cat/{i}.png")
    return root


def test_photos_get_lists_and_a_configuration(tmp_path, capsys):
    from ppcls import load_config

    module, root = script("photos"), photos(tmp_path / "my photos")
    assert module.main([str(root)]) == 0
    captured = capsys.readouterr()
    assert "4 photos are copies of one another" in captured.out
    assert "class 'cat' has 8 photos to train on" in captured.err
    val = lines(root / "val_list.txt")
    assert [line.split("/")[0] for line in val] == ["cat", "cat", "dog", "dog"]
    copied = {f"cat/{i}.png 0" for i in (3, 4, 5, 6)}
    assert copied <= set(lines(root / "train_list.txt"))
    config = load_config(root / "photos.yaml")
    assert config.Arch.arguments["class_num"] == 2
    dataset = config.DataLoader.Eval.dataset.build(class_num=2, mode="Eval")
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert config.Infer.PostProcess.build().class_names == ["cat", "dog"]
    assert config.Global.output_dir == "output/my photos"


def test_paths_below_the_working_folder_are_short(tmp_path, monkeypatch):
    from ppcls import load_config

    photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    assert script("photos").main(["photos"]) == 0
    config = load_config("photos/photos.yaml")
    dataset = config.DataLoader.Train.dataset.build(class_num=2, mode="Train")
    assert dataset.path(0).startswith("photos/cat/")
    assert config.Infer.PostProcess.arguments["class_id_map_file"] == "photos/label_map.txt"


def test_files_beside_the_photos_are_told(tmp_path, capsys):
    module, root = script("photos"), photos(tmp_path / "photos")
    for name in ("cat/IMG_2.HEIC", "dog/deep/notes.txt", "cat/a.avif", "lost.png", ".hidden"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "cat/deep").mkdir()
    shutil.copy(root / "cat/0.png", root / "cat/deep/0.png")
    shutil.copy(root / "dog/1.png", root / "cat/deep/1.png")
    assert module.main([str(root)]) == 0
    error = capsys.readouterr().err
    assert "3 files are not read, such as IMG_2.HEIC (let the phone export JPEG)" in error
    assert "1 file is not read, such as lost.png (in no folder of a class)" in error
    assert "is in several classes: cat, dog\n" in error
    assert error.count("several classes") == 1


def test_an_interruption_while_libraries_are_loaded(tmp_path):
    """As Ctrl-C would, at the import that takes longest."""
    root = photos(tmp_path / "photos")
    code = (
        "import builtins, sys; real = builtins.__import__\n"
        "def slow(name, *rest):\n"
        "    if name == 'numpy': raise KeyboardInterrupt\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = slow; import photos; sys.exit(photos.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(root)]
    done = subprocess.run(
        command, cwd=REPOSITORY / "dataset", capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "\ninterrupted; the same command goes on\n")


def test_photos_are_drawn_once(tmp_path, capsys):
    module, root = script("photos"), photos(tmp_path / "photos")
    assert module.main([str(root)]) == 0
    before = lines(root / "val_list.txt")
    assert module.main([str(root), "--val", "0.5"]) == 0
    assert "is there and kept" in capsys.readouterr().out
    assert lines(root / "val_list.txt") == before
    assert module.main([str(root), "--val", "0.5", "--from-scratch", "--force"]) == 0
    assert len(lines(root / "val_list.txt")) == 10
    assert "quick_start/photos.yaml" in (root / "photos.yaml").read_text()


def test_photos_that_are_not_there(tmp_path, capsys):
    module = script("photos")
    assert module.main([str(tmp_path / "gone")]) == 1
    (tmp_path / "empty").mkdir()
    assert module.main([str(tmp_path / "empty")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [e.split(":")[0] for e in errors] == ["error", "error"]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("imagenet_archives.py", "ILSVRC2012_devkit_t12.tar.gz"),
        ("cifar.py", "cs.toronto.edu/~kriz"),
        ("flowers102.py", "robots.ox.ac.uk"),
        ("photos.py", "label_map.txt"),
    ],
)
def test_help_of_the_scripts(name, word):
    command = [sys.executable, str(REPOSITORY / "dataset" / name), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert word in done.stdout and "example" in done.stdout
