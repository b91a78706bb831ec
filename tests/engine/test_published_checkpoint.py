"""Checkpoints in PaddleClas's three files: read to go on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

import ppcls
from ppcls.engine.checkpoint import open_checkpoint
from ppcls.errors import WeightsError
from ppcls.optim.optimizers import Momentum
from ppcls.optim.schedules import Constant
from ppcls.weights.translate import translate_slots


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, paddle.nn.Layer, Momentum]:
    """A network after one step, saved by Paddle itself under names numbered in this process."""
    paddle.nn.Linear(2, 2)  # shifts the numbers of all names that follow
    net, optimizer = _network()
    _step(net, optimizer)
    prefix = tmp_path / "epoch_3"
    paddle.save(net.state_dict(), f"{prefix}.pdparams")
    paddle.save([optimizer.inner.state_dict()], f"{prefix}.pdopt")
    paddle.save({"metric": 0.5, "epoch": 3}, f"{prefix}.pdstates")
    return prefix, net, optimizer


def test_goes_on_with_the_same_bits(saved: tuple[Path, paddle.nn.Layer, Momentum]) -> None:
    prefix, net, optimizer = saved
    other, other_optimizer = _network()
    checkpoint = open_checkpoint(str(prefix))
    ppcls.load_weights(other, checkpoint.weights)
    other_optimizer.load_state_dict(checkpoint.optimizer)
    assert checkpoint.state == {"epoch": 3}
    for network, its_optimizer in ((net, optimizer), (other, other_optimizer)):
        _step(network, its_optimizer)
    for name, tensor in net.state_dict().items():
        assert np.array_equal(tensor.numpy(), other.state_dict()[name].numpy()), name


def test_prefix_may_carry_the_suffix(saved: tuple[Path, paddle.nn.Layer, Momentum]) -> None:
    assert open_checkpoint(f"{saved[0]}.pdparams").state == {"epoch": 3}


def test_weights_alone_are_no_checkpoint(saved: tuple[Path, paddle.nn.Layer, Momentum]) -> None:
    saved[0].with_name("epoch_3.pdopt").unlink()
    with pytest.raises(WeightsError, match="pretrained_model"):
        open_checkpoint(str(saved[0]))


def test_table_of_names_is_needed(saved: tuple[Path, paddle.nn.Layer, Momentum]) -> None:
    prefix, net, _ = saved
    arrays = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    paddle.save(arrays, f"{prefix}.pdparams")
    with pytest.raises(WeightsError, match="which parameter"):
        open_checkpoint(str(prefix))


def test_names_of_the_published_network_are_translated(tmp_path: Path) -> None:
    """A network whose parameters are called otherwise here, saved by PaddleClas's names."""
    net, optimizer = _network("MobileNetV2_x0_25")
    _step(net, optimizer)
    naming = next(n for n in net.namings() if n.library == "PaddleClas")
    theirs = {naming.rename(name): tensor for name, tensor in net.state_dict().items()}
    paddle.save(theirs, f"{tmp_path}/epoch_3.pdparams")
    paddle.save([optimizer.inner.state_dict()], f"{tmp_path}/epoch_3.pdopt")
    paddle.save({"metric": 0.5, "epoch": 3}, f"{tmp_path}/epoch_3.pdstates")
    checkpoint = open_checkpoint(f"{tmp_path}/epoch_3")
    other, other_optimizer = _network("MobileNetV2_x0_25")
    report = ppcls.load_weights(other, checkpoint.weights)
    assert report.library == "PaddleClas"
    with pytest.raises(WeightsError):
        other_optimizer.load_state_dict(checkpoint.optimizer)
    other_optimizer.load_state_dict(translate_slots(other, checkpoint.optimizer, report.naming))
    for network, its_optimizer in ((net, optimizer), (other, other_optimizer)):
        _step(network, its_optimizer)
    for name, tensor in net.state_dict().items():
        assert np.array_equal(tensor.numpy(), other.state_dict()[name].numpy()), name


def _network(name: str = "MobileNeXt_x0_1") -> tuple[paddle.nn.Layer, Momentum]:
    net = ppcls.create_model(name, class_num=3, dropout=0.0)
    schedule = Constant(0.1, epochs=1, steps_per_epoch=1)
    return net, Momentum(schedule, use_nesterov=True, weight_decay=1e-3, network=net)


def _step(net: paddle.nn.Layer, optimizer: Momentum) -> None:
    net.train()
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype("float32")
    net(paddle.to_tensor(images)).square().sum().backward()
    optimizer.set_step(0)
    optimizer.step()
    optimizer.clear_grad()
