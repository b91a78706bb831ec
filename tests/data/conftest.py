"""Pictures and data sets that the tests of this folder share."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls.data.datasets import ImageNetDataset
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.flip import RandFlipImage
from ppcls.data.transforms.normalize import NormalizeImage


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """Smooth colours with all corners different, uint8 [60, 80, 3]."""
    rows, columns = np.mgrid[0:60, 0:80]
    return np.stack([rows * 4, columns * 3, 255 - rows - columns], -1).astype(np.uint8)


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    def encoded(picture: np.ndarray | Image.Image, kind: str = "JPEG", **options: object) -> bytes:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encoded


def transforms() -> list:
    return [DecodeImage(), RandCropImage(size=32), RandFlipImage(), NormalizeImage(order="")]


@pytest.fixture
def list_file(tmp_path: Path, photo: np.ndarray, encode: Callable[..., bytes]) -> Path:
    """23 pictures of 5 classes in two folders, with an awkward name; returns the list file."""
    lines = []
    for index in range(23):
        name = f"folder {index % 2}/ü #{index}.jpg"
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(np.roll(photo, 3 * index, axis=1)))
        lines.append(f"{name} {index % 5}\n")
    path = tmp_path / "train_list.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def make_dataset(list_file: Path) -> Callable[..., ImageNetDataset]:
    def make(**arguments: object) -> ImageNetDataset:
        arguments = {"transform_ops": transforms(), **arguments}
        return ImageNetDataset(str(list_file.parent), str(list_file), class_num=5, **arguments)

    return make


@pytest.fixture(autouse=True)
def restore_threads():
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)
