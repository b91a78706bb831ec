"""A configuration for a folder of photos: chosen from the photos, the network and the machine."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppcls import zoo
from ppcls.report.finetune_photos import Photos
from ppcls.report.page import counted

# What the published weights of a family expect, where it is not ImageNet's usual mean and spread.
NORMS = {
    "EfficientNet_lite": "{scale: 1.0, mean: [127, 127, 127], std: [128, 128, 128]}",
    "EfficientNetV2": "{scale: 1.0, mean: [128, 128, 128], std: [128, 128, 128]}",
    "MobileViT": "{mean: [0, 0, 0], std: [1, 1, 1]}",
    "ViT": "{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}",
}
USUAL = "{mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
FIXED_SIZE = ("DeiT", "ViT", "Swin", "MobileViT")  # whose attention is made for one size
SMALL = 0.6  # shorter sides below this part of the network's image are not blown up to all of it
STEPS = 66  # that a classifier needs at least
BATCHES = ((512, 32), (128, 16), (0, 8))  # photos to learn from, and the batch from there on
RATE = 0.02  # that the classifier learns with


@dataclass(frozen=True)
class Plan:
    """What a configuration is made of.

    Attributes:
        photos: what there is.
        model: a network of the zoo.
        weights: to start from; None for the published ones.
        out: folder of everything that is written.
        seed: of the run.
        size: side of the network's images.
        batch: photos a step.
        epochs: rounds through the photos.
        workers: reading processes.
    """

    photos: Photos
    model: str
    weights: str | None
    out: Path
    seed: int
    size: int
    batch: int
    epochs: int
    workers: int


def make_plan(
    photos: Photos, model: str, weights: str | None, out: Path, seed: int, epochs: int | None
) -> Plan:
    """Chooses what is not given."""
    count = photos.count("train")
    batch = next(size for least, size in BATCHES if count >= least)
    steps = math.ceil(count / batch)
    rounds = epochs or min(max(math.ceil(STEPS / steps), 3), 30)
    workers = max(1, min(4, cpus() // 2))
    size = image_size(photos, model)
    return Plan(photos, model, weights, out, seed, size, batch, rounds, workers)


def cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def image_size(photos: Photos, model: str) -> int:
    """The network's own size, or a smaller multiple of 32 where the photos are much smaller."""
    own = next((m.image_size for m in zoo.models(model)), 224)
    if model.startswith(FIXED_SIZE) or photos.side >= SMALL * own:
        return own
    return max(96, math.ceil(photos.side / 32) * 32)


def configuration(plan: Plan, command: Sequence[str]) -> str:
    """The configuration as YAML with comments."""
    photos, out = plan.photos, plan.out
    tested = photos.tested
    evaluated = "val" if "val" in photos.lists.splits else "test"
    # Rounds are chosen by what is right of 'val'; 'test' is looked at once, at the end.
    interval = 1 if evaluated == "val" else plan.epochs
    why = "after every round" if evaluated == "val" else "once, after the last round"
    norm = next((n for name, n in NORMS.items() if plan.model.startswith(name)), USUAL)
    decode = " {to_rgb: False}" if plan.model.startswith("MobileViT") else ""
    resized = round(plan.size * 256 / 224)
    read = f"""\
        - DecodeImage:{decode}
"""
    end = f"""\
        - NormalizeImage: {norm}
        - ToCHWImage:
"""

    def dataset(split: str) -> str:
        return f"""\
    dataset:
      name: ImageNetDataset
      image_root: {_text(photos.lists.root)}
      cls_label_path: {_text(out / photos.lists.file(split))}
      on_error: skip
      max_bad_ratio: 0.1
"""

    return f"""\
# Made by: {" ".join(command)}
# Yours to keep and to change. It is run by: ppcls train -c {out / "finetune.yaml"}
# {counted(len(photos.lists.class_names), "class")}, {counted(photos.count("train"), "photo")} to \
learn from, {counted(photos.count(tested), "photo")} to test with.
Global:
  device: auto
  seed: {plan.seed}
  output_dir: {_text(out)}
  epochs: {plan.epochs}
  eval_interval: {interval}  # {evaluated}_list.txt is looked at {why}
  save_interval: {plan.epochs}
  print_batch_step: 10
  image_shape: [3, {plan.size}, {plan.size}]
  save_inference_dir: {_text(out / "inference")}

Arch:
  name: {plan.model}
  class_num: {len(photos.lists.class_names)}
  pretrained: {_text(plan.weights) if plan.weights else "True"}

# What the network knows of photos stays; the classifier learns the new classes. With thousands of
# photos, or photos of another kind, more may learn: freeze_until: 3 (stages), or unfreeze_epoch.
Finetune:
  freeze_until: head

Loss:
  Train:
    - CELoss: {{weight: 1.0, epsilon: 0.1}}
  Eval:
    - CELoss: {{weight: 1.0}}

Metric:
  Train:
    - TopkAcc: {{topk: 1}}
  Eval:
    - TopkAcc: {{topk: 1}}

Optimizer:
  name: Momentum
  use_nesterov: True
  regularizer: {{name: L2, coeff: 1e-4}}
  lr: {{name: Cosine, learning_rate: {RATE}}}

DataLoader:
  Train:
{dataset("train")}      transform_ops:
{read}        - RandCropImage: {{size: {plan.size}, scale: [0.3, 1.0]}}
        - RandFlipImage:  # take it out where left and right differ: digits, letters, signs
        - ColorJitter: {{brightness: 0.4, contrast: 0.4, saturation: 0.4}}
{end}\
    sampler: {{name: BatchSampler, batch_size: {plan.batch}, shuffle: True}}
    loader: {{num_workers: {plan.workers}}}
  Eval:
{dataset(evaluated)}      transform_ops: &eval
{read}        - ResizeImage: {{resize_short: {resized}}}
        - CropImage: {{size: {plan.size}}}
{end}\
    sampler: {{name: BatchSampler, batch_size: 64}}
    loader: {{num_workers: {plan.workers}}}

Infer:
  transforms: *eval
  PostProcess:
    name: Topk
    topk: {min(5, len(photos.lists.class_names))}
    class_id_map_file: {_text(out / "label_map.txt")}
"""


def _text(value: object) -> str:
    """A text in YAML, quoted only where that is needed."""
    text = str(value)
    plain = text.replace("/", "").replace("_", "").replace("-", "").replace(".", "")
    return text if plain.isalnum() and plain.isascii() else json.dumps(text, ensure_ascii=False)
