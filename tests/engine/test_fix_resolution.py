"""FixRes: the classifier and the statistics before the pooling go to another size, nothing else."""

import json
import re

import pytest
import support

import ppcls
from ppcls.config import ConfigError

pytest.importorskip("paddle")
import paddle

from ppcls.engine.fix_resolution import normalisations

STATISTICS = ("_mean", "_variance")
FIXED = ["Finetune.freeze_until=head", "FixRes.batch_norm=last", "Global.epochs=2"]
NORMAL = {"NormalizeImage": {"mean": [*support.MEAN], "std": [*support.STD]}}
LARGER = json.dumps(
    [{"DecodeImage": None}, {"ResizeImage": {"size": 64}}, NORMAL, {"ToCHWImage": None}]
)
SIZES = [f"DataLoader.{mode}.dataset.transform_ops={LARGER}" for mode in ("Train", "Eval")]


@pytest.fixture
def start(trained):
    return f"Global.pretrained_model={trained / 'latest'}"


def weights(source):
    net = ppcls.create_model(support.NET, class_num=len(support.CLASSES))
    ppcls.load_weights(net, source)
    return net, {name: value.numpy() for name, value in net.state_dict().items()}


def changed(before, after):
    return {name for name, value in before.items() if (value != after[name]).any()}


@pytest.mark.parametrize("which", ["last", "all"])
def test_only_the_classifier_and_some_statistics_change(
    config_file, start, trained, run_folder, which
):
    """Also where an evaluation within the epoch puts all layers back into training mode."""
    more = [*FIXED, *SIZES, f"FixRes.batch_norm={which}", "Global.eval_every_steps=1"]
    trainer = support.train(config_file, start, *more)
    net, before = weights(trained / "latest")
    _, after = weights(run_folder / "latest")
    layers = dict(net.named_sublayers())
    names = [name for name, layer in layers.items() if layer in normalisations(net)]
    adapted = names[-1:] if which == "last" else names
    statistics = {f"{name}.{kind}" for name in adapted for kind in STATISTICS}
    assert changed(before, after) == net.classifier_names() | statistics
    log = support.text_of(trainer.folder / "train.log")
    assert f"{len(adapted)} of {len(names)} batch normalisations adapt their statistics" in log


@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2_x0_25", "EfficientNetB0"])
def test_the_last_normalisation_is_the_last_that_runs(name):
    net = ppcls.create_model(name, class_num=2)
    ran = []
    for layer in normalisations(net):
        layer.register_forward_post_hook(lambda layer, *_: ran.append(layer))
    net.eval()
    with paddle.no_grad():
        net(paddle.zeros([1, 3, 32, 32]))
    assert ran[-1] is normalisations(net)[-1]


def test_a_stop_within_an_epoch_changes_nothing(config_file, start, tmp_path):
    """The statistics are part of the checkpoint."""
    folders = []
    for name, epochs in (("whole", [2]), ("parts", [1, 2])):
        folder = tmp_path / name / support.NET
        for epoch in epochs:
            resume = [f"Global.checkpoints={folder / 'latest'}"] if epoch != epochs[0] else [start]
            more = [*FIXED, *SIZES, f"Global.output_dir={folder.parent}", f"Global.epochs={epoch}"]
            support.train(config_file, *more, *resume)
        folders.append(folder / "latest")
    assert support.same_files(*folders) == []


def test_it_needs_a_frozen_network(config_file, start):
    with pytest.raises(ConfigError, match=re.escape("FixRes: expected 'Finetune: {freeze_until")):
        support.train(config_file, start, "FixRes.batch_norm=last")


def test_a_network_without_batch_normalisation_is_refused(config_file, tmp_path):
    name = "ConvNeXt_atto"
    net = ppcls.create_model(name, class_num=len(support.CLASSES))
    paddle.save(net.state_dict(), str(tmp_path / "weights.pdparams"))
    arch = f"Arch={{_replace_: true, name: {name}, class_num: 3}}"
    more = [arch, f"Global.pretrained_model={tmp_path / 'weights.pdparams'}"]
    with pytest.raises(ConfigError, match=r"FixRes\.batch_norm: expected a network with batch"):
        support.train(config_file, *FIXED, *more)
