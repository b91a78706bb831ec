"""Pictures in, answers out: the same steps for a network in training and for an exported one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.data.datasets import PICTURE_SUFFIXES
from ppcls.data.pipeline import Pipeline
from ppcls.errors import DataError, PPClsError

Picture = str | Path | np.ndarray
Answer = dict[str, Any]


@dataclass
class Classifier:
    """Preprocessing, a network, and post-processing.

    Attributes:
        pipeline: bytes or RGB uint8 [H, W, 3] -> one image of a batch; and batches to floats.
        network: images [N, 3, H, W] float32 -> logits [N, C].
        postprocess: logits and file names -> one answer an image.
        batch_size: images a batch.
    """

    pipeline: Pipeline
    network: Callable[[np.ndarray], np.ndarray]
    postprocess: Callable[[np.ndarray, Sequence[str]], list[Answer]]
    batch_size: int = 10

    def batches(self, pictures: Sequence[Picture]) -> Iterator[list[Answer]]:
        """Answers, a list a batch, for every picture in order.

        A picture that cannot be read is answered by its name and an ``error``.
        """
        for start in range(0, len(pictures), self.batch_size):
            yield self._answer(pictures[start : start + self.batch_size])

    def _answer(self, pictures: Sequence[Picture]) -> list[Answer]:
        answers: list[Answer] = []
        images: dict[int, np.ndarray] = {}
        for i, picture in enumerate(pictures):
            name = "array" if isinstance(picture, np.ndarray) else str(picture)
            answers.append({"file_name": name})
            try:
                images[i] = self._read(picture)
            except OSError as error:
                answers[i]["error"] = f"cannot be read: {error.strerror}"
            except PPClsError as error:
                answers[i]["error"] = str(error)
        # Without a transform that makes them equal, pictures of one shape at a time.
        for shape in {image.shape for image in images.values()}:
            chosen = [i for i, image in images.items() if image.shape == shape]
            names = [answers[i]["file_name"] for i in chosen]
            logits = self.network(self.pipeline.batch(np.stack([images[i] for i in chosen])))
            for i, answer in zip(chosen, self.postprocess(logits, names), strict=True):
                answers[i] = answer
        return answers

    def _read(self, picture: Picture) -> np.ndarray:
        # Transforms used here are deterministic; one that is not draws the same every time.
        data = picture if isinstance(picture, np.ndarray) else Path(picture).read_bytes()
        return self.pipeline.image(data, np.random.default_rng(0))


def find_pictures(source: str | Path) -> list[Path]:
    """A picture's path, or all pictures below a folder, sorted.

    Raises:
        DataError: there is nothing there, or no picture in the folder.
    """
    path = Path(source)
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise DataError(f"{path}: expected pictures in this folder, found none")
    return found
