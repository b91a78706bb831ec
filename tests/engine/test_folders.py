"""Folders that are either whole or not there."""

import signal
import sys
from pathlib import Path

import pytest
import support

from ppcls.engine import folders
from ppcls.engine.folders import written_whole
from ppcls.errors import EnvironmentProblem

KILLED = """
import os, signal, sys
from pathlib import Path
from ppcls.engine.folders import written_whole
with written_whole(Path(sys.argv[1])) as new:
    (new / "content").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=["exchange of names", "no exchange of names"])
def any_file_system(request, monkeypatch):
    """File systems with and without renameat2's exchange."""
    if request.param.startswith("no"):
        monkeypatch.setattr(folders, "_exchange", lambda a, b: False)


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "best"
    folder.mkdir()
    (folder / "content").write_text("old")
    (folder / "only in the old one").touch()
    return folder


def listing(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_new_folder_with_missing_parents(tmp_path):
    folder = tmp_path / "a" / "b"
    with written_whole(folder) as new:
        (new / "content").write_text("new")
        assert not folder.exists()
    assert listing(folder) == {"content": "new"}
    assert [p.name for p in folder.parent.iterdir()] == ["b"]


@pytest.mark.usefixtures("any_file_system")
def test_an_older_folder_is_replaced_as_a_whole(old):
    with written_whole(old) as new:
        (new / "content").write_text("new")
        assert (old / "content").read_text() == "old"
    assert listing(old) == {"content": "new"}
    assert [p.name for p in old.parent.iterdir()] == ["best"]


@pytest.mark.usefixtures("any_file_system")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_folder_as_it_was(old, error):
    with pytest.raises(error), written_whole(old) as new:
        (new / "content").write_text("half")
        raise error
    assert listing(old) == {"content": "old", "only in the old one": ""}
    assert [p.name for p in old.parent.iterdir()] == ["best"]


def test_an_exception_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(ValueError), written_whole(tmp_path / "best") as new:
        (new / "content").write_text("half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exists", [True, False])
def test_a_killed_process_leaves_the_old_folder_or_none(tmp_path, exists):
    folder = tmp_path / "best"
    if exists:
        folder.mkdir()
        (folder / "content").write_text("old")
    done = support.run(["-c", KILLED, folder], tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert folder.exists() == exists
    if exists:
        assert listing(folder) == {"content": "old"}
    with written_whole(folder) as new:  # what the dead process left is in nobody's way
        (new / "content").write_text("new")
    assert listing(folder) == {"content": "new"}


def test_a_failing_commit_leaves_the_old_folder(old, monkeypatch):
    monkeypatch.setattr(folders, "_exchange", lambda a, b: False)
    rename = Path.rename

    def refuse_the_new(self, target):
        if self.name.endswith(".new"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    with pytest.raises(EnvironmentProblem, match="No space left"), written_whole(old) as new:
        (new / "content").write_text("new")
    assert old.is_dir(), "the old folder is not at its place any more"
    assert listing(old)["content"] == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_names_are_exchanged_in_one_step_where_the_system_can(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"was {name}").touch()
    assert folders._exchange(tmp_path / "a", tmp_path / "b")
    assert list(listing(tmp_path / "a")) == ["was b"]
    assert list(listing(tmp_path / "b")) == ["was a"]
    assert not folders._exchange(tmp_path / "a", tmp_path / "missing")
