"""Weights that a configuration names: PyTorch's, published ones, and what they ask of `Arch`."""

from __future__ import annotations

import numpy as np
import pytest
import support

import ppcls
from ppcls.errors import WeightsError
from ppcls.weights import load_weights
from ppcls.weights.download import place_of
from ppcls.weights.pretrained import pretrained_table

NET = "MobileNetV3_small_x0_5_paper"
OTHER = {"epsilon": 0.01, "gate_slope": 0.2}
NEEDED = {"epsilon": 1e-5, "gate_slope": 1 / 6}  # of weights with timm's names


def as_timm_writes(net):
    """The network's own weights, by timm's names and in PyTorch's layout."""
    [naming] = [n for n in net.namings() if n.library == "timm"]
    weights = {naming.rename(name): v.numpy() for name, v in net.state_dict().items()}
    return {name: v.T if v.ndim == 2 else v for name, v in weights.items()}


@pytest.fixture(scope="module")
def torch_file(tmp_path_factory):
    """Weights of timm's names for three classes."""
    from safetensors.numpy import save_file

    path = tmp_path_factory.mktemp("torch") / "timm.safetensors"
    weights = as_timm_writes(ppcls.create_model(NET, class_num=3))
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, path)
    return path


@pytest.fixture
def overrides():
    return [f"Arch.name={NET}", *(f"Arch.{name}={value}" for name, value in OTHER.items())]


def test_python_takes_the_settings_over_and_says_so(torch_file, caplog):
    net = ppcls.create_model(NET, class_num=3, **OTHER)
    report = load_weights(net, torch_file)
    assert report.library == "timm"
    assert report.adopted == NEEDED
    with caplog.at_level("INFO", "ppcls"):
        net = ppcls.create_model(NET, class_num=3, pretrained=torch_file, **OTHER)
    assert "took over {'gate_slope': 0.16666666666666666, 'epsilon': 1e-05}" in caplog.text
    assert net.settings.items() >= NEEDED.items()


@pytest.mark.parametrize("key", ["Arch.pretrained", "Global.pretrained_model"])
def test_a_run_wants_the_settings_in_the_configuration(
    key, torch_file, config_file, run_folder, overrides
):
    with pytest.raises(WeightsError) as caught:
        support.train(config_file, *overrides, f"{key}={torch_file}")
    message = str(caught.value)
    assert message.startswith(f"{torch_file}: holds timm's weights, which go with Arch.")
    assert "Arch.epsilon: 1e-05" in message
    assert "Arch.gate_slope: 0.16666666666666666" in message
    assert message.endswith("add them to the configuration")
    assert not list(run_folder.parent.rglob("*.pdparams")), "nothing was trained"


def test_evaluation_wants_them_too(cli, torch_file, config_file, overrides):
    given = support.override_arguments([*overrides, f"Global.pretrained_model={torch_file}"])
    done = cli("eval", "-c", config_file, *given)
    assert done.code == 1
    assert "add them to the configuration" in done.err


def test_with_the_settings_a_run_goes_on_and_is_loaded_again(
    torch_file, config_file, run_folder, overrides
):
    settings = [f"Arch.{name}={value!r}" for name, value in NEEDED.items()]
    given = [*overrides, *settings, f"Arch.pretrained={torch_file}"]
    support.train(config_file, *given)
    log = (run_folder.parent / NET / "train.log").read_text()
    assert f"loaded {torch_file}: " in log
    assert "by the names of timm" in log
    weights = f"Global.pretrained_model={run_folder.parent / NET / 'latest'}"
    evaluator = ppcls.Evaluator(support.load(config_file, *overrides, *settings, weights))
    assert evaluator.net.settings["epsilon"] == 1e-5


# Published weights --------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The published file of MobileNeXt_x1_0, as if it had been downloaded before."""
    import paddle

    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    path = place_of(pretrained_table()["MobileNeXt_x1_0"].url)
    path.parent.mkdir(parents=True)
    paddle.save(ppcls.create_model("MobileNeXt_x1_0", class_num=3).state_dict(), str(path))
    return path


def test_published_weights_are_evaluated(cli, config_file, published):
    given = ["Arch.name=MobileNeXt_x1_0", "Arch.pretrained=True"]
    done = cli("eval", "-c", config_file, *support.override_arguments(given))
    assert done.code == 0, done.err
    assert f"loaded {published}: " in done.out


def test_a_run_that_is_resumed_does_not_ask_for_them(config_file, run_folder):
    support.train(config_file)
    network = "Arch.pretrained=True"  # of which none are known
    with pytest.raises(WeightsError, match="no published weights are known"):
        support.train(config_file, network)
    checkpoint = f"Global.checkpoints={run_folder / 'latest'}"
    trainer = support.train(config_file, network, checkpoint, "Global.epochs=2")
    assert trainer.state.epoch == 2


def test_weights_of_other_classes_are_told(config_file, tmp_path, run_folder):
    import paddle

    path = tmp_path / "five.pdparams"
    paddle.save(ppcls.create_model(support.NET, class_num=5).state_dict(), str(path))
    support.train(config_file, f"Arch.pretrained={path}")
    assert "the classifier starts anew, for 3 classes" in (run_folder / "train.log").read_text()
