"""A temperature is fitted, kept beside the weights, and honoured by what predicts with them."""

import json
import shutil

import numpy as np
import pytest
import support
import yaml

pytest.importorskip("paddle")


@pytest.fixture
def weights(lively, tmp_path):
    """A checkpoint of one's own, to be calibrated."""
    return shutil.copytree(lively, tmp_path / "own" / "best_model")


@pytest.fixture
def calibrated(cli, config_file, weights):
    """The checkpoint, calibrated, and what its file says."""
    done = cli("eval", "-c", config_file, weights, "--calibrate")
    assert (done.code, done.err) == (0, "")
    return weights, json.loads((weights / "calibration.json").read_text())


def softmax(logits):
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def scores(answers):
    return np.array([answer["scores"] for answer in answers])


def plain_logits(weights, paths):
    import ppcls  # isort: skip
    import paddle

    net = ppcls.create_model(support.NET, class_num=3)
    net.set_state_dict(paddle.load(str(weights / "model.pdparams")))
    net.eval()
    images = paddle.to_tensor(np.concatenate([support.preprocessed(path) for path in paths]))
    with paddle.no_grad():
        return net(images).numpy().astype(np.float64)


def test_the_temperature_has_the_least_log_loss(calibrated, pictures):
    weights, found = calibrated
    paths = sorted((pictures / "val").rglob("*.png"))
    labels = np.array([support.CLASSES.index(path.parent.name) for path in paths])
    logits = plain_logits(weights, paths)

    def loss(temperature):
        return -np.log(softmax(logits / temperature)[np.arange(len(labels)), labels]).mean()

    best = found["temperature"]
    assert 0.01 < best < 100
    assert loss(best) < min(loss(best * 1.001), loss(best / 1.001))
    assert found["log_loss"]["before"] == pytest.approx(loss(1), rel=1e-5)
    assert found["log_loss"]["after"] == pytest.approx(loss(best), rel=1e-5)
    assert found["images"] == len(paths)


def test_infer_and_export_answer_with_scaled_logits(calibrated, config_file, pictures, tmp_path):
    from ppcls import Predictor, export_model

    weights, found = calibrated
    paths = sorted((pictures / "val").rglob("*.png"))[::5]
    expected = softmax(plain_logits(weights, paths) / found["temperature"])
    expected = -np.sort(-expected, axis=1)
    config = support.load(config_file, f"Global.pretrained_model={weights}")
    assert np.allclose(scores(Predictor(config).predict(paths)), expected, atol=2e-5)
    folder = export_model(config)
    assert np.allclose(scores(Predictor(folder).predict(paths)), expected, atol=2e-5)
    described = yaml.safe_load((folder / "inference.yml").read_text())
    assert described["PostProcess"]["temperature"] == found["temperature"]
    plain = -np.sort(-softmax(plain_logits(weights, paths)), axis=1)
    assert np.abs(plain - expected).max() > 1e-3  # or the test could not tell


def test_a_temperature_in_the_configuration_goes_before(calibrated, config_file, pictures):
    from ppcls import Predictor

    weights, _ = calibrated
    path = sorted((pictures / "val").rglob("*.png"))[0]
    overrides = f"Global.pretrained_model={weights}", "Infer.PostProcess.temperature=3"
    [answer] = Predictor(support.load(config_file, *overrides)).predict(path)
    expected = -np.sort(-softmax(plain_logits(weights, [path]) / 3))
    assert np.allclose(answer["scores"], expected, atol=2e-5)


def test_the_checkpoint_stays_valid(calibrated):
    from ppcls.weights.manifest import read_manifest, verify_files

    weights, _ = calibrated
    verify_files(weights, read_manifest(weights), ["model.pdparams"])


def test_a_temperature_of_other_weights_is_left_out(calibrated, config_file, lively, capfd):
    from ppcls.engine.calibration import calibration_file, read_temperature
    from ppcls.engine.logging import make_logger

    weights, found = calibrated
    assert read_temperature(weights / "model.pdparams", make_logger()) == found["temperature"]
    other = dict(found["weights"], sha256="0" * 64)
    content = json.dumps({**found, "weights": other})
    calibration_file(weights / "model.pdparams").write_text(content)
    assert read_temperature(weights / "model.pdparams", make_logger()) is None
    assert "left out: it was fitted for other weights" in capfd.readouterr().out


def test_a_file_beside_other_weights_has_their_name(tmp_path):
    from ppcls.engine.calibration import calibration_file

    assert calibration_file(tmp_path / "net.pdparams") == tmp_path / "net.calibration.json"


@pytest.mark.parametrize("content", ["", "{}", '{"temperature": "x", "weights": {}}', "[1]"])
def test_a_damaged_file_is_named(weights, content):
    from ppcls.engine.calibration import read_temperature
    from ppcls.engine.logging import make_logger
    from ppcls.errors import WeightsError

    (weights / "calibration.json").write_text(content)
    with pytest.raises(WeightsError, match=r"calibration\.json: "):
        read_temperature(weights / "model.pdparams", make_logger())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tta", "flip"], "--calibrate: infer and export show one view of each picture"),
        (["--allow-random"], "--calibrate: expected weights, received random ones"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(cli, config_file, arguments, message):
    done = cli("eval", "-c", config_file, "--calibrate", *arguments)
    assert done.code == 2
    assert message in done.err and "Traceback" not in done.err
