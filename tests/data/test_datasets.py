"""Folder data sets, and what reading one sample gives."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ppcls.data.datasets import ImageFolder, ImageNetDataset
from ppcls.data.transforms.crop import CropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.normalize import ToCHWImage
from ppcls.errors import ArgumentError, DataError
from ppcls.registry import DATASETS


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_classes_are_the_sorted_folders(tmp_path):
    root = fill(
        tmp_path, "b b/2.PNG", "b b/1.jpg", "ä/deep/er/3.webp", "a/4.jpeg", "a/notes.txt",
        "a/._4.jpeg", ".git/5.jpg", "list.jpg",
    )  # fmt: skip
    data = ImageFolder(str(root), class_num=3)
    assert data.class_names == ["a", "b b", "ä"]
    names = [str(Path(data.path(i)).relative_to(root)) for i in range(len(data))]
    assert names == ["a/4.jpeg", "b b/1.jpg", "b b/2.PNG", "ä/deep/er/3.webp"]
    assert data.labels.tolist() == [0, 1, 1, 2]
    assert data.describe(1) == str(root / "b b/1.jpg")


@pytest.mark.parametrize("kind", [ImageFolder, ImageNetDataset])
def test_train_and_val_share_the_order_of_train(tmp_path, kind):
    root = fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/c/2.jpg")
    assert kind(str(root), mode="Train").labels.tolist() == [0, 1, 2]
    data = kind(str(root), mode="Eval")
    assert data.labels.tolist() == [2]
    assert data.class_names == ["a", "b", "c"]
    assert data.path(0) == str(root / "val/c/2.jpg")
    beside = kind(str(root / "val"), mode="Eval")  # `train` beside the folder that is named
    assert beside.labels.tolist() == [2]


def test_class_of_val_that_train_lacks(tmp_path):
    root = fill(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "val/z/1.jpg")
    with pytest.raises(DataError, match=r"val: expected only classes that .*train' has.*'z'"):
        ImageFolder(str(root), mode="Eval")


@pytest.mark.parametrize(("mode", "other"), [("Train", "val"), ("Eval", "train")])
def test_half_a_split_is_an_error(tmp_path, mode, other):
    root = fill(tmp_path, f"{other}/a/1.jpg")
    with pytest.raises(DataError, match=f"beside '{other}' for mode {mode}"):
        ImageFolder(str(root), mode=mode)


def test_empty_class_folder_is_named(tmp_path):
    root = fill(tmp_path, "a/1.jpg", "empty/readme.txt")
    with pytest.raises(DataError, match=r"\.jpg .* received none in '.*/empty'"):
        ImageFolder(str(root))


def test_no_classes(tmp_path):
    with pytest.raises(DataError, match="one sub-folder per class, received none"):
        ImageFolder(str(fill(tmp_path, "1.jpg")))
    with pytest.raises(DataError, match="image_root: expected a folder"):
        ImageFolder(str(tmp_path / "nowhere"))


def test_more_classes_than_class_num(tmp_path):
    root = fill(tmp_path, "a/1.jpg", "b/1.jpg", "c/1.jpg")
    with pytest.raises(DataError, match=r"at most Arch\.class_num 2 class folders, received 3"):
        ImageFolder(str(root), class_num=2)


def test_links_back_up_do_not_loop(tmp_path):
    root = fill(tmp_path, "a/1.jpg")
    (root / "a/up").symlink_to(root / "a")
    (root / "b").symlink_to(root / "a")
    assert len(ImageFolder(str(root))) == 2


def test_a_link_to_itself_is_a_picture_that_cannot_be_read(tmp_path):
    folder = fill(tmp_path, "cat/1.jpg")
    (folder / "cat/2.jpg").symlink_to("2.jpg")
    (folder / "cat/more").symlink_to("more")
    data = ImageFolder(str(folder))
    assert [Path(data.path(i)).name for i in range(len(data))] == ["1.jpg", "2.jpg"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    folder = fill(tmp_path, "cat/1.jpg")
    real = os.scandir

    def scandir(path):
        if os.fsdecode(path).endswith("cat"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"^[^']*/cat: Permission denied$"):
        ImageFolder(str(folder))


def test_sample_is_reproducible_and_travels_as_bytes(make_dataset):
    data = make_dataset()
    image, label = data.sample(7, np.random.default_rng(3))
    again, _ = data.sample(7, np.random.default_rng(3))
    assert (image.shape, image.dtype, label) == ((32, 32, 3), np.uint8, 2)
    np.testing.assert_array_equal(image, again)


def test_without_transforms_pictures_are_decoded(make_dataset):
    data = make_dataset(transform_ops=None)
    image, _ = data.sample(0, np.random.default_rng(0))
    assert image.shape == (60, 80, 3)
    assert data.pipeline.batch(image[None]).shape == (1, 3, 60, 80)


def test_published_lists_need_no_tochw(make_dataset):
    for extra in ([], [ToCHWImage()]):
        data = make_dataset(transform_ops=[DecodeImage(), CropImage(size=8), *extra])
        image, _ = data.sample(0, np.random.default_rng(0))
        assert data.pipeline.batch(image[None]).shape == (1, 3, 8, 8)
    with pytest.raises(ArgumentError, match="an empty list"):
        make_dataset(transform_ops=[])


@pytest.mark.parametrize(
    ("content", "cause"), [(b"", "empty"), (b"text", "expected a picture"), (None, "No such file")]
)
def test_bad_sample_names_path_line_and_cause(make_dataset, content, cause):
    data = make_dataset()
    path = Path(data.path(4))
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        data.sample(4, np.random.default_rng(0))
    assert str(caught.value).startswith(f"{path} (train_list.txt:5): ")
    assert cause in str(caught.value)


def test_table_is_compact(make_dataset):
    data = make_dataset()
    assert len(pickle.dumps(data.source)) < 23 * 60 + 1000
    assert not any(isinstance(value, list) for value in vars(data.source).values())


@pytest.mark.parametrize(
    "arguments", [{"on_error": "ignore"}, {"max_bad_ratio": 1.5}, {"max_bad_ratio": -0.1}]
)
def test_policy_is_checked(make_dataset, arguments):
    with pytest.raises(ArgumentError) as caught:
        make_dataset(**arguments)
    assert caught.value.argument in arguments


def test_relabel_needs_a_list(tmp_path):
    with pytest.raises(ArgumentError) as caught:
        ImageNetDataset(str(fill(tmp_path, "a/1.jpg")), relabel=True)
    assert caught.value.argument == "relabel"


def test_names_and_context():
    assert DATASETS.entry("ClsDataset").builder is ImageNetDataset
    for name in ("ImageNetDataset", "ImageFolder"):
        assert DATASETS.entry(name).context() == {"class_num", "mode"}
