"""Export: a folder that needs nothing else and answers as the network does."""

import ast
import re
import shutil

import numpy as np
import pytest
import support
import yaml

from ppcls.config import ConfigError
from ppcls.errors import PPClsError, TrainingError, WeightsError

pytest.importorskip("paddle")

FILES = {"inference.json", "inference.pdiparams", "inference.yml"}
TOOLS = support.ROOT / "tools"


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the exported folder, to be damaged."""
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.fixture(scope="module")
def network_answers(lively, trained, pictures):
    """What the trained network answers to all pictures of ``val``."""
    from ppcls import Predictor

    config = support.load(trained / "config.yaml", f"Global.pretrained_model={lively}")
    answers = Predictor(config).predict(pictures / "val")
    assert len({answer["class_ids"][0] for answer in answers}) > 1  # or the test could not tell
    return answers


def same_answers(answers, expected):
    assert [a["file_name"] for a in answers] == [e["file_name"] for e in expected]
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer["class_ids"] == wanted["class_ids"]
        assert answer["label_names"] == wanted["label_names"]
        assert np.allclose(answer["scores"], wanted["scores"], atol=1e-5 + 1e-9, rtol=0)


def export(config_file, *overrides):
    from ppcls import export_model

    return export_model(support.load(config_file, *overrides))


def test_the_folder_holds_three_files(exported):
    assert {path.name for path in exported.iterdir()} == FILES
    assert [path.name for path in exported.parent.iterdir()] == ["inference"]


def test_the_description_says_everything_a_server_needs(exported):
    said = yaml.safe_load((exported / "inference.yml").read_text())
    assert said["model_name"] == support.NET
    assert said["input_shape"] == [3, 32, 32]
    assert said["output"] == "logits"
    operations = [next(iter(op)) for op in said["PreProcess"]["transform_ops"]]
    assert operations == ["DecodeImage", "ResizeImage", "NormalizeImage", "ToCHWImage"]
    assert said["labels"] == support.CLASSES
    assert said["metrics"] == {"main": 0.5, "epoch": 5}
    assert set(said["versions"]) == {"ppcls", "paddle"}
    assert set(said["files"]) == FILES - {"inference.yml"}


def test_predictor_answers_as_the_network_does(exported, pictures, network_answers):
    from ppcls import Predictor

    same_answers(Predictor(exported).predict(pictures / "val"), network_answers)


def test_ppcls_infer_answers_as_the_network_does(cli, exported, pictures, network_answers):
    done = cli("infer", "--model", exported, pictures / "val")
    assert (done.code, done.err) == (0, "")
    answers = [a for line in done.out.splitlines() for a in ast.literal_eval(line)]
    same_answers(answers, network_answers)


def test_a_moved_folder_answers_from_another_place(
    exported, pictures, network_answers, tmp_path, trained
):
    """Through tools/infer.py, without the configuration and the labels it was exported with."""
    moved = shutil.copytree(exported, tmp_path / "somewhere else" / "model")
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    overrides = [f"Infer.model_dir={moved}", f"Infer.infer_imgs={pictures / 'val'}"]
    done = support.run([TOOLS / "infer.py", *support.override_arguments(overrides)], elsewhere)
    assert done.returncode == 0, done.stderr
    answers = [a for line in done.stdout.splitlines() for a in ast.literal_eval(line)]
    same_answers(answers, network_answers)
    assert list(elsewhere.iterdir()) == []


def test_model_dir_in_a_configuration(cli, config_file, exported, pictures, network_answers):
    options = support.override_arguments([f"Infer.model_dir={exported}"])
    done = cli("infer", "-c", config_file, *options, pictures / "val")
    answers = [a for line in done.out.splitlines() for a in ast.literal_eval(line)]
    same_answers(answers, network_answers)


def test_the_export_command_replaces_an_older_export_and_says_where(
    cli, config_file, lively, exported, tmp_path
):
    older = shutil.copytree(exported, tmp_path / "output" / "inference")
    (older / "inference.pdiparams").write_bytes(b"old")
    done = cli("export", "-c", config_file, "-o", f"Global.pretrained_model={lively}")
    assert done.code == 0
    folder = tmp_path / "output" / "inference"
    assert {path.name for path in folder.iterdir()} == FILES
    assert (folder / "inference.pdiparams").stat().st_size > 1e6
    assert [path.name for path in folder.parent.iterdir()] == ["inference"]
    assert f"exported {support.NET} to {folder}" in done.out
    match = re.search(r"Paddle Inference on \d+ pictures: \S+, (\S+) of their spread", done.out)
    assert float(match[1]) < 1e-4


@pytest.mark.parametrize("name", sorted(FILES - {"inference.yml"}))
@pytest.mark.parametrize("damage", [support.flip_bit, support.truncate, lambda p: p.unlink()])
def test_a_missing_or_damaged_file_is_refused(copy, name, damage):
    from ppcls import Predictor

    damage(copy / name)
    with pytest.raises(WeightsError, match=re.escape(str(copy / name))):
        Predictor(copy)


def test_a_missing_description_is_refused(cli, copy, pictures):
    (copy / "inference.yml").unlink()
    done = cli("infer", "--model", copy, pictures / "val")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"error: {copy}: is not an exported model: inference.yml is missing\n"


def test_a_description_with_mistakes_is_refused_with_the_line(copy):
    from ppcls import Predictor

    path = copy / "inference.yml"
    path.write_text(path.read_text().replace("NormalizeImage", "NormaliseImage"))
    with pytest.raises(ConfigError, match=r"inference\.yml:\d+: .*did you mean 'NormalizeImage'"):
        Predictor(copy)


@pytest.mark.parametrize("entry", ["inference.pdiparams", "inference.json"])
def test_a_description_that_does_not_vouch_for_a_file_is_refused(copy, entry):
    """Without its checksum, a missing weights file would give garbage and no error."""
    from ppcls import Predictor

    path = copy / "inference.yml"
    said = yaml.safe_load(path.read_text())
    del said["files"][entry]
    path.write_text(yaml.safe_dump(said))
    (copy / entry).unlink()
    with pytest.raises(PPClsError, match=re.escape(entry)):
        Predictor(copy)


def test_an_image_shape_that_the_transforms_do_not_give_is_refused(cli, config_file, lively):
    text = config_file.read_text()
    assert "  - 3\n  - 32\n  - 32\n" in text
    config_file.write_text(text.replace("  - 3\n  - 32\n  - 32\n", "  - 3\n  - 48\n  - 48\n", 1))
    [line] = [
        n
        for n, t in enumerate(config_file.read_text().splitlines(), 1)
        if t.startswith("  image_shape")
    ]
    done = cli("export", "-c", config_file, "-o", f"Global.pretrained_model={lively}")
    assert done.code == 2
    where = rf"{re.escape(str(config_file))}:{line}: Global\.image_shape: expected \[3, 32, 32\]"
    assert re.search(where + r".*received \[3, 48, 48\]", done.err), done.err


def test_a_failing_export_leaves_the_previous_one(config_file, lively, copy, monkeypatch, pictures):
    from ppcls import Predictor
    from ppcls.engine import exporter

    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    monkeypatch.setattr(exporter, "TOLERANCE", -1.0)
    with pytest.raises(TrainingError, match="nothing was exported"):
        export(
            config_file, f"Global.pretrained_model={lively}", f"Global.save_inference_dir={copy}"
        )
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert not [p for p in copy.parent.iterdir() if p.name.startswith(f".{copy.name}")]
    assert len(Predictor(copy).predict(pictures / "val")) == 23


def test_a_folder_that_holds_something_else_is_not_wiped(config_file, lively, tmp_path):
    """A slip such as save_inference_dir=output/Net must not cost the checkpoints."""
    folder, name = tmp_path / "mine", "best_model/model.pdparams"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("of weeks")
    target = f"Global.save_inference_dir={folder}"
    try:
        export(config_file, f"Global.pretrained_model={lively}", target)
    except PPClsError as error:
        assert str(folder) in str(error)
    assert (folder / name).is_file(), "export deleted a file that it had not written"


def test_exporting_to_the_current_folder_is_no_crash(
    cli, config_file, lively, tmp_path, monkeypatch
):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    overrides = [f"Global.pretrained_model={lively}", "Global.save_inference_dir=."]
    done = cli("export", "-c", config_file, *support.override_arguments(overrides))
    assert "Traceback" not in done.err


def test_a_file_in_the_way_is_named(cli, config_file, lively, tmp_path):
    (tmp_path / "taken").write_text("mine")
    for target in (tmp_path / "taken", tmp_path / "taken" / "inference"):
        overrides = [f"Global.pretrained_model={lively}", f"Global.save_inference_dir={target}"]
        done = cli("export", "-c", config_file, *support.override_arguments(overrides))
        assert done.code == 1
        assert "Traceback" not in done.err
        assert str(tmp_path / "taken") in done.err
        assert (tmp_path / "taken").is_file()
    assert (tmp_path / "taken").read_text() == "mine"


def test_labels_of_a_file_travel_in_the_folder(config_file, lively, tmp_path):
    from ppcls import Predictor

    names = tmp_path / "names.txt"
    names.write_text("0 bleu, azur\n1 vert\n2 rouge\n", encoding="utf-8")
    folder = export(
        config_file,
        f"Global.pretrained_model={lively}",
        f"Infer.PostProcess.class_id_map_file={names}",
    )
    names.unlink()
    image = support.picture("red", 1)
    [answer] = Predictor(folder).predict(image)
    wanted = {0: "bleu, azur", 1: "vert", 2: "rouge"}
    assert answer["label_names"] == [wanted[i] for i in answer["class_ids"]]
