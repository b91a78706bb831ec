"""Images per second of the reader: files on disk -> batches ready for the network.

Training transform: decode, random crop to 224, flip, normalise. The peer in the same run is
`paddle.io.DataLoader` with one float picture normalised at a time, as PaddleClas reads.

python benchmark/reader.py                               # 250 generated JPEGs of 500x375
python benchmark/reader.py --pictures FOLDER --workers 2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.machine import describe_machine, report
from ppcls.data.datasets import ImageNetDataset
from ppcls.data.loader import DataLoader
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.data.transforms.base import Transform
from ppcls.registry import TRANSFORMS

BATCH = 64


def main() -> None:
    """Measures both readers in turn and prints their rates and ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, help="a folder of pictures; generated if absent")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--epochs", type=int, default=5, help="counted epochs, after one not counted"
    )
    parser.add_argument("--samples", type=int, default=1000, help="entries an epoch")
    parser.add_argument("--backend", choices=("cv2", "pil"), default="cv2")
    options = parser.parse_args()
    sys.stdout.write(f"{describe_machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(Path(folder), options)
        own = measure_own(dataset, options)
        peer = measure_peer(dataset, options)
        mine = report(f"ppcls, {options.workers} workers, {options.backend}", own)
        theirs = report("paddle.io.DataLoader, float pictures", peer)
        sys.stdout.write(f"ratio {mine / theirs:.2f}\n")


def make_dataset(folder: Path, options: argparse.Namespace) -> ImageNetDataset:
    """A data set of ``options.samples`` entries over the pictures of a folder."""
    root = options.pictures or _generate(folder)
    names = sorted(p.name for p in root.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    lines = [f"{names[i % len(names)]} 0\n" for i in range(options.samples)]
    label_file = folder / "list.txt"
    label_file.write_text("".join(lines), encoding="utf-8")
    return ImageNetDataset(str(root), str(label_file), transforms(options.backend), class_num=1)


def transforms(backend: str) -> list[Transform]:
    """The usual training transform."""
    table: list[tuple[str, dict[str, Any]]] = [
        ("DecodeImage", {"backend": backend}),
        ("RandCropImage", {"size": 224, "backend": backend}),
        ("RandFlipImage", {}),
        ("NormalizeImage", {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
        ("ToCHWImage", {}),
    ]
    return [TRANSFORMS.build(name, arguments) for name, arguments in table]


def measure_own(dataset: ImageNetDataset, options: argparse.Namespace) -> list[float]:
    """Rates of our reader, epoch by epoch, normalised batches included."""
    sampler = DistributedBatchSampler(BATCH, shuffle=True, sample_count=len(dataset))
    rates = []
    with DataLoader(dataset, sampler, seed=0, num_workers=options.workers) as reader:
        for epoch in range(options.epochs + 1):
            batches = (dataset.pipeline.batch(batch.images) for batch in reader.epoch(epoch))
            rates.append(_rate(batches))
    return rates[1:]


def measure_peer(dataset: ImageNetDataset, options: argparse.Namespace) -> list[float]:
    """Rates of Paddle's loader over the same transforms, each picture on its own."""
    import paddle

    class Pictures(paddle.io.Dataset):
        def __len__(self) -> int:
            return len(dataset)

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            image: Any = Path(dataset.path(index)).read_bytes()
            rng = np.random.default_rng()
            for transform in dataset.pipeline.transforms:
                image = transform(image, rng)
            return np.ascontiguousarray(image), 0

    loader = paddle.io.DataLoader(
        Pictures(), batch_size=BATCH, shuffle=True, num_workers=options.workers
    )
    return [_rate(batch[0] for batch in loader) for _ in range(options.epochs + 1)][1:]


def _rate(batches: Iterator[Any]) -> float:
    start = time.perf_counter()
    images = sum(batch.shape[0] for batch in batches)
    return images / (time.perf_counter() - start)


def _generate(folder: Path) -> Path:
    """250 smooth random JPEGs of 500x375, about as large as photographs."""
    import cv2

    root = folder / "pictures"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(250):
        coarse = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / f"{i:03}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 96])
    return root


if __name__ == "__main__":
    main()
