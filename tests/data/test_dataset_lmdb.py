"""Pictures in an LMDB database."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ppcls.data.datasets import LMDBDataset
from ppcls.data.loader import DataLoader
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.errors import DataError, EnvironmentProblem

lmdb = pytest.importorskip("lmdb", reason="needs the package lmdb")

LIST = b"n1/a.jpg 0\nn1/b c.jpg 1\nn2/c.jpg 1\n"


@pytest.fixture
def pictures(photo, encode) -> dict[bytes, bytes]:
    names = (b"n1/a.jpg", b"n1/b c.jpg", b"n2/c.jpg")
    return {n: encode(np.roll(photo, 9 * i, 1), "PNG") for i, n in enumerate(names)}


def write(path: Path, values: dict[bytes, bytes], subdir: bool = True) -> Path:
    with (
        lmdb.open(str(path), map_size=1 << 24, subdir=subdir) as database,
        database.begin(write=True) as out,
    ):
        for key, value in values.items():
            out.put(key, value)
    return path


@pytest.fixture
def database(tmp_path, pictures) -> Path:
    return write(tmp_path / "train.lmdb", {**pictures, b"__list__": LIST})


def test_the_list_stands_in_the_database(database, pictures, photo):
    data = LMDBDataset(str(database), class_num=2)
    assert data.labels.tolist() == [0, 1, 1]
    assert data.source.read(1) == pictures[b"n1/b c.jpg"]
    assert data.path(1) == f"{database}/n1/b c.jpg"
    assert data.describe(1) == f"{database}/n1/b c.jpg (__list__:2)"
    image, label = data.sample(2, np.random.default_rng(0))
    np.testing.assert_array_equal(image, np.roll(photo, 18, 1))
    assert label == 1


@pytest.mark.parametrize("subdir", [True, False])
def test_the_list_is_a_file(tmp_path, pictures, subdir):
    place = write(tmp_path / "pictures.lmdb", pictures, subdir)
    (tmp_path / "some.txt").write_bytes(b"n2/c.jpg;70\n\nn1/a.jpg;10\n")
    arguments = {"cls_label_path": str(tmp_path / "some.txt"), "delimiter": ";", "relabel": True}
    data = LMDBDataset(str(place), **arguments, class_num=2)
    assert data.labels.tolist() == [1, 0]
    assert data.source.read(1) == pictures[b"n1/a.jpg"]
    assert data.describe(1) == f"{place}/n1/a.jpg (some.txt:3)"


def test_two_data_sets_and_reader_processes_share_a_database(database, pictures, photo):
    first, second = (LMDBDataset(str(database), class_num=2) for _ in range(2))
    # It is open in this process when the readers are forked.
    assert first.source.read(0) == second.source.read(0) == pictures[b"n1/a.jpg"]
    sampler = DistributedBatchSampler(batch_size=2, shuffle=False, sample_count=3)
    with DataLoader(second, sampler, seed=0, num_workers=2) as loader:
        images = np.concatenate([batch.images for batch in loader.epoch(0)])
    np.testing.assert_array_equal(images, [np.roll(photo, 9 * i, 1) for i in range(3)])
    assert first.source.read(2) == pictures[b"n2/c.jpg"]


def test_problems_are_named(database, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"n1/a.jpg 0\nnone.jpg 0\nn2/c.jpg 5\nn2/c.jpg\n" + b"x" * 600 + b" 1\n")
    with pytest.raises(DataError) as caught:
        LMDBDataset(str(database), str(path), class_num=2)
    shown = str(caught.value).splitlines()
    assert shown[0] == f"{path}:2: expected the key b'none.jpg' in '{database}', received none"
    assert shown[1].startswith(
        f"{path}:3: expected a label >= 0 and below Arch.class_num 2, received 5"
    )
    assert shown[2].startswith(f"{path}:4: expected '<path> <label>'")
    assert shown[3].startswith(f"{path}:5: expected the key")
    path.write_bytes(b"\n")
    with pytest.raises(DataError, match="an empty list"):
        LMDBDataset(str(database), str(path))


def test_wrong_databases(tmp_path, pictures):
    with pytest.raises(DataError, match=r"lmdb_path: expected an LMDB database at .*nowhere"):
        LMDBDataset(str(tmp_path / "nowhere"))
    (tmp_path / "text").write_bytes(b"text" * 5000)
    with pytest.raises(DataError, match="lmdb_path: expected an LMDB database"):
        LMDBDataset(str(tmp_path / "text"))
    with pytest.raises(DataError, match=r"key '__list__' .* or cls_label_path, received neither"):
        LMDBDataset(str(write(tmp_path / "bare.lmdb", pictures)))
    with pytest.raises(DataError, match="layout of pickles"):
        LMDBDataset(str(write(tmp_path / "pickled.lmdb", {b"__len__": b"\x80\x04K\x03."})))


def test_a_bad_value_names_its_key(tmp_path, pictures):
    place = write(tmp_path / "t.lmdb", {b"a": b"text", b"__list__": b"a 0\n"})
    with pytest.raises(DataError, match=r"t.lmdb/a \(__list__:1\): expected a picture"):
        LMDBDataset(str(place)).sample(0, np.random.default_rng(0))


def test_without_the_package(database, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(EnvironmentProblem, match="pip install lmdb"):
        LMDBDataset(str(database))
