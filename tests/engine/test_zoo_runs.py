"""Whole runs of networks whose arguments or layers are unlike MobileNeXt's: train to export."""

from __future__ import annotations

import json

import numpy as np
import pytest
import support

import ppcls
from ppcls.registry import BACKBONES

# Lists among the arguments, layers that are fused for export, attention, two classifiers.
NETWORKS = [
    "ShuffleNetV2_x0_25",
    "PPLCNetV2_small",
    "MobileViT_XXS",
    "ConvNeXt_atto",
    "DeiT_tiny_distilled_patch16_224",
    "SwinTransformer_tiny_patch4_window7_224",
    "SwinTransformerV2_tiny_patch4_window8_256",
]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NETWORKS)
def test_train_resume_evaluate_export_predict(name, tmp_path, pictures):
    tree = support.config_tree(pictures, tmp_path / "output")
    tree["Arch"] = {"name": name, "class_num": 3}
    path = support.write_config(tmp_path / "config.yaml", tree)
    run = tmp_path / "output" / name
    support.train(path, "Global.epochs=1")
    support.train(path, "Global.epochs=2", f"Global.checkpoints={run / 'latest'}")
    resolved = run / "config.yaml"  # can be run again
    weights = f"Global.pretrained_model={run / 'latest'}"
    result = ppcls.Evaluator(support.load(resolved, weights)).run()
    assert np.isfinite(result["loss"])
    folder = f"Global.save_inference_dir={tmp_path / 'inference'}"
    ppcls.export_model(support.load(resolved, weights, folder))
    photos = sorted(pictures.glob("val/*/*"))[:2]
    [answers] = [ppcls.Predictor(tmp_path / "inference").predict([str(p) for p in photos])]
    assert len(answers) == 2
    assert all(sorted(answer["class_ids"]) == [0, 1, 2] for answer in answers)


@pytest.mark.parametrize("name", ppcls.list_models())
def test_presets_survive_the_configuration_that_a_run_writes(name, tmp_path):
    """What a table row holds can be written as YAML and given again."""
    entry = BACKBONES.entry(name)
    given = {key: list(v) if isinstance(v, tuple) else v for key, v in entry.preset.items()}
    tree = {"Arch": {"name": name, "class_num": 3, **given}}
    config = ppcls.load_config(support.write_config(tmp_path / "config.yaml", tree))
    again = tmp_path / "again.yaml"
    again.write_text(config.to_yaml())
    before, after = config.Arch.arguments, ppcls.load_config(again).Arch.arguments
    assert json.dumps(after) == json.dumps(before)  # a tuple of defaults comes back as a list
