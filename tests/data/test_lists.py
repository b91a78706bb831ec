"""Making list files from class folders."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter

import pytest

from ppcls.data.datasets.folders import read_folders
from ppcls.data.datasets.listfile import read_list
from ppcls.data.lists import LABEL_MAP, make_lists, write_lists
from ppcls.data.postprocess import read_class_names
from ppcls.errors import ArgumentError, DataError

COUNTS = {"ant": 40, "big cat": 11, "dog": 1, "élan": 3}  # in the order of their code points


@pytest.fixture
def root(tmp_path):
    """Class folders with empty files: their bytes do not matter here."""
    folder = tmp_path / "photos"
    for name, count in COUNTS.items():
        (folder / name / "deep").mkdir(parents=True)
        for number in range(count):
            place = "deep/" if number % 2 else ""
            (folder / name / f"{place}photo {number:02} a.jpg").touch()
    return folder


def counts(lists, split):
    numbers = Counter(entry.label for entry in lists.splits[split])
    return [numbers[label] for label in range(len(COUNTS))]


def paths(lists, split):
    return {entry.path for entry in lists.splits[split]}


def test_each_class_is_split_alike_and_nothing_is_lost(root):
    lists = make_lists(root, val=0.25, test=0.1)
    assert counts(lists, "val") == [10, 3, 0, 1]
    assert counts(lists, "test") == [4, 1, 0, 1]
    assert counts(lists, "train") == [26, 7, 1, 1]
    everything = [path for split in lists.splits for path in paths(lists, split)]
    assert sorted(everything) == sorted(str(p.relative_to(root)) for p in root.rglob("*.jpg"))


def test_written_lists_are_what_training_reads(root):
    lists = make_lists(root)
    files = write_lists(lists, root)
    assert [file.name for file in files] == ["train_list.txt", "val_list.txt", LABEL_MAP]
    folders = read_folders(str(root), "Train")
    label_of = {folders.path(row): label for row, label in enumerate(folders.labels)}
    for file in files[:2]:
        table = read_list(str(root), str(file))
        assert {table.path(row): label for row, label in enumerate(table.labels)}.items() <= (
            label_of.items()
        )
    assert read_class_names(str(files[2])) == list(COUNTS)
    assert not list(root.glob(".lists-*"))


def test_a_split_depends_on_the_seed_and_the_names_only(root, tmp_path):
    lists = make_lists(root)
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert paths(make_lists(moved), "val") == paths(lists, "val")
    assert paths(make_lists(root, seed=1), "val") != paths(lists, "val")
    # Written out, because nobody's split may change with a version of ours or of NumPy.
    ants = [str(path.relative_to(root)) for path in root.glob("ant/**/*.jpg")]
    ants.sort(key=lambda path: hashlib.blake2b(f"0|{path}".encode(), digest_size=16).digest())
    assert {path for path in paths(lists, "val") if path.startswith("ant")} == set(ants[:8])


def test_new_pictures_move_few_others(root):
    before = paths(make_lists(root), "val")
    for number in range(5):
        (root / "ant" / f"new {number}.jpg").touch()
    after = paths(make_lists(root), "val")
    assert len(before - after) <= 2


def test_groups_stay_together(root):
    """'photo 00' to 'photo 09' of all classes are one group, and so on."""
    lists = make_lists(root, val=0.3, group=r"photo (\d)")
    tens = {split: {path[-8] for path in paths(lists, split)} for split in lists.splits}
    assert not tens["train"] & tens["val"]
    assert sum(map(len, lists.splits.values())) == sum(COUNTS.values())
    assert tens["val"]


def test_files_that_are_alike_stay_together(root):
    files = [str(path) for path in sorted(root.glob("ant/*.jpg"))]
    pairs = [files[i : i + 2] for i in range(0, 20, 2)]
    lists = make_lists(root, val=0.5, together=pairs)
    val = paths(lists, "val")
    for pair in pairs:
        assert len({str(root / path) for path in val} & set(pair)) in (0, 2)
    assert counts(lists, "val")[0] == 20


def test_splits_that_have_folders_stay_as_they_are(root, tmp_path):
    new = tmp_path / "split"
    shutil.copytree(root, new / "train")
    shutil.copytree(root / "ant", new / "test" / "ant")
    lists = make_lists(new, val=0.2)
    assert counts(lists, "test") == [40, 0, 0, 0]
    assert counts(lists, "val") == [8, 2, 0, 1]
    assert all(path.startswith("train/") for path in paths(lists, "val"))
    write_lists(lists, new)


def test_nothing_is_written_over_without_force(root):
    write_lists(make_lists(root, test=0.1), root)
    before = (root / "train_list.txt").read_bytes()
    other = make_lists(root, seed=5, test=0.1)
    with pytest.raises(DataError, match=r"train_list.txt is there already; --force"):
        write_lists(other, root)
    assert (root / "train_list.txt").read_bytes() == before
    write_lists(other, root, force=True)
    assert (root / "train_list.txt").read_bytes() != before
    with pytest.raises(DataError, match=r"test_list.txt is of other lists"):
        write_lists(make_lists(root), root, force=True)


@pytest.mark.parametrize("name", ["a\nb.jpg", " a.jpg"])
def test_a_name_that_a_list_cannot_hold_is_refused(tmp_path, name):
    (tmp_path / "x").mkdir()
    for file in (name, "b.jpg", "c.jpg"):
        (tmp_path / "x" / file).touch()
    lists = make_lists(tmp_path)
    if name.startswith(" "):  # below a folder such a name is no trouble
        write_lists(lists, tmp_path)
        return
    with pytest.raises(DataError, match="cannot stand in a list"):
        write_lists(lists, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


@pytest.mark.parametrize("name", ["two\nlines", "blank "])
def test_a_class_that_a_label_map_cannot_hold_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    for file in ("a.jpg", "b.jpg"):
        (tmp_path / name / file).touch()
    with pytest.raises(DataError, match="cannot stand in a l"):
        write_lists(make_lists(tmp_path), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [({"val": -0.1}, "val"), ({"val": 0.6, "test": 0.4}, "val"), ({"group": "("}, "group")],
)
def test_wrong_arguments(root, arguments, argument):
    with pytest.raises(ArgumentError) as caught:
        make_lists(root, **arguments)
    assert caught.value.argument == argument


def test_a_group_that_leaves_a_split_empty_is_told(root):
    with pytest.raises(DataError, match=r"no pictures for val_list.txt"):
        write_lists(make_lists(root, group="photo"), root)
