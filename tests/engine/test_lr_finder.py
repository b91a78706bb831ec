"""The learning-rate finder: a rising rate, an honest curve, and nothing left behind."""

import re

import numpy as np
import pytest
import support

from ppcls.errors import ArgumentError
from ppcls.registry import OPTIMIZERS

pytest.importorskip("paddle")

RATES = np.geomspace(1e-6, 10, 200)


def sweep(losses, exploded=True, scale=1.0, rates=RATES):
    from ppcls.engine.lr_finder import Sweep

    return Sweep(rates, np.asarray(losses), exploded, scale)


def find(config_file, *overrides, **numbers):
    from ppcls.engine.lr_finder import find_rate

    return find_rate(support.load(config_file, *overrides), **numbers)


def valley():
    """A loss that falls fastest near 1e-3, and rises slowly on both sides of that."""
    logs = np.log10(RATES)
    return 2.0 - np.tanh(2 * (logs + 3)) + 0.2 * (logs + 3) ** 2


def test_the_steepest_and_the_tenth_of_the_lowest():
    found = sweep(valley())
    assert np.log10(found.steepest) == pytest.approx(-3, abs=0.1)
    lowest = RATES[valley().argmin()]
    assert np.log10(10 * found.tenth) == pytest.approx(np.log10(lowest), abs=0.2)
    assert found.suggestion == pytest.approx(found.steepest, rel=0.05)


def test_smoothing_leaves_a_line_as_it_is():
    found = sweep(np.linspace(3, 1, 200))
    assert np.allclose(found.smooth[30:-30], found.losses[30:-30], atol=1e-6)


def test_noise_alone_gives_no_suggestion():
    rng = np.random.default_rng(0)
    suggestions = [sweep(2.3 + 0.02 * rng.normal(size=200)).suggestion for _ in range(50)]
    assert suggestions == [None] * 50


def test_a_suggestion_undoes_the_scaling_with_the_batch():
    assert sweep(valley(), scale=4.0).suggestion == pytest.approx(
        sweep(valley()).suggestion / 4, rel=0.05
    )


def test_the_rate_rises_exponentially_and_nothing_is_written(config_file, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    found = find(config_file, first=1e-5, last=1e-2, steps=10)
    assert np.allclose(found.rates, np.geomspace(1e-5, 1e-2, 10))  # over several epochs
    again = find(config_file, first=1e-5, last=1e-2, steps=10)
    assert found.losses.tolist() == again.losses.tolist()
    other = find(config_file, "Global.seed=8", first=1e-5, last=1e-2, steps=10)
    assert found.losses.tolist() != other.losses.tolist()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_step_is_what_update_freq_says(config_file):
    seen = []
    arguments = {"first": 1e-5, "last": 1e-4, "steps": 10}
    found = find(config_file, "Global.update_freq=2", **arguments, on_step=lambda: seen.append(1))
    assert len(found.rates) == len(seen) == 10
    assert np.allclose(found.rates, np.geomspace(1e-5, 1e-4, 10))


def test_it_ends_where_the_loss_explodes(config_file):
    found = find(config_file, first=1e-2, last=1e6, steps=60)
    assert found.exploded and 5 < len(found.rates) < 60
    assert np.isfinite(found.losses).all()


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n != "AdamWDL"])
def test_every_optimizer(config_file, name):
    arguments = OPTIMIZERS.entry(name).arguments()
    tree = {"name": name, "lr": {"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 1}}
    assert "lr" in arguments
    text = config_file.read_text()
    start, end = text.index("Optimizer:"), text.index("DataLoader:")
    config_file.write_text(text[:start] + f"Optimizer: {tree}\n" + text[end:])
    found = find(config_file, first=1e-6, last=1e-4, steps=10)
    assert found.rates[[0, -1]] == pytest.approx([1e-6, 1e-4])


@pytest.mark.parametrize(
    ("numbers", "argument"),
    [({"first": 1.0, "last": 0.1}, "last"), ({"steps": 3}, "steps"), ({"limit": 1.0}, "limit")],
)
def test_numbers_that_are_no_sweep(config_file, numbers, argument):
    with pytest.raises(ArgumentError, match="expected") as caught:
        find(config_file, **numbers)
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("{name: Cosine, learning_rate: 0.1}", ["learning_rate=0.02"]),
        ("{name: OneCycle, max_learning_rate: 0.1}", ["max_learning_rate=0.02"]),
        (
            "{name: Piecewise, learning_rate: 0.1, decay_epochs: [1], values: [0.1, 0.01]}",
            ["values='[0.02, 0.002]'", "learning_rate=0.02"],
        ),
    ],
)
def test_what_to_set_depends_on_the_schedule(config_file, schedule, expected):
    from ppcls.report.lr_find import settings_for

    config = support.load(config_file, "Global.epochs=3")
    text = re.sub(r"  lr:\n(    .*\n)+", f"  lr: {schedule}\n", config_file.read_text())
    config_file.write_text(text)
    config = support.load(config_file, "Global.epochs=3")
    settings = settings_for(0.02, config)
    assert settings == [f"Optimizer.lr.{setting}" for setting in expected]
    # They are read back as they are written, but for the shell's quotes.
    support.load(config_file, "Global.epochs=3", *(s.replace("'", "") for s in settings))


def test_of_a_checkpoint_the_weights_count_and_not_how_far_it_was(config_file, run_folder):
    """One with averages, which a run could only go on from with its section EMA."""
    support.train(config_file, "EMA={decay: 0.5}")
    start = f"Global.checkpoints={run_folder / 'latest'}"
    found = find(config_file, start, "EMA.decay=0.5", steps=10)
    assert found.rates[0] < found.rates[1]
