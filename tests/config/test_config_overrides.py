"""``-o dotted.path=value``."""

from __future__ import annotations

import pytest
from yaml_files import WHOLE, load, mistakes, only_mistake, write

OPS = "DataLoader.Train.dataset.transform_ops"


def get(config, path):
    node = config.tree
    for key in path.split("."):
        node = node.value[int(key) if isinstance(node.value, list) else key]
    return node.plain()


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("Global.epochs=3", "Global.epochs", 3),
        (" Global.epochs=3", "Global.epochs", 3),
        ("Global.epochs= 3 ", "Global.epochs", 3),
        ("Global.output_dir=a=b=c", "Global.output_dir", "a=b=c"),
        ("Global.output_dir=list", "Global.output_dir", "list"),
        ("Global.output_dir=__import__('os')", "Global.output_dir", "__import__('os')"),
        ("Global.pretrained_model=null", "Global.pretrained_model", None),
        ("Global.pretrained_model=None", "Global.pretrained_model", None),
        ("Global.pretrained_model=", "Global.pretrained_model", None),
        ("Global.pretrained_model='None'", "Global.pretrained_model", "None"),
        ("Optimizer.lr.eta_min=1e-3", "Optimizer.lr.eta_min", 0.001),
        ("Optimizer.lr.eta_min=1E-3", "Optimizer.lr.eta_min", 0.001),
        ("Global.image_shape=[3, 32, 64]", "Global.image_shape", [3, 32, 64]),
        ("Global.use_visualdl=true", "Global.use_visualdl", True),
        ("Global.use_visualdl=True", "Global.use_visualdl", True),
        ("Arch.pretrained=True", "Arch.pretrained", True),
        ("Arch.pretrained=best_model", "Arch.pretrained", "best_model"),
        (f"{OPS}.1.RandCropImage.size=[48, 64]", f"{OPS}.1.RandCropImage.size", [48, 64]),
        (f"{OPS}.1=RandFlipImage", f"{OPS}.1", {"RandFlipImage": {"flip_code": 1, "prob": 0.5}}),
        ("Loss.Train.0.CELoss.epsilon=null", "Loss.Train.0.CELoss.epsilon", None),
        ("Metric.Eval=[{TopkAcc: {topk: 2}}]", "Metric.Eval.0.TopkAcc.topk", 2),
        ("AMP.level=O2", "AMP.level", "O2"),
        ("Optimizer.regularizer={name: L1, coeff: 2}", "Optimizer.regularizer.coeff", 2.0),
        ("Infer=null", "Infer", None),
    ],
)
def test_a_value_is_set(tmp_path, override, path, value):
    found = get(load(tmp_path, WHOLE, [override]), path)
    assert found == value
    assert type(found) is type(value)


def test_a_map_replaces_what_was_there(tmp_path):
    config = load(tmp_path, WHOLE, ["Optimizer.lr={name: Constant, learning_rate: 0.5}"])
    assert config.Optimizer.arguments["lr"].name == "Constant"
    assert config.Optimizer.arguments["lr"].arguments["warmup_epoch"] == 0


def test_the_last_override_wins(tmp_path):
    assert load(tmp_path, WHOLE, ["Global.epochs=3", "Global.epochs=4"]).Global.epochs == 4


def test_overrides_build_on_each_other(tmp_path):
    config = load(tmp_path, WHOLE, ["AMP={}", "AMP.level=O2", "AMP.use_amp=False"])
    assert (config.AMP.level, config.AMP.use_amp) == ("O2", False)


@pytest.mark.parametrize(
    ("override", "path", "message"),
    [
        ("Global.epochs", "", "expected dotted.path=value, received 'Global.epochs'"),
        ("", "", "expected dotted.path=value"),
        ("=3", "", "expected dotted.path=value"),
        ("Global..epochs=3", "", "expected dotted.path=value"),
        ("Global.=3", "", "expected dotted.path=value"),
        (".Global=3", "", "expected dotted.path=value"),
        ("Global.image_shape=[3", "", "not valid YAML"),
        ("Global.epochs=a: b: c", "", "not valid YAML"),
        ("Global.output_dir=!!python/name:os.system x", "", "tag"),
        ("Global.output_dir=!!bool x", "", "not valid YAML"),
        ("Global.output_dir=a\x07", "", "not valid YAML"),
        (f"{OPS}.9.CropImage.size=3", OPS, "0 to 2, received '9'"),
        (f"{OPS}.3=ToCHWImage", OPS, "0 to 2, received '3'"),
        (f"{OPS}.-1=ToCHWImage", OPS, "0 to 2, received '-1'"),
        (f"{OPS}.x=ToCHWImage", OPS, "0 to 2, received 'x'"),
        (f"{OPS}.²=ToCHWImage", OPS, "0 to 2, received '²'"),
        (f"{OPS}.RandCropImage.size=3", OPS, "0 to 2, received 'RandCropImage'"),
        ("Global.epochs.x=3", "Global.epochs", "expected a map"),
        ("Global.epochs.x.y=3", "Global.epochs", "expected a map"),
        ("Global.epohcs=3", "Global.epohcs", "unknown key; did you mean 'epochs'?"),
        ("Global.epoch.x=3", "Global.epoch", "did you mean 'epochs'?"),
        ("Optimzer.lr.learning_rate=99", "Optimzer", "did you mean 'Optimizer'?"),
        ("weights=x", "weights", "unknown key"),
        ("Global.epochs=ten", "Global.epochs", "an integer >= 1, received 'ten'"),
        ("Global.epochs=", "Global.epochs", "received null"),
        ("_base_=x.yaml", "_base_", "unknown key"),
        ("Global=5", "Global", "expected a map of keys, received 5"),
    ],
)
def test_a_mistake_names_the_option(tmp_path, override, path, message):
    problem = only_mistake(write(tmp_path, WHOLE), ["Global.seed=3", override])
    assert (str(problem.origin), problem.path) == ("command-line:2", path)
    assert message in problem.message


def test_all_wrong_options_are_reported(tmp_path):
    problems = mistakes(write(tmp_path, WHOLE), ["a", "b", f"{OPS}.9=1"])
    assert [str(p.origin) for p in problems] == [
        "command-line:1",
        "command-line:2",
        "command-line:3",
    ]


def test_what_an_option_mends_is_no_mistake(tmp_path):
    text = WHOLE.replace("epochs: 200", "epochs: many")
    assert load(tmp_path, text, ["Global.epochs=5"]).Global.epochs == 5
