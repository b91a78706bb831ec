"""timm's loader for ``benchmark/reader.py``: PIL, bicubic; batches travel as uint8.

To be run by the Python of an environment of its own; imports no ppcls.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmark.peers.torch_step import import_torchvision
from benchmark.peers.turns import Epoch, children, epochs_of, parse, read_list, take_turns


class Pictures(torch.utils.data.Dataset):
    """Pictures of a list, as timm's own data sets read them."""

    def __init__(self, samples: list[tuple[str, int]]):
        self.samples = samples
        self.transform: Any = None  # set by the loader

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        with Path(path).open("rb") as file:
            image = Image.open(file).convert("RGB")
        return self.transform(image), label


def make(options: Namespace) -> Epoch:
    """timm's loader with its prefetcher, which normalises whole batches."""
    import_torchvision()
    import timm.data

    loader = timm.data.create_loader(
        Pictures(read_list(options)),
        input_size=(3, 224, 224),
        batch_size=options.batch,
        is_training=True,
        use_prefetcher=True,
        color_jitter=0.4 if options.jitter else None,
        interpolation="bicubic",
        num_workers=options.workers,
        device=torch.device("cpu"),
        pin_memory=False,
        persistent_workers=True,
    )
    return epochs_of(loader)


if __name__ == "__main__":
    options = parse(__doc__)
    take_turns(lambda: make(options), children)
