"""Checkpoints in PaddleClas's three files: read to go on from."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import paddle
import pytest
import support

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


def test_an_average_goes_on_with_the_weights_that_it_was_made_of(
    config_file: Path, run_folder: Path, tmp_path: Path
) -> None:
    """``.pdema`` holds the trained weights, and the average is a copy with names of its own."""
    from safetensors.numpy import load_file

    paddle.seed(0)
    net, optimizer = _network()
    averaged = copy.deepcopy(net)
    _step(net, optimizer)
    prefix = f"{tmp_path}/epoch_3"
    paddle.save(averaged.state_dict(), f"{prefix}.pdparams")
    paddle.save(net.state_dict(), f"{prefix}.pdema")
    paddle.save([optimizer.inner.state_dict()], f"{prefix}.pdopt")
    paddle.save({"metric": 0.5, "epoch": 3}, f"{prefix}.pdstates")
    momentum = "Optimizer={_replace_: true, name: Momentum, lr: {name: Constant}}"
    still = "Optimizer.lr.learning_rate=1e-30"  # so that nothing but the momentum moves
    resume = f"Global.checkpoints={prefix}", "Global.epochs=4", momentum, still, "Arch.dropout=0.0"
    support.train(config_file, "EMA.decay=0.5", *resume)
    arrays = load_file(run_folder / "latest" / "ema.safetensors")
    learning = {n: p for n, p in net.named_parameters() if not p.stop_gradient}
    for name, parameter in learning.items():
        own, start = parameter.numpy(), averaged.state_dict()[name].numpy()
        rounding = 1e-6 * max(1, np.abs(own).max())
        assert np.allclose(arrays[f"trained/{name}"], own, atol=1e-7), name
        assert np.allclose(arrays[f"ema/{name}"], own + (start - own) / 8, atol=rounding), name
    with pytest.raises(WeightsError, match=r"\(ema\).* go on with the section EMA"):
        support.train(config_file, *resume)


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
