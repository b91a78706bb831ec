"""A reader that does what PaddleClas's does, step by step, for ``benchmark/reader.py``.

One `__getitem__` a picture: OpenCV decodes all of it and turns BGR into RGB, crops, resizes, flips
and normalises in float32; `paddle.io.DataLoader` stacks the float pictures and sends them through
shared memory. The defaults of its ImageNet configurations; imports no ppcls.
"""

from __future__ import annotations

import math
import random
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmark.peers.turns import Epoch, children, epochs_of, parse, read_list, take_turns

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 1, 3)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 1, 3)
SIZE = 224


class Pictures(paddle.io.Dataset):
    """Pictures of a list, each decoded, cropped and normalised on its own."""

    def __init__(self, samples: list[tuple[str, int]], jitter: bool):
        self.samples = samples
        self.jitter = None
        if jitter:
            self.jitter = paddle.vision.transforms.ColorJitter(0.4, 0.4, 0.4, 0.0)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path, label = self.samples[index]
        with Path(path).open("rb") as file:
            data = np.frombuffer(file.read(), np.uint8)
        image: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
        image = image[:, :, ::-1]
        image = _resized_crop(image)
        if random.randint(0, 1):
            image = cv2.flip(image, 1)
        if self.jitter is not None:
            from PIL import Image

            image = np.asarray(self.jitter(Image.fromarray(image)))
        image = (image.astype(np.float32) * np.float32(1 / 255) - MEAN) / STD
        return image.transpose((2, 0, 1)), label


def _resized_crop(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    root = math.sqrt(random.uniform(3 / 4, 4 / 3))
    across, down = root, 1 / root
    bound = min(width / height / across**2, height / width / down**2)
    area = height * width * random.uniform(min(0.08, bound), min(1.0, bound))
    w, h = int(math.sqrt(area) * across), int(math.sqrt(area) * down)
    x, y = random.randint(0, width - w), random.randint(0, height - h)
    return cv2.resize(image[y : y + h, x : x + w], (SIZE, SIZE))


def make(options: Namespace) -> Epoch:
    """Opens the list; the workers start with the first epoch, and stay."""
    loader = paddle.io.DataLoader(
        Pictures(read_list(options), options.jitter),
        batch_size=options.batch,
        shuffle=True,
        num_workers=options.workers,
        use_shared_memory=True,
        persistent_workers=True,
    )
    return epochs_of(loader)


if __name__ == "__main__":
    options = parse(__doc__)
    take_turns(lambda: make(options), children)
