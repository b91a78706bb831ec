"""Starting from weights: what is kept, what starts anew, and what is said."""

import re

import numpy as np
import pytest
import support

from ppcls.errors import WeightsError

pytest.importorskip("paddle")

HEAD = ("classifier.1.weight", "classifier.1.bias")


def started(config_file, *overrides):
    """A network as it stands before the first step."""
    from ppcls import Trainer

    trainer = Trainer(support.load(config_file, *overrides), handlers=[])
    trainer.close()
    return {name: value.numpy() for name, value in trainer.net.state_dict().items()}


def differing(one, other):
    return {name for name in one if not np.array_equal(one[name], other[name])}


def test_another_class_num_gets_a_new_head_and_says_so(config_file, tmp_path, capsys):
    import paddle

    import ppcls

    five = ppcls.create_model(support.NET, class_num=5)
    paddle.save(five.state_dict(), str(tmp_path / "five.pdparams"))
    given = {name: tensor.numpy() for name, tensor in five.state_dict().items()}
    net = started(config_file, f"Global.pretrained_model={tmp_path / 'five'}")
    assert net[HEAD[0]].shape == (1280, 3)
    body = {name: value for name, value in net.items() if name not in HEAD}
    assert differing(body, given) == set()
    assert "the classifier starts anew, for 3 classes" in capsys.readouterr().out


def test_the_same_class_num_keeps_the_head(config_file, lively, capsys):
    net = started(config_file, f"Global.pretrained_model={lively}")
    assert differing(net, support.weights(lively)) == set()
    out = capsys.readouterr().out
    assert re.search(r"loaded .*best_model/model\.pdparams: \d+ matched\n", out)
    assert "anew" not in out


def test_ignore_head_leaves_the_head_as_drawn(config_file, lively, capsys):
    drawn = started(config_file)
    options = (f"Global.pretrained_model={lively}", "Global.ignore_head=true")
    net = started(config_file, *options)
    assert differing(net, support.weights(lively)) == set(HEAD)
    assert np.array_equal(net[HEAD[0]], drawn[HEAD[0]])
    assert "the classifier starts anew, for 3 classes" in capsys.readouterr().out


def test_fine_tuning_starts_at_step_zero(config_file, trained, run_folder):
    trainer = support.train(config_file, f"Global.pretrained_model={trained / 'epoch_2'}")
    assert (trainer.state.epoch, trainer.state.global_step) == (1, 3)
    assert support.same_files(run_folder / "latest", trained / "epoch_1") != []


def test_arch_pretrained_is_a_path_too(config_file, lively):
    assert (
        differing(started(config_file, f"Arch.pretrained={lively}"), support.weights(lively))
        == set()
    )


def test_arch_pretrained_true_is_refused_as_long_as_nothing_is_published(config_file):
    with pytest.raises(WeightsError, match="no published weights are known"):
        started(config_file, "Arch.pretrained=true")


def test_another_architecture_is_refused(config_file, lively):
    with pytest.raises(WeightsError, match="another architecture than MobileNeXt_x0_35"):
        started(config_file, f"Global.pretrained_model={lively}", "Arch.name=MobileNeXt_x0_35")


def test_missing_weights_list_what_was_tried(config_file, tmp_path):
    with pytest.raises(
        WeightsError, match=r"nowhere: no weights there; looked for .*nowhere\.pdparams"
    ):
        started(config_file, f"Global.pretrained_model={tmp_path}/nowhere")


def test_evaluation_does_not_adapt_the_head(config_file, lively):
    """A random head would give a result that looks like one."""
    from ppcls import Evaluator

    config = support.load(config_file, f"Global.pretrained_model={lively}", "Arch.class_num=5")
    with pytest.raises(WeightsError, match=r"has 3 classes, the network MobileNeXt_x0_1 has 5"):
        Evaluator(config)


@pytest.mark.parametrize("command", ["eval", "infer", "export"])
def test_using_a_network_without_weights_needs_permission(
    cli, config_file, pictures, tmp_path, command
):
    picture = next((pictures / "val").rglob("*.png"))
    arguments = [command, "-c", config_file, *([picture] if command == "infer" else [])]
    refused = cli(*arguments)
    assert refused.code == 1
    assert refused.err.startswith("error: no weights are given: set Global.pretrained_model")
    assert refused.err.count("\n") == 1
    assert not (tmp_path / "output" / "inference").exists()
    allowed = cli(*arguments, "--allow-random")
    assert allowed.code == 0
    assert "the network has random weights" in allowed.out + allowed.err
