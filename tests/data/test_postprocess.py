"""Topk and the files of class names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ppcls.data.postprocess import MultiLabelThreshOutput, Topk, read_class_names
from ppcls.errors import ArgumentError, DataError

LOGITS = np.log(np.array([[0.2, 0.5, 0.3], [0.1, 0.123456, 0.776544]], np.float32))


def test_result_is_exactly_the_published():
    results = Topk(2, class_names=["a", "b", "c"])(LOGITS, ["x.jpg", "y.jpg"])
    assert results == [
        {
            "class_ids": [1, 2],
            "scores": [0.5, 0.3],
            "file_name": "x.jpg",
            "label_names": ["b", "c"],
        },
        {
            "class_ids": [2, 1],
            "scores": [0.77654, 0.12346],
            "file_name": "y.jpg",
            "label_names": ["c", "b"],
        },
    ]
    assert list(results[0]) == ["class_ids", "scores", "file_name", "label_names"]
    json.dumps(results)


def test_k_is_cut_off_at_the_number_of_classes():
    result = Topk(5)(LOGITS[:1], ["x"])[0]
    assert result["class_ids"] == [1, 2, 0]
    assert "label_names" not in result


def test_large_logits_do_not_overflow():
    result = Topk(1)(np.array([[1e4, 0.0]], np.float32), ["x"])[0]
    assert result["scores"] == [1.0]


def test_fewer_names_than_classes():
    with pytest.raises(DataError, match="each of 3 classes, received 2"):
        Topk(1, class_names=["a", "b"])(LOGITS, ["x", "y"])


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"expected logits \[1, classes\]"):
        Topk(1)(LOGITS, ["x"])
    with pytest.raises(ArgumentError):
        Topk(0)


def write(folder, content: str | bytes) -> str:
    path = folder / "names.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_names_with_blanks_in_any_order(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbf1 vizsla, Hungarian pointer\r\n\n0\tGr\xc3\xbcnspecht\n")
    assert read_class_names(path) == ["Grünspecht", "vizsla, Hungarian pointer"]
    assert Topk(1, path)(LOGITS[:, :2], ["x", "y"])[0]["label_names"] == [
        "vizsla, Hungarian pointer"
    ]


def test_delimiter(tmp_path):
    assert read_class_names(write(tmp_path, "0,a b\n1,c,d\n"), ",") == ["a b", "c,d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 a\n1\n", "names.txt:2: expected '<id> <name>', received '1'"),
        ("0 a\nx b\n", "names.txt:2: .* received 'x b'"),
        ("0 a\n0 b\n", "names.txt:2: expected each id once"),
        ("0 a\n2 b\n", "received none for 1"),
        ("\n", "empty file"),
        (b"0 \xff\n", "UTF-8"),
    ],
)
def test_wrong_names(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_class_names(write(tmp_path, content))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"class_id_map_file: expected a file at .*nowhere"):
        Topk(1, str(tmp_path / "nowhere.txt"))


def test_packaged_imagenet_names():
    names = read_class_names("ppcls/utils/imagenet1k_label_list.txt")
    assert len(names) == 1000
    assert names[178] == "Weimaraner"


def test_temperature_divides_the_logits():
    logits = np.log([[0.64, 0.32, 0.04]])
    [answer] = Topk(3, temperature=0.5)(logits, ["a"])
    squares = np.array([0.64, 0.32, 0.04]) ** 2
    assert answer["scores"] == pytest.approx(squares / squares.sum(), abs=1e-5)
    assert Topk(3, calibrated=0.5)(logits, ["a"]) == [answer]
    assert Topk(3, temperature=0.5, calibrated=9.0)(logits, ["a"]) == [answer]


def test_all_classes_from_a_threshold_on():
    logits = np.array([[0.0, -9000.0, 2.0], [-0.1, -1.0, -2.0]])
    answers = MultiLabelThreshOutput(class_names=["x", "y", "z"])(logits, ["a", "b"])
    scores = [0.5, round(1 / (1 + np.exp(-2.0)), 5)]
    assert answers == [
        {"class_ids": [0, 2], "scores": scores, "file_name": "a", "label_names": ["x", "z"]},
        {"class_ids": [], "scores": [], "file_name": "b", "label_names": []},
    ]
