"""Training from weights whose batch normalisations were folded into the convolutions."""

import numpy as np
import pytest
import support

paddle = pytest.importorskip("paddle")

from ppcls import Trainer, create_model  # noqa: E402
from ppcls.engine.folded_norms import UnfoldNorms, folded  # noqa: E402


@pytest.fixture
def folded_weights(lively, tmp_path):
    """Those of ``lively`` for use alone: every normalisation only adds its bias."""
    weights = dict(support.weights(lively))
    for name in [n.removesuffix("._mean") for n in weights if n.endswith("._mean")]:
        place, _, number = name.rpartition(".")
        kernel = f"{place}.{int(number) - 1}.weight"
        scale = weights[f"{name}.weight"] / np.sqrt(weights[f"{name}._variance"] + 1e-5)
        weights[kernel] = weights[kernel] * scale.reshape(-1, 1, 1, 1)
        weights[f"{name}.bias"] = weights[f"{name}.bias"] - weights[f"{name}._mean"] * scale
        for part, value in (("weight", 1.0), ("_mean", 0.0), ("_variance", 1.0)):
            weights[f"{name}.{part}"] = np.full_like(weights[f"{name}.{part}"], value)
    paddle.save(weights, str(tmp_path / "folded.pdparams"))
    return tmp_path / "folded.pdparams"


def answers(trainer, training):
    """To the first batch; what a step in training changes is not kept."""
    trainer.net.train() if training else trainer.net.eval()
    held = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    [batch] = [b for b in trainer.reader.epoch(1) if b.number == 0]
    with paddle.no_grad():
        found = trainer.net(trainer._to_tensors(batch)[0]).numpy()
    trainer.net.set_state_dict(held)
    return found


def test_evaluation_stays_and_training_begins_with_it(config_file, folded_weights, capsys):
    config = support.load(config_file, f"Global.pretrained_model={folded_weights}")
    trainer = Trainer(config, handlers=[])
    before, astray = answers(trainer, False), answers(trainer, True)
    count = len(folded(trainer.net))
    UnfoldNorms().fit_start(trainer)
    assert f"{count} batch normalisations had no statistics" in capsys.readouterr().out
    spread = np.abs(before - before.mean(axis=0)).max()
    np.testing.assert_allclose(answers(trainer, False), before, atol=1e-3 * spread)
    assert np.abs(answers(trainer, True) - before).max() < np.abs(astray - before).max() / 3
    assert folded(trainer.net) == {}
    trainer.close()


@pytest.mark.parametrize("start", ["", "frozen for good"])
def test_a_random_network_and_what_stays_frozen_are_left_alone(config_file, folded_weights, start):
    given = [f"Global.pretrained_model={folded_weights}", "Finetune.freeze_until=head"]
    trainer = Trainer(support.load(config_file, *(given if start else [])), handlers=[])
    UnfoldNorms().fit_start(trainer)
    assert len(folded(trainer.net)) == len(folded(create_model(support.NET)))
    trainer.close()
