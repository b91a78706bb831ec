"""Mixed precision, as far as a machine without a GPU can show it."""

from __future__ import annotations

import numpy as np
import pytest
import support

from ppcls.config import ConfigError
from ppcls.config.schema import AMPSection
from ppcls.engine.precision import START_SCALE, Precision
from ppcls.engine.updates import Updates

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_that_were_asked_for_are_refused_on_a_cpu(config_file, dtype):
    from ppcls.engine.trainer import Trainer

    config = support.load(config_file, f"AMP={{dtype: {dtype}}}")
    with pytest.raises(ConfigError, match=rf"AMP\.dtype: expected a GPU for {dtype}.*float32"):
        Trainer(config)


def test_a_published_section_trains_in_float32_and_says_so(config_file, run_folder, capsys):
    published = "AMP={scale_loss: 128.0, use_dynamic_loss_scaling: true, level: O1}"
    support.train(config_file, published)
    assert "AMP: needs a GPU; on this CPU, training is in float32" in capsys.readouterr().out
    mixed = support.weights(run_folder / "latest")
    plain = support.weights(support.train(config_file).folder / "latest")
    assert all(np.array_equal(mixed[name], plain[name]) for name in plain)


def test_paddle_leaves_a_cpu_in_float32():
    """Should this fail, Paddle has learned it, and the refusal above can go."""
    import paddle

    net = paddle.nn.Conv2D(3, 4, 3)
    with paddle.amp.auto_cast(level="O1", dtype="bfloat16"):
        assert net(paddle.ones([1, 3, 8, 8])).dtype == paddle.float32


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("{dtype: bfloat16, scale_loss: 128.0}", "scale_loss"),
        ("{dtype: bfloat16, use_dynamic_loss_scaling: true}", "use_dynamic_loss_scaling"),
        ("{dtype: float8}", "dtype"),
        ("{level: O3}", "level"),
    ],
)
def test_mistakes_name_the_key(config_file, section, key):
    with pytest.raises(ConfigError, match=rf"AMP\.{key}: "):
        support.load(config_file, f"AMP={section}")


class Scaler:
    """What a GradScaler does on a GPU, on numbers; Paddle's own is idle on a CPU."""

    def __init__(self, init_loss_scaling, use_dynamic_loss_scaling):
        self.scale_, self.is_dynamic = init_loss_scaling, use_dynamic_loss_scaling
        self.good = 0
        self.stepped = 0

    def scale(self, loss):
        return loss * self.scale_

    def step(self, optimizer):
        self.stepped += 1
        self.good += 1

    def update(self):
        if self.good == 2:
            self.scale_, self.good = self.scale_ * 2, 0

    def state_dict(self):
        return {"scale": np.array([self.scale_], np.float32), "incr_count": self.good}

    def load_state_dict(self, state):
        self.scale_, self.good = state["scale"].item(), state["incr_count"]


@pytest.fixture
def scaler(monkeypatch):
    import paddle

    monkeypatch.setattr(paddle.amp, "GradScaler", Scaler)


@pytest.mark.parametrize(
    ("arguments", "scale", "is_dynamic"),
    [
        ({}, START_SCALE, True),
        ({"scale_loss": 128.0}, 128.0, False),
        ({"scale_loss": 128.0, "use_dynamic_loss_scaling": True}, 128.0, True),
        ({"use_dynamic_loss_scaling": False}, START_SCALE, False),
    ],
)
def test_the_scale_that_the_section_names(scaler, arguments, scale, is_dynamic):
    used = Precision(AMPSection(**arguments))._scaler
    assert (used.scale_, used.is_dynamic) == (scale, is_dynamic)


def test_bfloat16_needs_no_scale(scaler):
    assert Precision(AMPSection(dtype="bfloat16"))._scaler is None


def test_the_scale_survives_a_stop(scaler):
    import json

    class Optimizer:
        inner = None

    one = Precision(AMPSection())
    for _ in range(3):
        one.step(Optimizer())
    state = json.loads(json.dumps(one.state()))
    other = Precision(AMPSection())
    other.restore(state)
    for precision in (one, other):
        precision.step(Optimizer())
    assert one.state() == other.state() == {"scale": 4 * START_SCALE, "incr_count": 0}


def test_the_optimizer_steps_through_the_scaler(scaler):
    import paddle

    class Optimizer:
        inner = None

        def clear_grad(self):
            pass

    weight = paddle.ones([1])
    weight.stop_gradient = False
    precision = Precision(AMPSection(scale_loss=4.0))
    updates = Updates(Optimizer(), precision, every=2)
    for _ in range(2):
        updates.backward((3 * weight).sum(), samples=8)
    assert weight.grad.item() == 4.0 * 3.0
    updates.step()
    assert precision._scaler.stepped == 1
    assert not updates.is_pending


def test_without_a_section_nothing_is_kept():
    precision = Precision()
    precision.restore({"scale": 2.0})
    assert precision.state() == {}
