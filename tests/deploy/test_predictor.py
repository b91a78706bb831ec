"""Prediction: an answer for every picture, in order, in the published shape."""

import ast
import json
import shutil

import numpy as np
import pytest
import support
from PIL import Image

from ppcls.errors import DataError

pytest.importorskip("paddle")


@pytest.fixture(scope="module")
def predictor(exported):
    from ppcls import Predictor

    return Predictor(exported)


@pytest.fixture
def mixed(tmp_path, pictures):
    """A folder of four inputs, two of which are no pictures, and a name without a file."""
    folder = tmp_path / "mixed pictures"
    folder.mkdir()
    red, blue = (next((pictures / "val" / name).glob("*.png")) for name in ("red", "blue"))
    shutil.copy(red, folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    shutil.copy(blue, folder / "c ü#.png")
    (folder / "d.jpg").write_bytes(b"")
    return [folder / name for name in ("a.png", "b.png", "missing.png", "c ü#.png", "d.jpg")]


def test_the_shape_of_an_answer(predictor, pictures):
    path = next((pictures / "val").rglob("*.png"))
    [answer] = predictor.predict(path)
    assert list(answer) == ["class_ids", "scores", "file_name", "label_names"]
    assert sorted(answer["class_ids"]) == [0, 1, 2]
    assert all(type(i) is int for i in answer["class_ids"])
    assert all(type(s) is float and round(s, 5) == s for s in answer["scores"])
    assert answer["scores"] == sorted(answer["scores"], reverse=True)
    assert sum(answer["scores"]) == pytest.approx(1, abs=3e-5)
    assert answer["file_name"] == str(path)
    assert answer["label_names"] == [support.CLASSES[i] for i in answer["class_ids"]]


def test_scores_are_the_softmax_of_the_networks_logits(predictor, lively, pictures):
    import ppcls  # isort: skip
    import paddle

    net = ppcls.create_model(support.NET, class_num=3, pretrained=lively)
    net.eval()
    for path in sorted((pictures / "val").rglob("*.png"))[::5]:
        with paddle.no_grad():
            logits = net(paddle.to_tensor(support.preprocessed(path)))
        expected = paddle.nn.functional.softmax(logits, axis=1).numpy()[0]
        [answer] = predictor.predict(path)
        assert np.allclose(answer["scores"], expected[answer["class_ids"]], atol=2e-5)


def test_every_input_is_answered_in_order(predictor, mixed):
    answers = predictor.predict(mixed)
    assert [answer["file_name"] for answer in answers] == [str(path) for path in mixed]
    assert ["error" in answer for answer in answers] == [False, True, True, False, True]
    for answer in answers:
        if "error" in answer:
            assert list(answer) == ["file_name", "error"]
            assert answer["error"]
    assert "No such file" in answers[2]["error"]


def test_a_failure_does_not_change_its_neighbours(predictor, mixed):
    together = predictor.predict(mixed)
    for index in (0, 3):
        [alone] = predictor.predict(mixed[index])
        assert together[index]["class_ids"] == alone["class_ids"]
        assert np.allclose(together[index]["scores"], alone["scores"], atol=1e-5 + 1e-9)


def test_a_batch_of_failures_only(predictor, mixed):
    answers = predictor.predict([mixed[1], mixed[2]])
    assert [list(answer) for answer in answers] == [["file_name", "error"]] * 2


def test_answers_come_a_batch_at_a_time(predictor, trained, lively, pictures):
    from ppcls import Predictor

    config = support.load(trained / "config.yaml", f"Global.pretrained_model={lively}")
    sizes = [len(batch) for batch in Predictor(config).batches(pictures / "val")]
    assert sizes == [4, 4, 4, 4, 4, 3]  # Infer.batch_size
    assert sum(len(batch) for batch in predictor.batches(pictures / "val")) == 23


def test_a_folder_gives_its_pictures_sorted(predictor, pictures):
    answers = predictor.predict(pictures / "val")
    expected = sorted((pictures / "val").rglob("*.png"))
    assert [answer["file_name"] for answer in answers] == [str(path) for path in expected]


def test_files_and_folders_may_be_mixed(predictor, pictures):
    single = next((pictures / "train").rglob("*.png"))
    names = [a["file_name"] for a in predictor.predict([single, pictures / "val" / "red"])]
    assert names[0] == str(single)
    assert len(names) == 8


def test_a_folder_without_pictures_is_refused(predictor, tmp_path):
    with pytest.raises(DataError, match="expected pictures in this folder, found none"):
        predictor.predict(tmp_path)


def test_no_pictures_no_answers(predictor):
    assert predictor.predict([]) == []


def test_arrays_are_answered_as_their_files(predictor, pictures):
    paths = sorted((pictures / "val").rglob("*.png"))[:5]
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    from_files, from_arrays = predictor.predict(paths), predictor.predict(arrays)
    for one, other in zip(from_files, from_arrays, strict=True):
        assert other["file_name"] == "array"
        assert (one["class_ids"], one["scores"]) == (other["class_ids"], other["scores"])
    assert predictor.predict(arrays[0]) == [from_arrays[0]]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((32, 32, 3), np.float32),
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((0, 32, 3), np.uint8),
    ],
    ids=["float", "grey", "alpha", "empty"],
)
def test_an_array_that_is_no_picture_is_answered_by_an_error(predictor, wrong):
    good = support.picture("green", 1)
    answers = predictor.predict([good, wrong])
    assert "class_ids" in answers[0]
    assert list(answers[1]) == ["file_name", "error"]


def test_pictures_of_any_size_are_answered_where_nothing_makes_them_equal(
    cli, config_file, lively, tmp_path
):
    """Without a resize, two sizes cannot stand in one batch; that is no reason for a traceback."""
    paths = []
    for side in (32, 64):
        paths.append(tmp_path / f"{side}.png")
        Image.fromarray(support.picture("red", 1, side)).save(paths[-1])
    transforms = [t for t in support.TRANSFORMS if "ResizeImage" not in t]
    overrides = [
        f"Global.pretrained_model={lively}",
        f"Infer.transforms={json.dumps(transforms)}",
    ]
    done = cli("infer", "-c", config_file, *support.override_arguments(overrides), *paths)
    assert "Traceback" not in done.err, done.err
    answers = [a for line in done.out.splitlines() for a in ast.literal_eval(line)]
    assert [answer["file_name"] for answer in answers] == [str(path) for path in paths]


@pytest.mark.parametrize("kind", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_pictures_of_other_kinds_are_answered(predictor, tmp_path, kind):
    suffix = ".tif" if kind == "CMYK" else ".png"
    path = tmp_path / f"picture{suffix}"
    if kind == "I;16":
        Image.fromarray(support.picture("red", 1)[..., 0].astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(support.picture("red", 1)).convert(kind).save(path)
    [answer] = predictor.predict(path)
    assert "class_ids" in answer, answer


def test_label_names_of_training_come_with_the_weights(config_file, trained):
    from ppcls import Predictor

    config = support.load(config_file, f"Global.pretrained_model={trained / 'latest'}")
    [answer] = Predictor(config).predict(support.picture("red", 1))
    assert answer["label_names"] == [support.CLASSES[i] for i in answer["class_ids"]]


def test_label_names_of_a_file_win(config_file, trained, tmp_path):
    from ppcls import Predictor

    (tmp_path / "names.txt").write_text("0 zero\n1 one\n2 two, or so\n")
    config = support.load(
        config_file,
        f"Global.pretrained_model={trained / 'latest'}",
        f"Infer.PostProcess.class_id_map_file={tmp_path / 'names.txt'}",
    )
    [answer] = Predictor(config).predict(support.picture("red", 1))
    assert answer["label_names"] == [["zero", "one", "two, or so"][i] for i in answer["class_ids"]]


def test_weights_alone_give_answers_without_names(config_file, trained, tmp_path):
    from ppcls import Predictor

    shutil.copy(trained / "latest" / "model.pdparams", tmp_path / "published.pdparams")
    config = support.load(config_file, f"Global.pretrained_model={tmp_path / 'published'}")
    [answer] = Predictor(config).predict(support.picture("red", 1))
    assert list(answer) == ["class_ids", "scores", "file_name"]


def test_a_list_data_set_has_no_class_folders_to_name(config_file, pictures, run_folder):
    dataset = (
        f"{{_replace_: true, name: ImageNetDataset, image_root: {pictures}, cls_label_path: "
        f"{pictures}/train_list.txt, transform_ops: {json.dumps(support.TRANSFORMS)}}}"
    )
    support.train(
        config_file, f"DataLoader.Train.dataset={dataset}", "Global.eval_during_train=false"
    )
    assert support.read_state(run_folder / "latest")["class_names"] is None


def test_two_predictors_live_in_one_process(exported, trained, config_file, pictures):
    from ppcls import Predictor

    paths = sorted((pictures / "val").rglob("*.png"))[:6]
    config = support.load(config_file, f"Global.pretrained_model={trained / 'epoch_1'}")
    one, other = Predictor(exported), Predictor(config)
    before = one.predict(paths), other.predict(paths)
    assert before[0] != before[1]
    assert (one.predict(paths), other.predict(paths)) == before


# The command -------------------------------------------------------------------------------------


def test_the_command_prints_a_python_list_a_batch(cli, config_file, lively, mixed):
    weights = ["-o", f"Global.pretrained_model={lively}", "-o", "Infer.batch_size=2"]
    done = cli("infer", "-c", config_file, *weights, *mixed)
    assert done.code == 1
    batches = [ast.literal_eval(line) for line in done.out.splitlines()]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    answers = [answer for batch in batches for answer in batch]
    assert [answer["file_name"] for answer in answers] == [str(path) for path in mixed]
    assert "Traceback" not in done.err


def test_the_command_prints_one_json_object_a_line(cli, exported, mixed):
    done = cli("infer", "--model", exported, "--format", "json", *mixed)
    assert done.code == 1
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert [answer["file_name"] for answer in answers] == [str(path) for path in mixed]
    assert ["error" in answer for answer in answers] == [False, True, True, False, True]


def test_all_good_pictures_exit_with_zero(cli, exported, mixed):
    assert cli("infer", "--model", exported, mixed[0], mixed[3]).code == 0


def test_only_answers_are_on_standard_output(cli, config_file, lively, exported, pictures):
    """Also while Paddle's C++ builds its predictor, which prints there."""
    path = next((pictures / "val").rglob("*.png"))
    weights = f"Global.pretrained_model={lively}"
    for source in (["-c", config_file, "-o", weights], ["--model", exported]):
        done = cli("infer", *source, path)
        [answers] = [ast.literal_eval(line) for line in done.out.splitlines()]
        assert answers[0]["file_name"] == str(path)


def test_only_answers_are_on_standard_output_of_a_process(exported, pictures, tmp_path):
    path = next((pictures / "val").rglob("*.png"))
    done = support.run(["-m", "ppcls.cli", "infer", "--model", exported, path], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(ast.literal_eval(done.stdout)) == 1


def test_infer_imgs_of_the_configuration(cli, config_file, lively, pictures):
    overrides = [
        f"Global.pretrained_model={lively}",
        f"Infer.infer_imgs={pictures / 'val' / 'green'}",
    ]
    done = cli("infer", "-c", config_file, *support.override_arguments(overrides))
    assert done.code == 0
    assert [len(ast.literal_eval(line)) for line in done.out.splitlines()] == [4, 4]


def test_the_published_sample_line(capsys):
    """The line of the design, from scores that give it."""
    from ppcls.data.postprocess import Topk

    scores = [0.85077, 0.0157, 0.01342, 0.00362, 0.00354]
    ids = [178, 211, 246, 236, 209]
    probabilities = np.full(1000, (1 - sum(scores)) / 995)
    probabilities[ids] = scores
    topk = Topk(topk=5, class_id_map_file="imagenet1k_label_list.txt")
    answers = topk(np.log(probabilities)[None], ["./ILSVRC2012_val_00020010.jpeg"])
    assert str(answers) == (
        "[{'class_ids': [178, 211, 246, 236, 209], 'scores': [0.85077, 0.0157, 0.01342, 0.00362, "
        "0.00354], 'file_name': './ILSVRC2012_val_00020010.jpeg', 'label_names': ['Weimaraner', "
        "'vizsla, Hungarian pointer', 'Great Dane', 'Doberman, Doberman pinscher', "
        "'Chesapeake Bay retriever']}]"
    )
