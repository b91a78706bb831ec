"""What a user calls a weights source, and the file that it means."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ppcls.errors import WeightsError
from ppcls.weights import find_weights, load_weights


@pytest.fixture
def folder(tmp_path):
    """``best_model/model.pdparams``, ``old.pdparams``, ``v1.2.safetensors`` and ``notes.txt``."""
    for name in ("best_model/model.pdparams", "old.pdparams", "v1.2.safetensors", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps({"weight": np.zeros(1)}, 4))
    return tmp_path


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("best_model", "best_model/model.pdparams"),
        ("best_model/", "best_model/model.pdparams"),
        ("best_model/model", "best_model/model.pdparams"),
        ("best_model/model.pdparams", "best_model/model.pdparams"),
        ("old", "old.pdparams"),
        ("old.pdparams", "old.pdparams"),
        ("v1.2", "v1.2.safetensors"),
        ("v1.2.safetensors", "v1.2.safetensors"),
    ],
)
def test_a_source_is_found(folder, monkeypatch, source, file):
    assert find_weights(folder / source) == folder / file
    assert find_weights(f"{folder}/{source}") == folder / file
    monkeypatch.chdir(folder)
    assert find_weights(source).resolve() == folder / file


def test_a_folder_wins_over_a_file_beside_it(folder):
    (folder / "best_model.pdparams").write_bytes(b"x")
    assert find_weights(folder / "best_model") == folder / "best_model/model.pdparams"


def test_pdparams_win_over_safetensors(folder):
    (folder / "old.safetensors").write_bytes(b"x")
    assert find_weights(folder / "old") == folder / "old.pdparams"


def test_the_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert find_weights("~/old") == folder / "old.pdparams"


@pytest.mark.parametrize("source", [".", "./", "../best_model"])
def test_the_current_folder_is_a_folder_too(folder, monkeypatch, source):
    monkeypatch.chdir(folder / "best_model")
    assert find_weights(source).resolve() == folder / "best_model/model.pdparams"


@pytest.mark.parametrize("source", ["none", "none.pdparams", "best_model/none", "deep/er/none"])
def test_a_missing_source_lists_what_was_tried(folder, source):
    with pytest.raises(WeightsError) as caught:
        find_weights(folder / source)
    message = str(caught.value)
    assert message.startswith(f"{folder / source}: no weights there; looked for ")
    if not source.endswith(".pdparams"):
        for tried in (f"{source}/model.pdparams", f"{source}.pdparams", f"{source}.safetensors"):
            assert str(folder / tried) in message


@pytest.mark.parametrize("source", ["", "/", "..", "a\0b", "a" * 5000, "~nobody-of-that-name/w"])
def test_an_odd_source_is_refused_in_words(folder, monkeypatch, source):
    monkeypatch.chdir(folder)
    with pytest.raises(WeightsError):
        find_weights(source)


def test_a_file_of_another_kind_is_refused(folder):
    with pytest.raises(WeightsError, match=r"notes\.txt: expected a checkpoint folder or a file"):
        find_weights(folder / "notes.txt")


def test_loading_uses_it(folder):
    with pytest.raises(WeightsError, match=f"{folder / 'none'}: no weights there"):
        load_weights(None, folder / "none")
