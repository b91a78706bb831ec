"""``ppcls finetune``: from a folder of photos to results."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import support
import yaml
from PIL import Image

pytest.importorskip("paddle")

NAME = support.NET


@pytest.fixture
def photos(tmp_path):
    """Class folders with 12, 12 and 8 photos, one of which is broken."""
    folder = tmp_path / "photos"
    support.write_pictures(folder, [12, 12, 8])
    (folder / "red" / "red_0.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def finetune(cli, trained, tmp_path):
    """Runs the command on a folder, with weights; results go to ``tmp_path/out``."""

    def run(folder, *arguments, model=NAME, weights=trained / "latest"):
        given = ["--pretrained", weights] if weights else []
        return cli(
            *("finetune", "--data", folder, "--model", model, "--out", tmp_path / "out"),
            *(*given, "--yes", *arguments),
        )

    return run


def test_from_folders_to_results(cli, finetune, photos, tmp_path):
    done = finetune(photos, "--epochs", "2", "-o", "DataLoader.Train.loader.num_workers=0")
    assert done.code == 0, done.err
    assert f"left out: {photos}/red/red_0.png: " in done.out
    assert "warning: few photos to learn from, 50 are a start: blue (10), green (10)" in done.out
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())
    lists = [(out / f"{split}_list.txt").read_text() for split in ("train", "val")]
    assert [text.count("\n") for text in lists] == [31 - results["photos"], results["photos"]]
    assert "red_0.png" not in "".join(lists)
    assert (results["model"], results["epochs"], results["split"]) == (NAME, 2, "val")
    assert [row["name"] for row in results["per_class"]] == support.CLASSES
    assert sum(row["right"] for row in results["per_class"]) == results["right"]
    assert len(results["wrong"]) == results["photos"] - results["right"]
    assert results["top1"] == pytest.approx(results["right"] / results["photos"], abs=1e-5)
    evaluated = [json.loads(line) for line in (out / NAME / "metrics.jsonl").open()]
    assert results["top1"] == max(x["top1"] for x in evaluated if x["kind"] == "eval")
    assert f"{results['right']} of {results['photos']} photos right" in done.out
    assert (out / "summary.txt").read_text() in done.out
    [picture] = list((photos / "blue").glob("blue_1.png"))
    words = results["commands"]["predict"].split()[1:-1]
    assert "'label_names': [" in cli(*words, picture).out
    again = cli("train", "-c", out / "finetune.yaml", "-o", "Global.epochs=1")
    assert again.code == 0, again.err


def test_lists_that_are_there_are_kept_and_test_is_looked_at_once(finetune, photos, tmp_path):
    """A photo that stands in both lists is counted apart."""
    files = sorted(path for path in photos.rglob("*.png") if path.name != "red_0.png")
    shutil.copy(files[0], photos / "blue" / "copy.png")
    lines = [f"{p.relative_to(photos)} {support.CLASSES.index(p.parent.name)}\n" for p in files]
    (photos / "train_list.txt").write_text("".join(lines[::2]))
    (photos / "test_list.txt").write_text("".join([*lines[1::2], "blue/copy.png 0\n"]))
    done = finetune(photos, "--epochs", "2")
    assert done.code == 0, done.err
    assert "1 photo of test looks like one to learn from" in done.out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["split"], results["lookalikes"]) == ("test", 1)
    difference = results["right"] - results["right_without_lookalikes"]
    assert difference in (0, 1)
    share = results["right_without_lookalikes"] / (results["photos"] - 1)
    assert results["top1_without_lookalikes"] == pytest.approx(share, abs=1e-5)
    log = (tmp_path / "out" / NAME / "train.log").read_text()
    assert log.count("[Eval][Epoch 2][Avg]") == 1
    assert "[Eval][Epoch 1]" not in log


def test_dry_run_writes_the_configuration_with_what_is_set(finetune, photos, tmp_path):
    done = finetune(photos, "--dry-run", "-o", "Finetune.freeze_until=2")
    assert done.code == 0, done.err
    file = tmp_path / "out" / "finetune.yaml"
    assert yaml.safe_load(file.read_text())["Finetune"]["freeze_until"] == 2
    assert file.read_text() in done.out
    assert not (tmp_path / "out" / NAME).exists()
    again = finetune(photos, "--dry-run")
    assert again.code == 1
    assert "finetune.yaml is there already" in again.err
    assert finetune(photos, "--dry-run", "--force").code == 0


def test_a_mistake_leaves_nothing_behind(cli, finetune, photos, tmp_path, trained, monkeypatch):
    done = finetune(photos, "-o", "Global.epoch=3")
    assert (done.code, "did you mean 'epochs'?" in done.err) == (2, True)
    done = finetune(photos, weights=trained / "latest", model="ResNet18")
    assert (done.code, "another architecture than ResNet18" in done.err) == (1, True)
    assert not (tmp_path / "out").exists()
    monkeypatch.chdir(photos)
    done = cli("finetune", "--data", ".", "--dry-run")
    assert (done.code, "--out: expected a folder outside of ." in done.err) == (2, True)


def test_ctrl_d_is_no_consent(monkeypatch):
    from ppcls import cli_finetune

    for answer, agreed in (("", False), ("\n", True), ("Yes\n", True), ("n\n", False)):
        terminal = SimpleNamespace(isatty=lambda: True, readline=lambda a=answer: a)
        screen = SimpleNamespace(isatty=lambda: True, write=len, flush=lambda: None)
        fake = SimpleNamespace(stdin=terminal, stdout=screen)
        monkeypatch.setattr(cli_finetune, "sys", fake)
        assert cli_finetune._agreed() == agreed


def test_choices_follow_the_photos_and_the_network(tmp_path):
    from ppcls.report.finetune_photos import find_photos
    from ppcls.report.finetune_plan import configuration, make_plan

    support.write_pictures(tmp_path / "photos", [70, 70, 70])
    photos = find_photos(tmp_path / "photos", 0.2, 0, 0)

    def plan(model):
        return make_plan(photos, model, None, tmp_path, 0, None)

    small, fixed = plan("MobileNetV2"), plan("DeiT_tiny_patch16_224")
    assert (small.size, fixed.size) == (96, 224)
    assert (small.batch, small.epochs) == (16, 6)  # 168 photos, 11 steps a round
    text = configuration(plan("EfficientNet_lite0"), ["ppcls"])
    readers = yaml.safe_load(text)["DataLoader"]
    for mode in ("Train", "Eval"):
        transforms = readers[mode]["dataset"]["transform_ops"]
        assert {"NormalizeImage": {"scale": 1.0, "mean": [127] * 3, "std": [128] * 3}} in transforms


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("MobileNeXt_x0_35", "error: no weights of MobileNeXt_x0_35 are published .*--pretrained"),
        ("MobileNetV22", "error: --model: there is no network 'MobileNetV22'; did you mean"),
    ],
)
def test_networks_that_cannot_be_fine_tuned(finetune, photos, model, message):
    done = finetune(photos, model=model, weights=None)
    assert done.code in (1, 2)
    assert re.match(message, done.err)
    assert done.err.count("\n") == 1


def test_folders_that_cannot_be_learnt_from(finetune, tmp_path):
    folder = tmp_path / "photos"
    for counts, message in [
        (None, "is no folder"),
        ([], "expected a folder for each class, such as"),
        ([3], "expected a folder for each of at least two classes, received one, 'blue'"),
        ([3, 0], "expected pictures .* in every class folder, received none in '.*green'"),
    ]:
        shutil.rmtree(folder, ignore_errors=True)
        for name, count in zip(support.CLASSES, counts or [], strict=False):
            (folder / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(support.picture(name, i)).save(folder / name / f"{i}.png")
        if counts == []:
            folder.mkdir()
        done = finetune(folder)
        assert done.code == 1
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert re.search(message, done.err), done.err


def test_a_class_of_one_photo_is_learnt_from_and_said(finetune, tmp_path):
    support.write_pictures(tmp_path / "photos", [5, 5, 1])
    done = finetune(tmp_path / "photos", "--dry-run")
    assert done.code == 0, done.err
    assert "warning: no photo to test with, a class needs two for that: red" in done.out
