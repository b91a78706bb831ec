"""Fixtures of the tests of the engine, of deployment and of the command line."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import support


@dataclass
class Output:
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/`` with 24 and ``val/`` with 23 pictures of three classes, and lists of them."""
    folder = tmp_path_factory.mktemp("pictures")
    support.write_pictures(folder / "train", [8, 8, 8])
    support.write_pictures(folder / "val", [8, 8, 7], first=100)
    for split in ("train", "val"):
        support.write_list(folder, split)
    return folder


@pytest.fixture
def config_file(tmp_path: Path, pictures: Path) -> Path:
    """A configuration whose results go to ``tmp_path/output/MobileNeXt_x0_1``."""
    tree = support.config_tree(pictures, tmp_path / "output")
    return support.write_config(tmp_path / "config.yaml", tree)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Where a run of ``config_file`` writes."""
    return tmp_path / "output" / support.NET


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """The folder of a finished run of three epochs; not to be changed."""
    pytest.importorskip("paddle")
    folder = tmp_path_factory.mktemp("trained")
    tree = support.config_tree(pictures, folder / "output")
    path = support.write_config(folder / "config.yaml", tree)
    support.train(path, "Global.epochs=3", "Global.save_interval=1")
    return folder / "output" / support.NET


@pytest.fixture(scope="session")
def lively(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A checkpoint whose answers differ widely between pictures; not to be changed.

    A few steps of training leave a network that gives every picture nearly the same scores.
    """
    return support.lively_checkpoint(tmp_path_factory.mktemp("lively") / "best_model", pictures)


@pytest.fixture
def checkpoint(trained: Path, tmp_path: Path) -> Path:
    """A copy of ``trained/epoch_1``, to be damaged."""
    return shutil.copytree(trained / "epoch_1", tmp_path / "given" / "epoch_1")


@pytest.fixture(scope="session")
def exported(trained: Path, lively: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder of ``lively``; not to be changed."""
    from ppcls import export_model

    folder = tmp_path_factory.mktemp("exported") / "inference"
    weights = f"Global.pretrained_model={lively}"
    inference = f"Global.save_inference_dir={folder}"
    export_model(support.load(trained / "config.yaml", weights, inference))
    return folder


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Output]]:
    """Runs a ``ppcls`` command in this process."""
    from ppcls.cli import main

    before = signal.getsignal(signal.SIGTERM)

    def command(*arguments: str | Path) -> Output:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return Output(code, captured.out, captured.err)

    yield command
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def no_leftovers() -> Iterator[None]:
    """Fails if a test leaves child processes or shared memory behind."""
    memory, processes = set(Path("/dev/shm").iterdir()), set(support.children(os.getpid()))
    yield
    assert set(Path("/dev/shm").iterdir()) <= memory
    assert set(support.children(os.getpid())) <= processes
