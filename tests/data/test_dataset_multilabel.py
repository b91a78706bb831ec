"""Lists with one target per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppcls.data.datasets import MultiLabelDataset
from ppcls.data.loader import DataLoader
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.errors import ArgumentError, DataError
from ppcls.registry import DATASETS


@pytest.fixture
def root(tmp_path: Path, photo, encode) -> Path:
    for name in ("a.jpg", "b c.jpg", "d.jpg"):
        (tmp_path / name).write_bytes(encode(photo))
    return tmp_path


def read(root: Path, text: str, class_num: int | None = 3, **arguments) -> MultiLabelDataset:
    path = root / "list.txt"
    path.write_bytes(text.encode())
    return MultiLabelDataset(str(root), str(path), class_num=class_num, **arguments)


def test_targets_are_a_matrix(root):
    data = read(root, "\ufeffa.jpg\t0,1,0\r\n\nb c.jpg\t1,1,0\nd.jpg 0.25,1,0\n")
    assert data.labels.tolist() == [[0, 1, 0], [1, 1, 0], [0.25, 1, 0]]
    assert data.labels.dtype == np.float32
    assert data.describe(1) == f"{root}/b c.jpg (list.txt:3)"
    assert data.label_ratio is None


def test_ratio_of_positives_follows_the_samples(root):
    data = read(root, "a.jpg\t0,1,0\nb c.jpg\t1,1,0\nd.jpg\t0,1,0\n", label_ratio=True)
    np.testing.assert_array_equal(data.label_ratio, np.float32([1 / 3, 1, 0]))
    data.select(np.array([0, 1]))
    assert data.label_ratio.tolist() == [0.5, 1, 0]


def test_batches_carry_the_targets(root):
    data = read(root, "a.jpg\t0,1,0\nb c.jpg\t1,1,0\nd.jpg\t0,0,1\n")
    sampler = DistributedBatchSampler(batch_size=2, shuffle=False, sample_count=3)
    with DataLoader(data, sampler, seed=0, num_workers=1) as loader:
        labels = [batch.labels for batch in loader.epoch(0)]
    assert [batch.tolist() for batch in labels] == [[[0, 1, 0], [1, 1, 0]], [[0, 0, 1]]]
    assert labels[0].dtype == np.float32


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.jpg", "expected '<path> <0,1,...>' in UTF-8, received 'a.jpg'"),
        ("a.jpg 0,1", "expected 3 targets as Arch.class_num 3, received 2"),
        ("a.jpg 0,1,0,1", "expected 3 targets as Arch.class_num 3, received 4"),
        ("a.jpg 0,1,", "received 'a.jpg 0,1,'"),
        ("a.jpg 0,x,1", "received 'a.jpg 0,x,1'"),
        ("a.jpg 0,1_0,1", "received 'a.jpg 0,1_0,1'"),
        ("a.jpg 0,-1,1", "expected targets from 0 to 1, received -1"),
        ("a.jpg 0,nan,1", "expected targets from 0 to 1, received nan"),
        ("none.jpg 0,1,0", "none.jpg', received none"),
    ],
)
def test_wrong_lines_are_named(root, line, expected):
    with pytest.raises(DataError) as caught:
        read(root, f"a.jpg\t0,0,1\n{line}\nb c.jpg\t1,0,1\n")
    message = str(caught.value)
    assert message.startswith(f"{root}/list.txt:2: ")
    assert expected in message
    assert len(message.splitlines()) == 1


def test_without_class_num_the_first_line_says_how_many(root):
    with pytest.raises(DataError, match=r"txt:2: expected 2 targets as in the first line, .* 1$"):
        read(root, "a.jpg\t0,1\nb c.jpg\t1\n", class_num=None)


def test_arguments(root):
    assert read(root, "b c.jpg;1,0,1\n", delimiter=";").path(0) == f"{root}/b c.jpg"
    with pytest.raises(ArgumentError):
        read(root, "", delimiter="")
    with pytest.raises(DataError, match="an empty list"):
        read(root, "\n")
    assert DATASETS.entry("MultiLabelDataset").context() == {"class_num"}
