"""Folders that Hugging Face's library wrote."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ppcls.data.datasets import HuggingFaceDataset
from ppcls.data.loader import DataLoader
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.errors import ArgumentError, DataError, EnvironmentProblem

hub = pytest.importorskip("datasets", reason="needs the package datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    hub.disable_progress_bars()


@pytest.fixture
def pictures(photo, encode) -> list[bytes]:
    return [encode(np.roll(photo, 9 * i, 1), "PNG") for i in range(3)]


@pytest.fixture
def rows(pictures):
    label = hub.ClassLabel(names=["cat", "dog"])
    features = hub.Features({"image": hub.Image(), "label": label, "id": hub.Value("string")})
    images = [{"bytes": data, "path": None} for data in pictures]
    return hub.Dataset.from_dict(
        {"image": images, "label": [0, 1, 1], "id": ["x", "y", "z"]}, features=features
    )


@pytest.fixture
def saved(tmp_path, rows) -> Path:
    hub.DatasetDict({"train": rows, "test": rows.select([2])}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_splits_of_a_saved_folder(saved, pictures, photo):
    train = HuggingFaceDataset(str(saved), class_num=2, mode="Train")
    assert train.labels.tolist() == [0, 1, 1]
    assert train.labels.dtype == np.int64
    assert train.class_names == ["cat", "dog"]
    assert train.source.read(1) == pictures[1]
    assert train.path(1) == f"{saved}/train/1"
    assert train.describe(1) == f"{saved}/train: row 1"
    image, _ = train.sample(2, np.random.default_rng(0))
    np.testing.assert_array_equal(image, np.roll(photo, 18, 1))
    test = HuggingFaceDataset(str(saved), mode="Eval")
    assert test.labels.tolist() == [1]
    assert test.source.read(0) == pictures[2]
    assert HuggingFaceDataset(str(saved), split="test").labels.tolist() == [1]
    with pytest.raises(ArgumentError, match=r"one of the splits 'train', 'test', received 'val'"):
        HuggingFaceDataset(str(saved), split="val")


def test_one_saved_split_and_reader_processes(tmp_path, rows, photo):
    rows.select([2, 0]).save_to_disk(tmp_path / "one")
    data = HuggingFaceDataset(str(tmp_path / "one"), mode="Eval")
    assert data.labels.tolist() == [1, 0]
    sampler = DistributedBatchSampler(batch_size=2, shuffle=False, sample_count=2)
    with DataLoader(data, sampler, seed=0, num_workers=1) as loader:
        (batch,) = loader.epoch(0)
    np.testing.assert_array_equal(batch.images, [np.roll(photo, 18, 1), photo])


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"),
        ("default/train/0000", "default/train/0001", "default/validation/0000"),
    ],
)
def test_parquet_files_as_the_hub_stores_them(tmp_path, rows, pictures, names):
    root = tmp_path / "data"
    for name, part in zip(names, ([0], [1, 2], [1]), strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        rows.select(part).to_parquet(root / f"{name}.parquet")
    train = HuggingFaceDataset(str(root), mode="Train")
    assert train.labels.tolist() == [0, 1, 1]
    assert train.class_names == ["cat", "dog"]
    assert [train.source.read(i) for i in range(3)] == pictures
    assert HuggingFaceDataset(str(root), mode="Eval").labels.tolist() == [1]
    with pytest.raises(ArgumentError, match="received 'test'"):
        HuggingFaceDataset(str(root), split="test")


def test_parquet_files_without_splits_and_binary_columns(tmp_path, pictures):
    plain = hub.Dataset.from_dict({"file": pictures, "class": [4, 2, 0]})
    (tmp_path / "flat").mkdir()
    plain.to_parquet(tmp_path / "flat/pictures.parquet")
    data = HuggingFaceDataset(
        str(tmp_path / "flat"), image_column="file", label_column="class", class_num=5
    )
    assert data.labels.tolist() == [4, 2, 0]
    assert data.class_names is None
    assert data.source.read(2) == pictures[2]
    with pytest.raises(DataError, match=r"below Arch\.class_num 4, received 4"):
        HuggingFaceDataset(
            str(tmp_path / "flat"), image_column="file", label_column="class", class_num=4
        )


def test_wrong_columns_and_folders(tmp_path, saved, rows):
    with pytest.raises(ArgumentError, match="received 'images'; did you mean 'image'"):
        HuggingFaceDataset(str(saved), image_column="images")
    with pytest.raises(ArgumentError, match="expected class indices in 'id'"):
        HuggingFaceDataset(str(saved), label_column="id")
    with pytest.raises(ArgumentError, match="expected pictures in 'id'"):
        HuggingFaceDataset(str(saved), image_column="id")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected a folder of datasets.save_to_disk"):
        HuggingFaceDataset(str(tmp_path / "empty"))
    unlabelled = rows.remove_columns("label").add_column("label", [0, -1, 1])
    unlabelled.save_to_disk(tmp_path / "unlabelled")
    with pytest.raises(DataError, match="row 1: expected a label >= 0, received -1"):
        HuggingFaceDataset(str(tmp_path / "unlabelled"))


def test_without_the_package(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EnvironmentProblem, match="pip install datasets"):
        HuggingFaceDataset(str(saved))
