"""What the Trainer adds to a training step: logging, metrics, averages, seeds, progress.

python benchmark/train_loop.py                    # the quick start's network on made-up pictures
python benchmark/train_loop.py --size 224 --steps 20

Each repetition trains one epoch with the Trainer and one with a bare loop (reader, network, loss,
backward, optimizer; nothing else) over the same pictures, and compares.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ppcls
from benchmark.machine import describe_machine, report
from ppcls.engine.handler import Handler

CLASSES = 10


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="MobileNeXt_x0_35")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--steps", type=int, default=60, help="steps of an epoch")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    sys.stdout.write(f"{describe_machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), options.batch * options.steps, options.size)
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Alternates the two loops and prints both speeds and their ratio."""
    trainer_times: list[float] = []
    bare_times: list[float] = []
    for repeat in range(options.repeats + 1):
        trainer_time, bare_time = train(options, folder), train_bare(options, folder)
        if repeat:  # the first one warms up
            trainer_times.append(trainer_time)
            bare_times.append(bare_time)
    samples = options.batch * options.steps
    report("Trainer", [samples / seconds for seconds in trainer_times])
    report("bare loop", [samples / seconds for seconds in bare_times])
    ratios = [t / b for t, b in zip(trainer_times, bare_times, strict=True)]
    sys.stdout.write(
        f"time of the Trainer's epoch / the bare loop's: median {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})\n"
    )


class EpochTimer(Handler):
    """Seconds from an epoch's first batch to its last step."""

    def step_start(self, trainer: Any) -> None:
        """Starts with the first step."""
        if trainer.state.step_in_epoch == 0:
            self.start = time.perf_counter()

    def step_end(self, trainer: Any, step: Any) -> None:
        """Ends with the last one."""
        self.seconds = time.perf_counter() - self.start


def train(options: argparse.Namespace, folder: Path) -> float:
    """Seconds of the epoch with all that a run does beside it."""
    from ppcls.engine.handlers import default_handlers

    config = make_config(options, folder)
    trainer = ppcls.Trainer(config)
    timer = EpochTimer()
    trainer.handlers = [timer, *default_handlers(config, trainer.world), timer]
    trainer.fit()
    return timer.seconds


def train_bare(options: argparse.Namespace, folder: Path) -> float:
    """Seconds of the epoch with nothing beside it."""
    trainer = ppcls.Trainer(make_config(options, folder), handlers=[])
    trainer.model.train()
    start = 0.0
    for index, batch in enumerate(trainer.reader.epoch(1)):
        if index == 0:
            start = time.perf_counter()
        images, targets = trainer._to_tensors(batch)
        loss = trainer.loss(trainer.model(images), targets)["loss"]
        loss.backward()
        trainer.optimizer.step()
        trainer.optimizer.clear_grad()
    seconds = time.perf_counter() - start
    trainer.close()
    return seconds


def make_config(options: argparse.Namespace, folder: Path) -> Any:
    """One epoch over the pictures, without evaluation."""
    reader = f"""
    dataset:
      name: ImageNetDataset
      image_root: {folder}
      cls_label_path: {folder}/list.txt
      transform_ops:
        - DecodeImage:
        - NormalizeImage:
        - ToCHWImage:
    sampler: {{name: DistributedBatchSampler, batch_size: {options.batch}, shuffle: True}}
    loader: {{num_workers: 1}}"""
    text = f"""
Global: {{epochs: 1, device: cpu, eval_during_train: False, output_dir: {folder}/output}}
Arch: {{name: {options.model}, class_num: {CLASSES}}}
Loss: {{Train: [CELoss: {{weight: 1.0}}]}}
Metric: {{Train: [TopkAcc: {{topk: [1, 5]}}]}}
Optimizer: {{name: Momentum, lr: {{name: Cosine, learning_rate: 0.01}}}}
DataLoader:
  Train:{reader}
"""
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return ppcls.load_config(path)


def write_pictures(folder: Path, count: int, size: int) -> None:
    """Small pictures of noise and their list."""
    import cv2

    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        picture = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 0])
        lines.append(f"{i}.png {i % CLASSES}")
    (folder / "list.txt").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
