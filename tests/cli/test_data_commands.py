"""``ppcls data``: check, list, browse, doctor, pack."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import support
import yaml
from PIL import Image

ACTIONS = ["check", "list", "browse", "doctor", "pack"]
CLI = support.ROOT / "ppcls" / "cli.py"


@pytest.fixture
def photos(pictures, tmp_path):
    """A copy of the picture folder, to be changed."""
    return shutil.copytree(pictures, tmp_path / "photos")


def check(cli, tmp_path, *arguments):
    """The finished command, and what it has written."""
    done = cli("data", "check", "--workers", "2", "--out", tmp_path / "out", *arguments)
    report = tmp_path / "out" / "check.json"
    return done, json.loads(report.read_text()) if report.exists() else None


@pytest.mark.parametrize("action", ACTIONS)
def test_help_has_an_example(cli, action):
    done = cli("data", action, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"example: ppcls data {action} " in " ".join(done.out.split())


def test_help_lists_the_commands(cli):
    done = cli("data", "--help")
    assert done.code == 0
    for action in ACTIONS:
        assert f"\n    {action} " in done.out
    assert "\n    data " in cli("--help").out


# check --------------------------------------------------------------------------------------------


def test_check_of_a_clean_folder(cli, photos, tmp_path):
    done, report = check(cli, tmp_path, photos, "--strict", "--no-near")
    assert (done.code, done.err) == (0, "")
    first, _, *rows, last = done.out.splitlines()
    assert first == f"{photos}: 47 pictures (train 24, val 23), 3 classes"
    assert all(row.endswith(" none") for row in rows[:-1])
    assert last == f"see {tmp_path / 'out' / 'check.html'} and {tmp_path / 'out' / 'check.json'}"
    assert report["limits"]["near"] is None


def test_check_is_strict_only_if_asked(cli, photos, tmp_path):
    (photos / "train" / "red" / "red_0.png").write_bytes(b"no picture")
    done, report = check(cli, tmp_path, photos)
    assert done.code == 0
    [row] = [line for line in done.out.splitlines() if line.startswith("Cannot be read")]
    assert "  1  e.g. " in row and "red_0.png: expected a picture" in row
    assert len(report["findings"]["unreadable"]) == 1
    assert check(cli, tmp_path, photos, "--strict")[0].code == 1


def test_check_survives_what_stops_a_reader(cli, photos, tmp_path, no_leftovers):
    os.mkfifo(photos / "train" / "red" / "pipe.png")  # whoever reads it waits for ever
    done, report = check(cli, tmp_path, photos, "--timeout", "1")
    assert done.code == 0
    [group] = report["findings"]["unreadable"]
    assert group["note"] == "was not read within 1 s"
    assert group["pictures"][0]["path"].endswith("pipe.png")


def test_check_of_a_configuration(cli, config_file, tmp_path, pictures):
    done, report = check(cli, tmp_path, config_file, "--no-near")
    assert (done.code, done.err) == (0, "")
    assert [split["name"] for split in report["splits"]] == ["train", "val"]
    part = ["-o", "DataLoader.Train.dataset.few_shot=3"]
    done, report = check(cli, tmp_path, config_file, *part)
    assert [split["pictures"] for split in report["splits"]] == [9, 23]


def test_check_of_lists_finds_what_is_in_both(cli, photos, tmp_path):
    lines = (photos / "train_list.txt").read_text().splitlines()
    (photos / "val_list.txt").write_text("\n".join(lines[:2]) + "\n")
    lists = [photos / f"{split}_list.txt" for split in ("train", "val")]
    for folder in lists:
        folder.rename(tmp_path / folder.name)
    moved = [tmp_path / path.name for path in lists]
    done, report = check(cli, tmp_path, *moved, "--image-root", photos, "--no-near")
    assert len(report["findings"]["leakage"]) == 2
    assert "In more than one split" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["nowhere"], 2, "received nothing at 'nowhere'"),
        (["{photos}", "{photos}"], 2, "expected one folder"),
        (["{photos}", "--image-root", "x"], 2, "--image-root goes with list files"),
        (["{photos}", "-o", "Global.seed=1"], 2, "-o goes with a configuration"),
        (["{photos}", "--near", "13"], 2, "--near: expected 0 to 12, received 13"),
        (["{photos}", "--near", "-1"], 2, "expected an integer >= 0, received '-1'"),
        (["{photos}", "--imbalance", "nan"], 2, "expected a number >= 1, received 'nan'"),
        (["{photos}", "--out", "/dev/null/x"], 1, "cannot write /dev/null/x"),
        (["{empty}"], 1, "expected pictures"),
        (["{wrong}"], 2, "wrong.yaml:1: Archive"),
        ([], 2, "the following arguments are required"),
    ],
)
def test_check_tells_a_mistake_in_one_line(cli, photos, tmp_path, arguments, code, what):
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.yaml").write_text("Archive: 3\n")
    names = {"photos": photos, "empty": tmp_path / "empty", "wrong": tmp_path / "wrong.yaml"}
    done = cli("data", "check", *(argument.format(**names) for argument in arguments))
    assert done.code == code
    assert what in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_check_leaves_nothing(photos, tmp_path, number, code):
    os.mkfifo(photos / "train" / "red" / "pipe.png")
    process = support.start([CLI, "data", "check", photos, "--workers", "2"], tmp_path)
    support.wait_until(lambda: len(support.children(process.pid)) > 0, "the readers to start")
    readers = support.children(process.pid)
    os.kill(process.pid, number)
    done = support.finish(process)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    support.wait_until(lambda: not any(map(support.alive, readers)), "the readers to end", 5)
    assert not (tmp_path / "output").exists()


# list ---------------------------------------------------------------------------------------------


def test_one_picture_of_one_class_is_counted_as_such(cli, tmp_path):
    (tmp_path / "one/cat").mkdir(parents=True)
    Image.fromarray(support.picture("red", 0)).save(tmp_path / "one/cat/a.png")
    listed = cli("data", "list", tmp_path / "one", "--val", "0")
    assert "one: 1 picture in 1 class\n" in listed.out and "  1 name\n" in listed.out
    checked = cli("data", "check", tmp_path / "one", "--out", tmp_path / "out", "--workers", "0")
    assert re.search(r"one: 1 picture \(.* 1\), 1 class\n", checked.out)
    packed = cli("data", "pack", tmp_path / "one", tmp_path / "packed")
    assert packed.out.startswith(f"{tmp_path / 'packed'}: 1 picture in 1 shard, ")


def test_list_prints_what_can_be_pasted(cli, photos, config_file, tmp_path):
    done = cli("data", "list", photos / "train", "--val", "0.25", "--out", tmp_path / "lists")
    assert (done.code, done.err) == (0, "")
    head, _, text = done.out.partition("\n\nin a configuration:\n\n")
    assert "24 pictures in 3 classes" in head
    pasted = yaml.safe_load(text)
    tree = yaml.safe_load(config_file.read_text())
    for mode in ("Train", "Eval"):
        operations = tree["DataLoader"][mode]["dataset"]["transform_ops"]
        tree["DataLoader"][mode]["dataset"] = pasted["DataLoader"][mode]["dataset"]
        tree["DataLoader"][mode]["dataset"]["transform_ops"] = operations
    tree["Arch"].update(pasted["Arch"])
    tree["Infer"]["PostProcess"].update(pasted["Infer"]["PostProcess"])
    path = support.write_config(tmp_path / "pasted.yaml", tree)
    _, report = check(cli, tmp_path, path, "--no-near")
    assert [split["pictures"] for split in report["splits"]] == [18, 6]
    counts = report["splits"][1]["class_counts"]
    assert [(row["name"], row["pictures"]) for row in counts] == [(n, 2) for n in support.CLASSES]


def test_list_does_not_part_what_check_calls_alike(cli, tmp_path):
    folder = tmp_path / "alike" / "class"
    folder.mkdir(parents=True)
    for number in range(20):
        coarse = np.random.default_rng(number // 2).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.jpg", quality=60 + number)
    _, report = check(cli, tmp_path, folder.parent)
    assert len(report["findings"]["near_duplicate"]) == 10
    plain = cli("data", "list", folder.parent, "--val", "0.5", "--out", tmp_path / "plain")
    known = ["--together", tmp_path / "out" / "check.json"]
    kept = cli("data", "list", folder.parent, "--val", "0.5", "--out", tmp_path / "kept", *known)
    assert (plain.code, kept.code) == (0, 0)
    leaks = {}
    for name in ("plain", "kept"):
        lists = [tmp_path / name / f"{split}_list.txt" for split in ("train", "val")]
        _, report = check(cli, tmp_path, *lists, "--image-root", folder.parent)
        leaks[name] = len(report["findings"]["leakage"])
    assert leaks["plain"] > 0
    assert leaks["kept"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["{photos}/train", "--val", "1"], 2, "--val: expected val >= 0, test >= 0"),
        (["{photos}/train", "--group", "("], 2, "--group: expected a regular expression"),
        (["{photos}/train", "--group", "a", "--together", "b"], 2, "--group or --together"),
        (["{photos}/train", "--together", "nowhere.json"], 1, "nowhere.json: No such file"),
        (["nowhere"], 1, "expected a folder at 'nowhere'"),
        (["{photos}/train/red"], 1, "expected one sub-folder per class"),
        (["{photos}/train", "--out", "{photos}"], 1, "is there already; --force"),
    ],
)
def test_list_tells_a_mistake_in_one_line(cli, photos, arguments, code, what):
    done = cli("data", "list", *(argument.format(photos=photos) for argument in arguments))
    assert (done.code, done.out) == (code, "")
    assert what in done.err
    assert "Traceback" not in done.err
    assert done.err.count("\n") == 1


# doctor and pack ----------------------------------------------------------------------------------


def test_doctor_prints_what_it_measured(cli, config_file):
    pytest.importorskip("ppcls.engine.doctor")
    done = cli("data", "doctor", "-c", config_file, "--batches", "2")
    assert done.code == 0, done.err
    assert done.out.strip()


def test_a_stopped_pack_says_how_to_go_on(cli, photos, tmp_path):
    many = tmp_path / "many"
    for number in range(60):
        shutil.copytree(photos / "train", many / f"{number}")
    arguments = ["data", "pack", many, tmp_path / "packed", "--shard-mb", "0.02", "--workers", "1"]
    process = support.start([CLI, *arguments], tmp_path)
    support.wait_until((tmp_path / "packed/shard-000001.tar").exists, "the first shards")
    os.kill(process.pid, signal.SIGTERM)
    done = support.finish(process)
    assert (done.returncode, done.stdout) == (143, "")
    assert "the same command goes on" in done.stderr
    assert not (tmp_path / "packed/index.json").exists()
    assert not list((tmp_path / "packed").glob("*.part"))
    assert cli(*arguments).code == 0


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8:strict"])
def test_names_that_the_terminal_cannot_show(photos, tmp_path, encoding):
    out = tmp_path / os.fsdecode("höhe-".encode() + b"\xff")
    command = [sys.executable, CLI, "data", "pack", photos, out]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(support.ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\udcff: 47 pictures in 2 shards" in done.stdout


def test_pack_says_what_it_packed(cli, photos, tmp_path):
    pytest.importorskip("ppcls.data.pack")
    done = cli("data", "pack", photos, tmp_path / "packed")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{tmp_path / 'packed'}: 47 pictures in 2 shards, ")
    done = cli("data", "pack", photos, photos)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "out: expected another folder" in done.err
