"""CIFAR from binary files; the layout is that of https://www.cs.toronto.edu/~kriz/cifar.html."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ppcls.data.datasets import Cifar10, Cifar100
from ppcls.data.transforms.decode import DecodeImage
from ppcls.errors import DataError

NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def record(labels: list[int], seed: int) -> bytes:
    """Labels, 1024 bytes of red, of green, of blue, each row by row."""
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 32, 32), np.uint8)
    return bytes(labels) + pixels.tobytes()


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """Two records in each file; record r of batch b has the label (2b + r) % 10."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(1, 6):
        pair = [record([(2 * number + r) % 10], 2 * number + r) for r in range(2)]
        (folder / f"data_batch_{number}.bin").write_bytes(b"".join(pair))
    (folder / "test_batch.bin").write_bytes(record([9], 50) + record([0], 51))
    (folder / "batches.meta.txt").write_text("\n".join([*NAMES10, "", ""]))
    return folder


@pytest.fixture
def cifar100(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "train.bin").write_bytes(record([3, 42], 0) + record([19, 99], 1))
    (folder / "test.bin").write_bytes(record([0, 7], 2))
    (folder / "fine_label_names.txt").write_text("".join(f"fine {n}\n" for n in range(100)))
    (folder / "coarse_label_names.txt").write_text("".join(f"coarse {n}\n" for n in range(20)))
    return folder


def packed(folder: Path) -> Path:
    archive = folder.parent / f"{folder.name}.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        out.add(folder, folder.name)
    return archive


def check10(place: Path) -> None:
    train = Cifar10(str(place), "train", class_num=10)
    assert train.labels.tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert train.labels.dtype == np.int64
    assert train.class_names == NAMES10
    assert train.path(3) == f"{place}/data_batch_2.bin/1"
    assert train.describe(3) == f"{place}/data_batch_2.bin: record 1"
    picture = train.source.read(3)
    planes = np.frombuffer(record([5], 5)[1:], np.uint8).reshape(3, 32, 32)
    assert (picture.shape, picture.dtype) == ((32, 32, 3), np.uint8)
    assert picture[1, 30].tolist() == planes[:, 1, 30].tolist()
    np.testing.assert_array_equal(picture, planes.transpose(1, 2, 0))
    assert Cifar10(str(place), "test").labels.tolist() == [9, 0]


def test_cifar10_from_a_folder_and_from_its_archive(cifar10):
    check10(cifar10)
    check10(packed(cifar10))


def test_a_sample_goes_through_the_transforms(cifar10):
    data = Cifar10(str(cifar10), "test", transform_ops=[DecodeImage(to_rgb=False)])
    image, label = data.sample(0, np.random.default_rng(0))
    np.testing.assert_array_equal(image, data.source.read(0)[:, :, ::-1])
    assert label == 9


def test_cifar100_fine_and_coarse(cifar100):
    for place in (cifar100, packed(cifar100)):
        fine = Cifar100(str(place), "train", class_num=100)
        assert fine.labels.tolist() == [42, 99]
        assert fine.class_names[42] == "fine 42"
        coarse = Cifar100(str(place), "train", coarse=True, class_num=20)
        assert coarse.labels.tolist() == [3, 19]
        assert coarse.class_names[19] == "coarse 19"
        pixels = np.frombuffer(record([19, 99], 1)[2:], np.uint8).reshape(3, 32, 32)
        np.testing.assert_array_equal(fine.source.read(1), pixels.transpose(1, 2, 0))


def test_names_are_not_needed(cifar10):
    (cifar10 / "batches.meta.txt").unlink()
    assert Cifar10(str(cifar10), "test").class_names is None


@pytest.mark.parametrize("archive", [False, True])
def test_pickles_are_refused_unopened(tmp_path, archive):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "opened",)

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"pickles: .*/cifar-10-binary.tar.gz"):
        Cifar10(str(packed(folder) if archive else folder), "train")
    assert not (tmp_path / "opened").exists()


def test_wrong_files_are_named(cifar10):
    batch = cifar10 / "data_batch_4.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    with pytest.raises(
        DataError, match=r"data_batch_4.bin: expected records of 3073 bytes, .*6145"
    ):
        Cifar10(str(cifar10), "train")
    batch.write_bytes(whole[:3073] + b"\x0a" + whole[3074:])
    with pytest.raises(DataError, match=r"data_batch_4.bin: record 1: .* below 10, received 10"):
        Cifar10(str(cifar10), "train")
    batch.unlink()
    with pytest.raises(DataError, match=r"expected a file 'data_batch_4.bin', received none"):
        Cifar10(str(cifar10), "train")
    (cifar10 / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"batches.meta.txt: expected 10 names, received 2"):
        Cifar10(str(cifar10), "test")


def test_wrong_places(cifar10, tmp_path):
    with pytest.raises(DataError, match=r"data_file: expected 'cifar-10-binary.tar.gz'.*none"):
        Cifar10("None", "train")  # as published configurations write it
    with pytest.raises(DataError, match="received another file"):
        Cifar10(str(cifar10 / "test_batch.bin"), "test")
    torn = packed(cifar10)
    torn.write_bytes(torn.read_bytes()[:10_000])
    with pytest.raises(DataError, match="expected a whole archive"):
        Cifar10(str(torn), "train")
    with pytest.raises(DataError, match=r"below Arch\.class_num 9, received 9"):
        Cifar10(str(cifar10), "test", class_num=9)
