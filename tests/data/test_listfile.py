"""List files: what is read, and what is refused with its line."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ppcls.data.datasets import ImageNetDataset, checks, listfile
from ppcls.errors import ArgumentError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b c.jpg", "d/e #1.jpg", "d/ü 图.jpg", "plus=1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(root: Path, text: str | bytes) -> str:
    path = root / "train_list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def read(root: Path, text: str | bytes, class_num: int | None = 3, **arguments) -> ImageNetDataset:
    return ImageNetDataset(str(root), write(root, text), class_num=class_num, **arguments)


def test_blanks_tabs_unicode_and_hashes(root):
    data = read(root, "a.jpg 0\nb c.jpg 1\nd/e #1.jpg\t2\nd/ü 图.jpg \t 0\nplus=1.jpg 1\n")
    assert data.labels.tolist() == [0, 1, 2, 0, 1]
    assert data.labels.dtype == np.int64
    assert [Path(data.path(i)).is_file() for i in range(5)] == [True] * 5
    assert data.path(3) == str(root / "d/ü 图.jpg")
    assert data.describe(1) == f"{root / 'b c.jpg'} (train_list.txt:2)"
    assert data.class_names is None


def test_byte_order_mark_line_ends_and_empty_lines(root):
    data = read(root, b"\xef\xbb\xbfa.jpg 0\r\n\r\n  \t\r\nb c.jpg 1\r\n\n")
    assert data.labels.tolist() == [0, 1]
    assert data.describe(1).endswith("b c.jpg (train_list.txt:4)")


def test_no_end_of_line_at_the_end(root):
    assert read(root, "a.jpg 2").labels.tolist() == [2]


def test_delimiter_counts_from_the_right(root):
    data = read(root, "plus=1.jpg=2\nb c.jpg=1\n", delimiter="=")
    assert data.labels.tolist() == [2, 1]
    assert data.path(0) == str(root / "plus=1.jpg")
    with pytest.raises(ArgumentError):
        read(root, "a.jpg 0\n", delimiter="")


def test_absolute_paths(root, tmp_path):
    assert read(root, f"{root}/a.jpg 0\n").path(0) == str(root / "a.jpg")


def test_duplicates_are_kept(root):
    assert len(read(root, "a.jpg 0\na.jpg 0\n")) == 2


def test_relabel_sorts(root):
    data = read(root, "a.jpg 70\nb c.jpg 10\nplus=1.jpg 70\n", class_num=2, relabel=True)
    assert data.labels.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="received 1"):
        read(root, "a.jpg 70\nb c.jpg 10\n", class_num=1, relabel=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.jpg", "expected '<path> <label>' in UTF-8, received 'a.jpg'"),
        ("b c.jpg", "received 'b c.jpg'"),
        ("a.jpg 1.0", "received 'a.jpg 1.0'"),
        ("a.jpg 1_0", "received 'a.jpg 1_0'"),
        ("a.jpg ٣", "received 'a.jpg ٣'"),
        ("a.jpg 99999999999999999999", "received 'a.jpg 9"),
        ("a.jpg -1", "expected a label >= 0 and below Arch.class_num 3, received -1"),
        ("a.jpg 3", "expected a label >= 0 and below Arch.class_num 3, received 3"),
        ("missing.jpg 0", "missing.jpg', received none"),
        ("nowhere/a.jpg 0", "nowhere/a.jpg', received none"),
        ("d 0", "/d', received none"),
        ("dead.jpg 0", "dead.jpg', received none"),
    ],
)
def test_wrong_lines_are_named(root, line, expected):
    (root / "dead.jpg").symlink_to(root / "gone")
    with pytest.raises(DataError) as caught:
        read(root, f"a.jpg 0\n\n{line}\nb c.jpg 1\n")
    message = str(caught.value)
    assert message.startswith(f"{root}/train_list.txt:3: ")
    assert expected in message
    assert len(message.splitlines()) == 1


def test_links_to_files_are_files(root):
    (root / "link.jpg").symlink_to(root / "a.jpg")
    assert len(read(root, "link.jpg 0\n")) == 1


@pytest.mark.parametrize("line", [b"\xff\xfe.jpg 0", b"a\0.jpg 0"])
def test_lines_that_are_not_text(root, line):
    with pytest.raises(DataError, match=r"train_list.txt:2: expected .* in UTF-8"):
        read(root, b"a.jpg 0\n" + line + b"\n")


def test_all_problems_are_gathered_and_ten_shown(root):
    lines = ["a.jpg 0", *["a.jpg 7"] * 4, *["a.jpg"] * 4, *["none.jpg 0"] * 6]
    with pytest.raises(DataError) as caught:
        read(root, "\n".join(lines))
    shown = str(caught.value).splitlines()
    assert [int(line.split(":")[1]) for line in shown[:10]] == list(range(2, 12))
    assert shown[10:] == [f"... and 4 more problems in {root}/train_list.txt"]


@pytest.mark.parametrize("text", ["", "\n\n", "\r\n"])
def test_empty_list(root, text):
    with pytest.raises(DataError, match=r"train_list.txt: .* empty list"):
        read(root, text)


def test_without_class_num_only_negative_labels_are_wrong(root):
    assert read(root, "a.jpg 500\n", class_num=None).labels.tolist() == [500]
    with pytest.raises(DataError, match="expected a label >= 0, received -2"):
        read(root, "a.jpg -2\n", class_num=None)


def test_missing_root_and_list_say_where_help_is(tmp_path):
    with pytest.raises(DataError, match=r"image_root: .*nowhere.*dataset/README.md") as caught:
        ImageNetDataset(str(tmp_path / "nowhere"), str(tmp_path / "list.txt"))
    assert "lay a data set out" in str(caught.value)
    with pytest.raises(DataError, match=r"cls_label_path: .*list.txt"):
        ImageNetDataset(str(tmp_path), str(tmp_path / "list.txt"))
    with pytest.raises(DataError, match="received a folder"):
        ImageNetDataset(str(tmp_path), str(tmp_path))
    with pytest.raises(DataError, match=r"ILSVRC2012.*how to lay ImageNet out"):
        ImageNetDataset("./dataset/ILSVRC2012/", "./dataset/ILSVRC2012/train_list.txt")


def test_folders_are_listed_once_and_files_not_asked_for(root, monkeypatch):
    (root / "many").mkdir()
    for index in range(50):
        (root / f"many/{index}.jpg").touch()
    listed, asked = [], []
    scandir, stat = os.scandir, os.stat
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(os, "stat", lambda path, **kw: asked.append(path) or stat(path, **kw))
    read(root, "".join(f"many/{index}.jpg 0\n" for index in range(50)))
    assert len(listed) == 1
    assert len(asked) < 10


def test_blocks_of_any_size_give_the_same(root, monkeypatch):
    text = b"\xef\xbb\xbfa.jpg 0\r\n\nb c.jpg \t 1 \nd/\xc3\xbc \xe5\x9b\xbe.jpg 2\nplus=1.jpg 0012"
    whole = read(root, text, class_num=None)
    assert [Path(whole.path(i)).name for i in range(4)] == [
        "a.jpg", "b c.jpg", "ü 图.jpg", "plus=1.jpg",
    ]  # fmt: skip
    assert whole.labels.tolist() == [0, 1, 2, 12]
    for size in (1, 10, 20):
        monkeypatch.setattr(listfile, "BLOCK", size)
        monkeypatch.setattr(checks, "ROWS", size)
        small = read(root, text, class_num=None)
        assert small.labels.tolist() == whole.labels.tolist()
        assert [small.describe(i) for i in range(4)] == [whole.describe(i) for i in range(4)]


@pytest.mark.parametrize("delimiter", ["::", "\t", " = "])
def test_long_delimiters(root, delimiter):
    text = f"a.jpg{delimiter}2\nb c.jpg{delimiter}1\r\nplus=1.jpg{delimiter}x\n"
    with pytest.raises(DataError, match=r":3: expected '<path>.*<label>'"):
        read(root, text, delimiter=delimiter)
    data = read(root, text.replace("x\n", "0\n"), delimiter=delimiter)
    assert data.labels.tolist() == [2, 1, 0]
    assert data.path(2) == str(root / "plus=1.jpg")


def test_labels_as_long_as_64_bits_allow(root):
    labels = [10**17, 10**18 - 1, 10**18, 2**63 - 1, 0]
    text = "".join(f"a.jpg {label}\n" for label in labels)
    assert read(root, text, class_num=None).labels.tolist() == labels
    with pytest.raises(DataError, match=r"txt:1: .*received 'a.jpg 9223372036854775808'"):
        read(root, "a.jpg 9223372036854775808\n", class_num=None)


def test_a_wrong_root_is_many_problems_but_a_short_message(root):
    with pytest.raises(DataError) as caught:
        read(root, "".join(f"{folder}/{n}.jpg 0\n" for n in range(50) for folder in "zy"))
    shown = str(caught.value).splitlines()
    assert [int(line.split(":")[1]) for line in shown[:10]] == list(range(1, 11))
    assert shown[10].startswith("... and 90 more problems")


def test_without_checking_files_no_folder_is_listed(root, monkeypatch):
    monkeypatch.setattr(os, "scandir", None)
    data = read(root, "a.jpg 0\nmissing.jpg 1\n", check_files=False)
    assert data.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"missing.jpg \(train_list.txt:2\): No such file"):
        data.sample(1, np.random.default_rng(0))
    with pytest.raises(ArgumentError, match="expected true without cls_label_path"):
        ImageNetDataset(str(root), check_files=False)


def test_opening_takes_memory_for_arrays_not_for_objects(root, monkeypatch):
    (root / "many").mkdir()
    (root / "many/picture-with-a-long-name.jpg").touch()
    text = b"many/picture-with-a-long-name.jpg 1\n" * 100_000
    monkeypatch.setattr(listfile, "BLOCK", 1 << 17)
    monkeypatch.setattr(checks, "ROWS", 1 << 12)
    path = write(root, text)
    tracemalloc.start()
    try:
        data = ImageNetDataset(str(root), path, class_num=3)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data) == 100_000
    # Of each line: the path, its end, its label and its line number, 33 + 3 * 8 bytes.
    assert kept < 57 * 100_000 * 1.05
    assert peak < 3 * 57 * 100_000
