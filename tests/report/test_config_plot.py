"""``ppcls config plot``: the curves are those of training, and a picture comes out."""

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

    class Section:
        def decay_at(self, step):
            return 1 - 1 / (step + 2)

        def size_at(self, epoch):
            return {1: 128, 2: 160}[epoch]

    config.EMA = config.Progressive = Section()
    _, _, decay, size = curves(config, Length(2, 2))
    assert (decay.name, decay.values.tolist()) == ("EMA decay", [0.5, 1 - 1 / 3, 0.75, 0.8])
    assert size.values.tolist() == [128, 128, 160, 160]


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
