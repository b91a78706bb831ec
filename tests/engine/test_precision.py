"""Mixed precision, as far as a machine without a GPU can show it."""

from __future__ import annotations

import numpy as np
import pytest
import support

from ppcls.config import ConfigError
from ppcls.config.schema import AMPSection
from ppcls.engine.distributed import World
from ppcls.engine.precision import START_SCALE, Precision
from ppcls.engine.updates import Updates
from ppcls.optim.schedules import Constant
from ppcls.registry import OPTIMIZERS

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
        ("{custom_white_list: [gelu], custom_black_list: [gelu]}", "custom_black_list"),
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


def test_a_scale_that_is_fixed_now_is_not_that_of_the_checkpoint(scaler):
    fixed = Precision(AMPSection(scale_loss=128.0))
    fixed.restore(Precision(AMPSection()).state())
    assert fixed.state()["scale"] == 128.0


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


def decorated(monkeypatch, net):
    """``net`` as ``AMP.level: O2`` leaves it on a GPU."""
    import sys
    from types import SimpleNamespace

    auto_cast = sys.modules["paddle.amp.auto_cast"]
    place = SimpleNamespace(
        is_gpu_place=lambda: True, is_xpu_place=lambda: False, is_custom_place=lambda: False
    )
    monkeypatch.setattr(
        auto_cast, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=place)
    )
    monkeypatch.setattr(auto_cast, "_is_gpu_float16_supported", lambda: True)
    arguments = {"lr": Constant(0.1, epochs=1, steps_per_epoch=1)}
    optimizer = OPTIMIZERS.build("Momentum", arguments, network=net, epochs=1)
    Precision(AMPSection(level="O2", use_dynamic_loss_scaling=False)).prepare(net, optimizer)
    return net, optimizer


def test_weights_of_16_bits_are_averaged_and_shared_themselves_not_their_copies(monkeypatch):
    import paddle

    from ppcls.engine.averaging.flat import FlatWeights
    from ppcls.weights import load_weights

    layers = paddle.nn.Linear(2, 2), paddle.nn.BatchNorm1D(2)
    net, optimizer = decorated(monkeypatch, paddle.nn.Sequential(*layers))
    assert {str(p.dtype)[7:] for p in net.parameters()} == {"float16", "float32"}
    assert {str(t.dtype)[7:] for t in net.state_dict().values()} == {"float32"}  # as saved
    assert "0.weight/master_weight" in optimizer.state_dict()
    average = FlatWeights(net)
    with average.replaced(average.read() + 1):
        inside = {name: p.numpy().copy() for name, p in net.named_parameters()}
    for name, parameter in net.named_parameters():
        np.testing.assert_allclose(inside[name], parameter.numpy() + 1, rtol=2e-3)
    load_weights(net, {name: np.full(t.shape, 3.0) for name, t in net.state_dict().items()})
    assert all((p.numpy() == 3).all() for p in net.parameters())
    monkeypatch.setattr(World, "wait", lambda _: None)
    monkeypatch.setattr(paddle.distributed, "broadcast", lambda flat, src: flat.scale_(2))
    net[0].weight.stop_gradient = True  # frozen: 16 bits beside the statistics' 32
    World(0, 2).share_buffers(net)
    assert (net[1]._mean.numpy() == 6).all() and (net[0].weight.numpy() == 6).all()
