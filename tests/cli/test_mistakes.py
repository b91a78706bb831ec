"""A user's mistake gets a sentence that names it and the right exit code, never a traceback."""

import json
import re

import pytest
import support

pytest.importorskip("paddle")

# name of the mistake: command, overrides, exit code, what the message says
MISTAKES = {
    "no configuration": ("train", "/nowhere.yaml", [], 2, r"/nowhere\.yaml: .*"),
    "missing data": (
        "train",
        None,
        ["DataLoader.Train.dataset.image_root=/nowhere"],
        1,
        r"error: command-line:1: DataLoader\.Train\.dataset\.image_root: expected a folder at "
        r"'/nowhere', received none; dataset/README\.md explains how to lay a data set out",
    ),
    "missing evaluation data": (
        "train",
        None,
        ["DataLoader.Eval.dataset.image_root=/nowhere"],
        1,
        r"error: command-line:1: DataLoader\.Eval\.dataset\.image_root: expected a folder.*",
    ),
    "misspelt key": (
        "train",
        None,
        ["Global.epoch=3"],
        2,
        r"command-line:1: Global\.epoch: .*did you mean 'epochs'\?",
    ),
    "wrong type": ("train", None, ["Global.epochs=many"], 2, r"command-line:1: Global\.epochs: .*"),
    "out of range": ("train", None, ["Global.epochs=0"], 2, r"command-line:1: Global\.epochs: .*"),
    "no value": ("train", None, ["Global.epochs"], 2, r".*Global\.epochs.*"),
    "value that is no YAML": ("train", None, ["Global.epochs=[1"], 2, r".*command-line:1.*"),
    "unknown network": (
        "train",
        None,
        ["Arch.name=MobileNext_x0_1"],
        2,
        r"command-line:1: Arch\.name: .*did you mean 'MobileNeXt_x0_1'\?",
    ),
    "too few classes": (
        "train",
        None,
        ["Arch.class_num=2"],
        1,
        r"error: .*\.yaml:\d+: DataLoader\.Train\.dataset: .*Arch\.class_num 2.*received 3",
    ),
    "missing weights": (
        "eval",
        None,
        ["Global.pretrained_model=/nowhere"],
        1,
        r"error: /nowhere: no weights there; looked for /nowhere/model\.pdparams, .*",
    ),
    "weights from the web": (
        "eval",
        None,
        ["Global.pretrained_model=ftp://example.org/a.pdparams"],
        1,
        r"error: ftp://example\.org/a\.pdparams: is no address of a file: expected http://.*",
    ),
    "missing checkpoint": (
        "train",
        None,
        ["Global.checkpoints=/nowhere"],
        1,
        r"error: /nowhere: there is no such checkpoint",
    ),
    "loss lost": (
        "train",
        None,
        ["Optimizer.lr.learning_rate=1e30"],
        1,
        r"error: (the loss is (nan|inf) in epoch 1, batch \d, step \d .*: the run cannot go on"
        r"|'.*' is not finite any more: nothing was saved); a lower learning rate .* usual cure",
    ),
    "more ranks than classes": (
        "train",
        None,
        ["Metric.Eval=[{TopkAcc: {topk: [1, 5]}}]"],
        2,
        r".*Metric\.Eval.*topk: expected at most the 3 classes of Arch\.class_num, received 5",
    ),
    "batch beyond the data": (
        "train",
        None,
        ["DataLoader.Train.sampler.batch_size=100"],
        2,
        r"command-line:1: DataLoader\.Train\.sampler\.batch_size: .*24 samples.*",
    ),
    "no section": (
        "train",
        None,
        ["Optimizer=null"],
        2,
        r".*Optimizer: is missing; training needs it",
    ),
    "nothing to predict": (
        "infer",
        None,
        ["Global.pretrained_model=x"],
        2,
        r"error: expected pictures: as arguments, or by -o Infer\.infer_imgs=PATH",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_in_one_line(cli, config_file, run_folder, mistake, no_leftovers):
    command, path, overrides, code, message = MISTAKES[mistake]
    done = cli(command, "-c", path or config_file, *support.override_arguments(overrides))
    first, *rest = done.err.splitlines() or [""]
    assert re.fullmatch(message, first), done.err
    assert done.code == code
    if code == 2 and not first.startswith("error: "):
        assert rest == ["1 mistake in the configuration; nothing was started"]
    else:
        assert rest == []
    assert "Traceback" not in done.err + done.out
    if mistake != "loss lost":
        assert "[Train]" not in done.out
        assert not (run_folder / "latest").exists()


def test_all_mistakes_are_reported_at_once(cli, config_file):
    overrides = ["Global.epoch=3", "Arch.name=Nothing", "Loss.Train=[{CELoss: {weight: heavy}}]"]
    done = cli("train", "-c", config_file, *support.override_arguments(overrides))
    assert done.code == 2
    assert "3 mistakes in the configuration; nothing was started" in done.err
    for number in (1, 2, 3):
        assert f"command-line:{number}: " in done.err


def test_a_mistake_in_the_file_has_its_line(cli, config_file):
    text = config_file.read_text()
    config_file.write_text(text.replace("momentum: 0.9", "momentun: 0.9"))
    [line] = [n for n, t in enumerate(text.splitlines(), 1) if "momentum: 0.9" in t]
    done = cli("train", "-c", config_file)
    assert done.code == 2
    assert f"{config_file}:{line}: Optimizer.momentun: " in done.err
    assert "did you mean 'momentum'?" in done.err


def test_an_argument_of_a_data_set_that_cannot_be_used(cli, config_file, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("file;class\n")
    dataset = f"{{_replace_: true, name: CSVDataset, image_root: /, csv_path: {file}}}"
    done = cli("train", "-c", config_file, "-o", f"DataLoader.Train.dataset={dataset}")
    assert done.code == 2
    place = f"command-line:1: DataLoader.Train.dataset.delimiter: {file}: expected at least 2"
    assert done.err.startswith(place)


def test_mistakes_of_a_list_file_have_their_lines(cli, config_file, pictures, tmp_path):
    good = sorted((pictures / "train").rglob("*.png"))[0]
    lines = [f"{good} 0", f"{good}", "/nowhere.png 1", f"{good} 3"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    dataset = (
        "{_replace_: true, name: ImageNetDataset, image_root: /, "
        f"cls_label_path: {tmp_path}/list.txt, transform_ops: {json.dumps(support.TRANSFORMS)}}}"
    )
    done = cli("train", "-c", config_file, "-o", f"DataLoader.Train.dataset={dataset}")
    assert done.code == 1
    for number in (2, 3, 4):
        assert f"{tmp_path}/list.txt:{number}: expected" in done.err
    assert f"{tmp_path}/list.txt:1:" not in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("taken", ["output", "output/MobileNeXt_x0_1"])
def test_a_file_in_the_way_of_the_results(cli, config_file, tmp_path, taken):
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).touch()
    done = cli("train", "-c", config_file)
    assert done.code == 1
    assert re.fullmatch(r"error: cannot write to .*/output/MobileNeXt_x0_1: .*\n", done.err)


@pytest.mark.parametrize("taken", ["train.log", "config.yaml"])
def test_a_folder_in_the_way_of_a_file(cli, config_file, run_folder, taken):
    (run_folder / taken).mkdir(parents=True)
    done = cli("train", "-c", config_file)
    assert done.code == 1
    assert re.fullmatch(r"error: cannot write to .*\n", done.err)


def test_a_picture_that_cannot_be_read_stops_the_run_by_name(
    cli, config_file, tmp_path, no_leftovers
):
    support.write_pictures(tmp_path / "data" / "train", [4, 4, 4])
    bad = tmp_path / "data" / "train" / "red" / "red_1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    overrides = [
        f"DataLoader.Train.dataset.image_root={tmp_path / 'data'}",
        "Global.eval_during_train=false",
    ]
    for workers in (0, 1):
        number = f"DataLoader.Train.loader.num_workers={workers}"
        done = cli("train", "-c", config_file, *support.override_arguments([*overrides, number]))
        assert done.code == 1
        assert re.fullmatch(rf"error: {bad}: .*\n", done.err)


def test_a_skipped_picture_is_reported_and_the_run_goes_on(cli, config_file, tmp_path):
    support.write_pictures(tmp_path / "data" / "train", [6, 6, 6])
    bad = tmp_path / "data" / "train" / "red" / "red_1.png"
    bad.write_bytes(b"")
    overrides = [
        f"DataLoader.Train.dataset.image_root={tmp_path / 'data'}",
        "DataLoader.Train.dataset.on_error=skip",
        "DataLoader.Train.dataset.max_bad_ratio=0.2",
        "DataLoader.Train.sampler.drop_last=false",
        "Global.eval_during_train=false",
    ]
    done = cli("train", "-c", config_file, *support.override_arguments(overrides))
    assert (done.code, done.err) == (0, "")
    assert re.search(rf"ppcls WARNING: left out: {bad}: ", done.out)


def test_infer_without_configuration_takes_two_overrides_only(cli, exported):
    done = cli("infer", "-o", f"Infer.model_dir={exported}", "-o", "Global.epochs=3", "a.png")
    assert done.code == 2
    assert "received 'Global.epochs=3'" in done.err
    done = cli("infer", "a.png")
    assert done.code == 2
    assert "expected a configuration (-c FILE) or an exported model (--model FOLDER)" in done.err


def test_an_unexpected_error_shows_its_traceback_and_exits_with_one(cli, config_file, monkeypatch):
    """A bug of ours must not look like a user's mistake."""
    from ppcls.engine import trainer

    monkeypatch.setattr(trainer.Trainer, "fit", lambda self: 1 / 0)
    done = cli("train", "-c", config_file)
    assert done.code == 1
    assert "ZeroDivisionError" in done.err


def test_a_warning_of_the_configuration_does_not_stop(cli, config_file):
    done = cli("train", "-c", config_file, "-o", "Global.use_dali=true")
    assert (done.code, done.err) == (0, "")
    assert re.search(r"ppcls WARNING: .*Global\.use_dali", done.out)


@pytest.mark.parametrize("closed", ["infer", "config show"])
def test_a_reader_that_has_gone_is_no_error_worth_a_traceback(
    exported, pictures, config_file, tmp_path, closed
):
    command = {
        "infer": ["infer", "--model", exported, *[pictures / "val"] * 40],
        "config show": ["config", "show", config_file],
    }[closed]
    process = support.start(["-m", "ppcls.cli", *command], tmp_path)
    process.stdout.close()
    error = process.stderr.read()
    process.wait(60)
    assert "Traceback" not in error and "BrokenPipe" not in error, error
