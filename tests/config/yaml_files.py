"""Configurations that the tests of this folder write, and the lines they expect mistakes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import pytest

from ppcls.config import Config, ConfigError, Problem, load_config

SMALLEST = "Arch: {name: MobileNeXt_x0_1, class_num: 10}\n"

# Every section, without a mistake. Each line is unique, so that a test can exchange it.
WHOLE = """\
Global:
  epochs: 200
  seed: 1
  device: cpu
  output_dir: ./output
  save_interval: 10
  image_shape: [3, 224, 224]
Arch:
  name: MobileNeXt_100
  class_num: 10
  dropout: 0.2
Loss:
  Train:
    - CELoss: {weight: 1.0, epsilon: 0.1}
  Eval:
    - CELoss: {weight: 1.0}
Optimizer:
  name: Momentum
  momentum: 0.9
  lr:
    name: Cosine
    learning_rate: 0.1
    warmup_epoch: 3
  regularizer: {name: L2, coeff: 1e-4}
DataLoader:
  Train:
    dataset:
      name: ImageNetDataset
      image_root: ./pictures
      cls_label_path: ./list.txt
      transform_ops:
        - DecodeImage: {backend: pil}
        - RandCropImage: {size: 32, interpolation: random}
        - NormalizeImage: {scale: 1.0/255.0, order: ''}
    sampler:
      name: DistributedBatchSampler
      batch_size: 64
      shuffle: True
    loader:
      num_workers: 2
Metric:
  Eval:
    - TopkAcc: {topk: [1, 5]}
Infer:
  infer_imgs: ./photo.jpg
  PostProcess: {name: Topk, topk: 3}
"""


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    """Writes YAML, dedented, to a file of ``folder``."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text), encoding="utf-8")
    return path


def line_of(text: str, marker: str) -> int:
    """The 1-based line of the only occurrence of ``marker``."""
    assert text.count(marker) == 1, f"{marker!r} occurs {text.count(marker)} times"
    return text[: text.index(marker)].count("\n") + 1


def load(folder: Path, text: str, overrides: Sequence[str] = ()) -> Config:
    return load_config(write(folder, text), overrides)


def mistakes(path: Path, overrides: Sequence[str] = ()) -> list[Problem]:
    """What ``load_config`` finds wrong; there has to be something."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.exit_code == 2
    return list(caught.value.problems)


def only_mistake(path: Path, overrides: Sequence[str] = ()) -> Problem:
    problems = mistakes(path, overrides)
    assert len(problems) == 1, problems
    return problems[0]
