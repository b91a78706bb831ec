"""CSV files: columns, headers, names of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppcls.data.datasets import CSVDataset
from ppcls.errors import ArgumentError, DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b, c.jpg", 'd "e".jpg', "ü.jpg", "hash"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def read(root: Path, text: str | bytes, class_num: int | None = 3, **arguments) -> CSVDataset:
    path = root / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return CSVDataset(str(root), str(path), class_num=class_num, **arguments)


def test_quotes_line_ends_and_mark(root):
    data = read(root, '\ufeffa.jpg,0\r\n\r\n"b, c.jpg",1\r\n"d ""e"".jpg",2\r\nü.jpg,0')
    assert data.labels.tolist() == [0, 1, 2, 0]
    assert data.labels.dtype == np.int64
    assert [Path(data.path(i)).is_file() for i in range(4)] == [True] * 4
    assert data.describe(1) == f"{root}/b, c.jpg (labels.csv:3)"
    assert data.class_names is None


def test_columns_by_name(root):
    text = "id,class name,file\n1,dog,a.jpg\n2,cat,ü.jpg\n3,dog,hash\n"
    data = read(root, text, columns=["file", "class name"])
    assert data.class_names == ["cat", "dog"]
    assert data.labels.tolist() == [1, 0, 1]
    assert Path(data.path(2)).name == "hash"
    with pytest.raises(
        ArgumentError, match=r"expected columns of 'id'.* 'File'; did you mean 'file'"
    ):
        read(root, text, columns=["File", "class name"])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("path,label\na.jpg,cat\n", 1),
        ("a.jpg,cat\nü.jpg,dog\n", 2),
        ("hash,cat\na.jpg,cat\n", 2),  # no extension, but a file
        ("missing.jpg,cat\n", None),
    ],
)
def test_a_header_is_told_from_a_picture(root, text, count):
    if count is None:
        with pytest.raises(DataError, match=r"csv:1: expected a file at .*missing.jpg"):
            read(root, text)
    else:
        assert len(read(root, text)) == count


def test_columns_by_number_and_delimiter(root):
    data = read(root, "0\tx\ta.jpg\n1\tx\tb, c.jpg\n", columns=[2, 0], delimiter="\t")
    assert data.labels.tolist() == [0, 1]
    with pytest.raises(ArgumentError, match="expected a column 0 to 1, received 2"):
        read(root, "a.jpg,0\n", columns=[0, 2])
    with pytest.raises(ArgumentError, match="one character"):
        read(root, "a.jpg,0\n", delimiter="::")


@pytest.mark.parametrize("columns", [None, ["file", "class"]])
def test_a_wrong_delimiter_is_asked_about(root, columns):
    with pytest.raises(ArgumentError, match="one column 'file;class': is ',' the right") as caught:
        read(root, "file;class\na.jpg;1\n", columns=columns)
    assert caught.value.argument == "delimiter"


def test_class_names_fix_the_labels(root):
    data = read(root, "a.jpg,dog\nü.jpg,dog\n", class_names=["cat", "dog"])
    assert data.labels.tolist() == [1, 1]
    assert data.class_names == ["cat", "dog"]
    with pytest.raises(DataError, match=r"csv:2: expected one of the 2 class_names, .*'bird'"):
        read(root, "a.jpg,dog\nü.jpg,bird\n", class_names=["cat", "dog"])
    with pytest.raises(ArgumentError, match=r"expected Arch.class_num 1, received 2"):
        read(root, "a.jpg,dog\n", class_num=1, class_names=["cat", "dog"])
    with pytest.raises(ArgumentError, match="received one twice"):
        read(root, "a.jpg,dog\n", class_names=["dog", "dog"])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a.jpg", "expected at least 2 cells, received 1"),
        (",1", "expected a path, received ''"),
        ("a.jpg,", "expected a class index, as other rows have (or give class_names), received ''"),
        ("a.jpg,l", "received 'l'"),
        ("a.jpg,1.0", "received '1.0'"),
        ("a.jpg,3", "expected a label >= 0 and below Arch.class_num 3, received 3"),
        ("a.jpg,-1", "received -1"),
        ("gone.jpg,1", "gone.jpg', received none"),
    ],
)
def test_wrong_rows_are_named(root, row, expected):
    # The first row spans two lines.
    with pytest.raises(DataError) as caught:
        read(root, f'path,label,"no\nte"\na.jpg,0\n{row}\nü.jpg,1\n')
    message = str(caught.value)
    assert message.startswith(f"{root}/labels.csv:4: ")
    assert expected in message
    assert len(message.splitlines()) == 1


def test_wrong_cells_among_names_are_named_alone(root):
    names = ["cat", "dog", "", "cat", "dgo", "7", "dog", "dog", "cat"]
    with pytest.raises(DataError) as caught:
        read(root, "".join(f"a.jpg,{name}\n" for name in names), class_num=2)
    path = f"{root}/labels.csv"
    expected = "expected a class that other rows have, too (or give class_names), received"
    assert str(caught.value).splitlines() == [
        f"{path}:3: expected a class, received ''",
        f"{path}:5: {expected} 'dgo'; did you mean 'dog'?",
        f"{path}:6: {expected} '7'",
    ]


def test_more_names_than_classes(root):
    rows = "".join(f"a.jpg,{name}\n" for name in ("cat", "dog", "Dog", "cat", "dog"))
    with pytest.raises(
        DataError, match=r"Arch.class_num 1 .* 3; .*'Dog' \(1, line 3\), 'dog' \(2,"
    ):
        read(root, rows, class_num=1)


@pytest.mark.parametrize("data", [b'a.jpg,0\n"b, c.jpg,1\n', b"a.jpg,0\n\xff.jpg,1\n"])
def test_what_is_no_csv(root, data):
    with pytest.raises(DataError, match=r"labels.csv:\d: expected CSV in UTF-8: "):
        read(root, data)


@pytest.mark.parametrize("text", ["", "\n\n", "path,label\n"])
def test_no_rows(root, text):
    with pytest.raises(DataError, match="expected rows with path and label, received none"):
        read(root, text)
