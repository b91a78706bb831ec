"""``ppcls config plot``: the curves are those of training, and a picture comes out."""

import json

import numpy as np
import pytest
import support
import yaml
from PIL import Image

pytest.importorskip("paddle")
from ppcls.report.config_plot import Length, curves, learning_rate, measure, total_batch


def config_with(path, **lr):
    tree = yaml.safe_load(path.read_text())
    tree["Optimizer"]["lr"] = lr
    return support.write_config(path.with_name("drawn.yaml"), tree)


ONE_CYCLE = {"name": "OneCycle", "max_learning_rate": 0.5, "warmup_epoch": 1}


def test_the_picture_is_written_and_its_path_printed(cli, config_file, tmp_path):
    pytest.importorskip("matplotlib")
    path = config_with(config_file, **ONE_CYCLE)
    out = tmp_path / "new" / "rates.png"
    done = cli("config", "plot", "-c", path, "--out", out, "-o", "Global.epochs=4")
    assert (done.code, done.out.splitlines()[-1]) == (0, str(out))
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > 1000
    assert 0.005 < np.mean(pixels < 200) < 0.5  # something is drawn, and most of it is paper


def test_the_run_is_as_long_as_its_data_set_says(config_file, pictures):
    config = support.load(config_file)
    batch = config.DataLoader.Train.sampler.arguments["batch_size"]
    length = measure(config)
    assert length == Length(config.Global.epochs, -(-24 // batch))
    assert total_batch(config) == batch
    accumulated = support.load(config_file, "Global.update_freq=2")
    assert measure(accumulated).steps_per_epoch == -(-length.steps_per_epoch // 2)
    assert measure(config, 9) == Length(config.Global.epochs, 9)


def test_without_the_data_set_a_length_is_assumed_and_said(config_file, capsys, tmp_path):
    elsewhere = f"DataLoader.Train.dataset.image_root={tmp_path / 'nowhere'}"
    assert measure(support.load(config_file, elsewhere)).assumed
    assert "drawn with 100 steps an epoch (--steps-per-epoch): " in capsys.readouterr().err


def test_the_rates_are_those_that_training_uses(config_file):
    config = support.load(config_with(config_file, **ONE_CYCLE), "Global.epochs=4")
    length = Length(4, 3)
    schedule = config.Optimizer.arguments["lr"].build(epochs=4, steps_per_epoch=3)
    assert learning_rate(config, length).values.tolist() == [schedule(step) for step in range(12)]


def test_a_long_run_is_drawn_at_some_of_its_steps():
    steps = Length(300, 5000).steps
    assert (len(steps), steps[0], steps[-1]) == (2000, 0, 300 * 5000 - 1)


def test_what_is_configured_is_drawn(config_file):
    config = support.load(config_file)
    rate, momentum = curves(config, Length(2, 2))
    assert rate.name.startswith("learning rate (")
    assert (momentum.name, momentum.values.tolist()) == ("momentum", [0.9] * 4)


def test_averaging_is_drawn(config_file):
    ema = "EMA={decay: 0.15, warmup: true, start_epoch: 2}"
    config = support.load(config_file, ema, "Global.epochs=3")
    _, _, decay = curves(config, Length(3, 2))
    assert (decay.name, decay.values.tolist()) == ("EMA decay", [0, 0, 0.1, 0.15, 0.15, 0.15])
    swa = "Average={name: SWA, start_epoch: 2, lr: 0.01}"
    rate, _ = curves(support.load(config_file, swa, "Global.epochs=2"), Length(2, 2))
    assert rate.values.tolist() == [0.02, 0.02, 0.01, 0.01]


def test_stages_are_drawn(config_file):
    transforms = [{"DecodeImage": None}, {"RandCropImage": {"size": 32}}, {"RandAugment": None}]
    stages = [{"size": 16, "magnitude": 1}, {"size": [24, 32], "magnitude": 9}]
    config = support.load(
        config_file,
        f"DataLoader.Train.dataset.transform_ops={json.dumps(transforms)}",
        f"Progressive.stages={json.dumps(stages)}",
        "Global.epochs=2",
    )
    _, _, size, magnitude = curves(config, Length(2, 2))
    assert (size.name, size.values.tolist()) == ("image size (pixels)", [16, 16, 32, 32])
    assert magnitude.values.tolist() == [1, 1, 9, 9]


def test_a_schedule_that_does_not_fit_the_run_is_a_mistake_with_its_line(cli, config_file):
    lr = {"name": "Constant", "learning_rate": 0.1, "lengths": "steps", "warmup_epoch": 100}
    path = config_with(config_file, **lr)
    done = cli("config", "plot", "-c", path, "--steps-per-epoch", "2", "-o", "Global.epochs=3")
    assert done.code == 2
    assert f"{path}:" in done.err
    assert "Optimizer.lr.warmup_epoch: expected at most the 6 steps of the run" in done.err


def test_a_configuration_without_an_optimizer(cli, config_file):
    tree = yaml.safe_load(config_file.read_text())
    del tree["Optimizer"]
    path = support.write_config(config_file.with_name("bare.yaml"), tree)
    done = cli("config", "plot", "-c", path)
    assert done.code == 2
    assert "Optimizer: is missing; drawing the learning rate needs it" in done.err
