"""The section ``Finetune``: what stays frozen, for how long, and how fast the rest learns."""

import numpy as np
import pytest
import support

from ppcls.config import ConfigError
from ppcls.errors import ArgumentError

pytest.importorskip("paddle")

import paddle

import ppcls
from ppcls.engine.finetune import FrozenPart, names_until

UNTIL = "features.5"
HEAD = {"classifier.1.weight", "classifier.1.bias"}


@pytest.fixture
def start(trained):
    """A checkpoint to start from."""
    return trained / "latest"


def of(part, epoch=None):
    thaw = [] if epoch is None else [f"Finetune.unfreeze_epoch={epoch}"]
    return [f"Finetune.freeze_until={part}", *thaw]


def changed(one, other):
    """Names of the weights and statistics that differ between two checkpoint folders."""
    one, other = support.weights(one), support.weights(other)
    return {name for name in one if not np.array_equal(one[name], other[name])}


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("stages.1", "stages.1.1.path.project.norm._variance"),
        ("stage2", "stages.1.1.path.project.norm._variance"),
        (2, "stages.1.1.path.project.norm._variance"),
        ("stem", "stem.norm._variance"),
        ("features.3", "stages.1.1.path.project.norm._variance"),  # torchvision's
        ("conv3", "stages.1.1.path.project.norm._variance"),  # PaddleClas's
        ("head", "head.conv.norm._variance"),
        ("stages.1.0.path.expand", "stages.1.0.path.expand.norm._variance"),
    ],
)
def test_names_of_one_place(until, last):
    net = ppcls.create_model("MobileNetV2_x0_25", class_num=3)
    every = [name for name, _ in net.named_parameters()]
    assert names_until(net, until) == every[: every.index(last) + 1]


@pytest.mark.parametrize("name", ["DeiT_tiny_distilled_patch16_224", "SqueezeNet1_1"])
def test_head_is_all_but_the_classifier(name):
    net = ppcls.create_model(name, class_num=3)
    frozen = set(names_until(net, "head"))
    assert {name for name, _ in net.named_parameters()} - frozen == net.classifier_names()


def test_tokens_come_before_the_blocks():
    net = ppcls.create_model("DeiT_tiny_patch16_224", class_num=3)
    names = names_until(net, 2)
    assert names[:2] == ["class_token", "position_embedding"]
    assert {n.split(".")[1] for n in names if n.startswith("blocks")} == {"0", "1"}


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("stagez.3", r"received 'stagez.3'; did you mean 'stages.3'\?"),
        (8, "expected 1 to 7, the number of stages of MobileNetV2_x0_25, received 8"),
        ("stage8", "expected 1 to 7"),
        ("classifier", "received 'classifier': nothing would be left to train"),
    ],
)
def test_wrong_names(until, message):
    net = ppcls.create_model("MobileNetV2_x0_25", class_num=3)
    with pytest.raises(ArgumentError, match=message):
        names_until(net, until)


def test_the_line_of_a_wrong_name(cli, config_file, start):
    text = config_file.read_text() + "Finetune:\n  freeze_until: featurez.5\n"
    config_file.write_text(text)
    result = cli("train", "-c", config_file, "-o", f"Global.pretrained_model={start}")
    assert result.code == 2
    line = len(text.splitlines())
    assert result.err.startswith(f"{config_file}:{line}: Finetune.freeze_until: expected a layer")
    assert "did you mean 'features.5'?" in result.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["Finetune.unfreeze_epoch=2"], "expected null without freeze_until, received 2"),
        (of("head", 1), "expected an integer >= 2 or null, received 1"),
        (of("head"), "without them, the frozen layers would stay random"),
    ],
)
def test_impossible_combinations(config_file, given, message):
    with pytest.raises(ConfigError, match=message):
        ppcls.Trainer(support.load(config_file, *given)).fit()


# Freezing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_frozen_layers_stay_as_they_are(config_file, run_folder, start, kernels):
    """Weights and batch statistics, and the optimizer keeps nothing for them."""
    given = f"Global.pretrained_model={start}"
    trainer = support.train(config_file, given, f"Global.cpu_kernels={kernels}", *of(UNTIL))
    frozen = set(names_until(trainer.net, UNTIL))
    every = set(support.weights(start))
    assert changed(start, run_folder / "latest") == every - frozen
    kept = {key.partition("/")[0] for key in trainer.optimizer.state_dict()}
    assert kept == {n for n in every - frozen if not n.endswith(("_mean", "_variance"))}


def test_training_mode_leaves_out_the_frozen_part():
    net = ppcls.create_model("DeiT_tiny_patch16_224", class_num=3, dropout=0.5, depth=3)
    part = FrozenPart(net, names_until(net, 2))
    net.eval()
    net.train()
    assert [block.training for block in net.blocks] == [False, False, True]
    assert not net.blocks[0].mlp.dropout.training
    assert not net.dropout.training  # behind the patches, in front of the blocks
    part.thaw()
    assert all(layer.training for layer in net.sublayers())
    net.eval()
    assert not any(layer.training for layer in net.sublayers())


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("until", ["features.5", "features.5.conv.0"])
def test_nothing_is_recorded_of_the_frozen_part(kernels, until):
    """No graph, so no backward pass and no memory: also in the midst of a block."""
    from ppcls.ops import accelerate

    net = ppcls.create_model(support.NET, class_num=3)
    net.train()
    FrozenPart(net, names_until(net, until))
    if kernels:
        assert accelerate(net)
    grads = gradients(net)
    frozen = set(names_until(net, until))
    learning = {n for n, _ in net.named_parameters() if not n.endswith(("_mean", "_variance"))}
    assert set(grads) == learning - frozen


@pytest.mark.parametrize("until", [UNTIL, "features.5.conv.0"])
def test_the_learning_part_gets_the_same_gradients(until):
    """As without freezing, but for the statistics, which are those of evaluation."""
    from ppcls.ops import accelerate

    net = ppcls.create_model(support.NET, class_num=3)
    part = FrozenPart(net, names_until(net, until))
    net.train()
    plain = gradients(net)
    assert accelerate(net)
    fast = gradients(net)
    assert plain.keys() == fast.keys()
    for name, gradient in plain.items():
        # As a whole: rounding may put a single value to the other side of an activation's corner.
        difference = np.linalg.norm(fast[name] - gradient)
        assert difference <= 1e-2 * np.linalg.norm(gradient) + 1e-5, name
    part.thaw()
    assert len(gradients(net)) > len(fast)


def gradients(net):
    """Of every parameter that gets one."""
    paddle.seed(0)  # of the dropout
    images = np.random.default_rng(0).normal(size=(4, 3, 128, 128)).astype("float32")
    loss = paddle.nn.functional.cross_entropy(
        net(paddle.to_tensor(images)), paddle.to_tensor([0, 1, 2, 0])
    )
    loss.backward()
    found = {n: p.grad.numpy() for n, p in net.named_parameters() if p.grad is not None}
    net.clear_gradients(set_to_zero=False)
    return found


# Thawing ------------------------------------------------------------------------------------------


class Watch(ppcls.engine.handler.Handler):
    """What learns in each epoch."""

    def __init__(self):
        self.learning = {}

    def step_end(self, trainer, step):
        learns = [not p.stop_gradient for p in trainer.net.parameters()]
        self.learning.setdefault(trainer.state.epoch, sum(learns))


def test_layers_thaw_at_the_start_of_their_epoch(config_file, start):
    from ppcls.engine.distributed import World
    from ppcls.engine.handlers import default_handlers

    overrides = [f"Global.pretrained_model={start}", "Global.epochs=3", *of("head", 3)]
    watch = Watch()
    handlers = [*default_handlers(support.load(config_file), World()), watch]
    trainer = support.train(config_file, *overrides, handlers=handlers)
    every = sum(not n.endswith(("_mean", "_variance")) for n, _ in trainer.net.named_parameters())
    assert watch.learning == {1: 2, 2: 2, 3: every}


@pytest.mark.parametrize("stopped", [1, 2])
def test_going_on_before_and_after_the_thaw(config_file, tmp_path, run_folder, start, stopped):
    """To the same bits as the run that was not interrupted."""
    settings = [*of(UNTIL, 2), "Global.epochs=3", "Global.save_interval=1"]
    settings += ["Finetune.backbone_lr_ratio=0.5"]
    support.train(config_file, f"Global.pretrained_model={start}", *settings)
    assert changed(run_folder / "epoch_1", run_folder / "epoch_2") >= HEAD
    other = f"Global.output_dir={tmp_path / 'other'}"
    goes_on = f"Global.checkpoints={run_folder / f'epoch_{stopped}'}"
    support.train(config_file, goes_on, other, *settings)
    again = tmp_path / "other" / support.NET / "latest"
    assert support.same_files(run_folder / "latest", again) == []


# Rates --------------------------------------------------------------------------------------------


def test_ratios_multiply_the_rates_and_layer_decay(config_file, start):
    overrides = [
        f"Global.pretrained_model={start}",
        "Finetune.backbone_lr_ratio=0.5",
        "Finetune.head_lr_ratio=3",
        "Optimizer.layer_decay=0.9",
    ]
    decayed = ppcls.Trainer(support.load(config_file, overrides[-1]), handlers=[])
    both = ppcls.Trainer(support.load(config_file, *overrides), handlers=[])
    for trainer in (decayed, both):
        trainer.close()
    factors, plain = both.optimizer.rate_factors(), decayed.optimizer.rate_factors()
    assert {name for name in factors if factors[name] == 3 * plain[name]} == HEAD
    assert all(factors[name] == 0.5 * plain[name] for name in factors.keys() - HEAD)


def test_freezing_does_not_move_the_depths_of_layer_decay(config_file, start):
    decay = "Optimizer.layer_decay=0.9"
    given = [f"Global.pretrained_model={start}", decay]
    whole = ppcls.Trainer(support.load(config_file, *given), handlers=[])
    part = ppcls.Trainer(support.load(config_file, *given, *of(UNTIL)), handlers=[])
    for trainer in (whole, part):
        trainer.close()
    every = whole.optimizer.rate_factors()
    assert part.optimizer.rate_factors().items() < every.items()


# Several processes --------------------------------------------------------------------------------

SCRIPT = """
import hashlib, sys, ppcls
trainer = ppcls.Trainer(ppcls.load_config(sys.argv[1], sys.argv[3:]))
trainer.fit()
parts = [p.numpy().tobytes() for n, p in trainer.net.named_parameters() if "._" not in n]
with open(f"{sys.argv[2]}/{trainer.world.rank}", "w") as file:
    file.write(hashlib.sha256(b"".join(parts)).hexdigest())
"""


@pytest.mark.slow
def test_processes_learn_the_same_after_the_thaw(config_file, run_folder, tmp_path, start):
    """What thaws gets the mean of the processes' gradients, too."""
    (tmp_path / "script.py").write_text(SCRIPT)
    overrides = [f"Global.pretrained_model={start}", *of(UNTIL, 2), "Global.epochs=2"]
    overrides += ["Global.save_interval=1", "DataLoader.Train.sampler.batch_size=4"]
    arguments = [tmp_path / "script.py", config_file, tmp_path, *overrides]
    done = support.launch(2, arguments, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    frozen = {n for n in support.weights(start) if n.startswith("features.0.")}
    assert not changed(start, run_folder / "epoch_1") & frozen
    assert changed(start, run_folder / "epoch_2") >= frozen
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text()
