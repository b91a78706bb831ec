"""The reader of ppcls for ``benchmark/reader.py``: batches as the trainer takes them."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmark.peers.turns import Epoch, children, parse, take_turns
from ppcls import ops
from ppcls.data.datasets import ImageNetDataset
from ppcls.data.loader import DataLoader
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.data.transforms.base import Transform
from ppcls.engine.batch import ToTensors
from ppcls.registry import TRANSFORMS


def transforms(options: Namespace) -> list[Transform]:
    """The usual training transform."""
    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
    table: list[tuple[str, dict[str, Any]]] = [
        ("DecodeImage", {}),
        ("RandCropImage", {"size": 224, "backend": options.backend}),
        ("RandFlipImage", {}),
        *([("ColorJitter", jitter)] if options.jitter else []),
        ("NormalizeImage", {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
        ("ToCHWImage", {}),
    ]
    return [TRANSFORMS.build(name, arguments) for name, arguments in table]


def make(options: Namespace) -> Epoch:
    """Opens the list, starts the workers."""
    ops.keep_memory()  # as the trainer does
    dataset = ImageNetDataset(str(options.root), str(options.list), transforms(options))
    dataset.pipeline.decodes_parts = options.decode == "fast"
    sampler = DistributedBatchSampler(options.batch, shuffle=True, sample_count=len(dataset))
    reader = DataLoader(dataset, sampler, seed=0, num_workers=options.workers)
    to_tensors = ToTensors(dataset.pipeline, kernels=True)
    number = iter(range(10**6))

    def epoch() -> Iterator[int]:
        for batch in reader.epoch(next(number)):
            images, _ = to_tensors(batch)
            yield images.shape[0]

    return epoch


if __name__ == "__main__":
    options = parse(__doc__)
    take_turns(lambda: make(options), children)
