"""Optimizers as published recipes write them: read, trained with, and resumed to the same bits."""

import pytest
import support

pytest.importorskip("paddle")

LR = "lr: {name: Cosine, learning_rate: 0.001, warmup_epoch: 1}"
SECTIONS = {
    # PaddleClas configs/ImageNet/FasterNet/FasterNet_L.yaml: nothing there reads clip_grad
    "FasterNet": "name: AdamW, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.05, "
    "clip_grad: 0.01, no_weight_decay_name: null, one_dim_param_no_weight_decay: True",
    # configs/CAE/cae_base_patch16_224_finetune.yaml
    "CAE": "name: AdamWDL, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.05, "
    "layerwise_decay: 0.65",
    # configs/ImageNet/EfficientNet/EfficientNetB0.yaml
    "EfficientNet": "name: RMSProp, momentum: 0.9, rho: 0.9, epsilon: 0.001, "
    "regularizer: {name: L2, coeff: 0.00001}",
    "Lamb": "name: Lamb, weight_decay: 0.02, clip_global_norm: 1.0",
    "LARS": "name: LARS, weight_decay: 0.0001, one_dim_param_no_weight_decay: True",
    "Lion": "name: Lion, weight_decay: 0.1, layer_decay: 0.8, clip_adaptive: 0.02",
}


@pytest.mark.parametrize("recipe", SECTIONS)
def test_a_resumed_run_is_the_whole_run(config_file, run_folder, tmp_path, recipe):
    section = f"Optimizer={{_replace_: true, {SECTIONS[recipe]}, {LR}}}"
    overrides = [section, "Global.epochs=2", "Global.save_interval=1"]
    support.train(config_file, *overrides)
    other = tmp_path / "other"
    resume = [f"Global.output_dir={other}", f"Global.checkpoints={run_folder / 'epoch_1'}"]
    support.train(config_file, *overrides, *resume)
    assert support.same_files(run_folder / "latest", other / support.NET / "latest") == []


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ("name: AdamW, clip_grad: 1.0, clip_norm: 5.0", "Optimizer.clip_grad"),
        ("name: AdamW, layer_decay: 1.5", "Optimizer.layer_decay"),
        ("name: AdamW, regularizer: {name: L2}", "Optimizer.regularizer"),
        ("name: RMSProp, epsilon: 0", "Optimizer.epsilon"),
    ],
)
def test_mistakes_are_reported_at_their_place(config_file, section, path):
    from ppcls.config import ConfigError

    with pytest.raises(ConfigError) as caught:
        support.load(config_file, f"Optimizer={{_replace_: true, {section}, {LR}}}")
    assert [problem.path for problem in caught.value.problems] == [path]


def test_pythons_none_is_no_clipping(config_file):
    # configs/ImageNet/StarNet/StarNet_S1.yaml
    section = f"name: AdamW, weight_decay: 0.05, clip_grad: None, {LR}"
    config = support.load(config_file, f"Optimizer={{_replace_: true, {section}}}")
    assert config.Optimizer.arguments["clip_grad"] is None


PLATEAU = "Optimizer.lr={_replace_: true, name: ReduceOnPlateau, learning_rate: 0.1"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"{PLATEAU}}}", "Global.eval_during_train=false"], r"Optimizer\.lr: goes by evaluations"),
        (["Global.early_stop={patience: 1}", "Global.eval_during_train=false"], "early_stop: goes"),
        ([f"{PLATEAU}, mode: min}}"], r"lr\.mode: expected max for top1 .* received min"),
        ([f"{PLATEAU}}}", "Metric.Eval=[{LogLoss: {}}]"], r"lr\.mode: expected min for \w+"),
    ],
)
def test_what_goes_by_evaluations_has_them_and_goes_the_right_way(config_file, overrides, message):
    from ppcls.config import ConfigError

    with pytest.raises(ConfigError, match=message):
        support.train(config_file, *overrides)


def test_a_plateau_of_a_run_that_is_resumed(config_file, run_folder, tmp_path):
    import json

    overrides = [f"{PLATEAU}, patience: 0, threshold: 9}}", "Global.save_interval=1"]
    support.train(config_file, *overrides, "Global.epochs=3")
    other = f"Global.output_dir={tmp_path / 'other'}"
    resume = f"Global.checkpoints={run_folder / 'epoch_2'}"
    support.train(config_file, *overrides, "Global.epochs=3", other, resume)
    folders = run_folder, tmp_path / "other" / support.NET
    assert support.same_files(folders[0] / "latest", folders[1] / "latest") == []
    lines = (folders[0] / "metrics.jsonl").read_text().splitlines()
    rates = [row["lr"] for row in map(json.loads, lines) if "lr" in row]
    assert sorted(set(rates), reverse=True) == pytest.approx([0.1, 0.01])
