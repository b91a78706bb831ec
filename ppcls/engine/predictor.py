"""Prediction with a network as trained, or with an exported folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.config import Config
from ppcls.deploy.classifier import Answer, Classifier, Picture, find_pictures
from ppcls.deploy.exported import read_exported
from ppcls.deploy.paddle_runtime import PaddleRuntime
from ppcls.engine import logging as log
from ppcls.engine.batch import build_inference_pipeline, build_postprocess
from ppcls.engine.device import require_paddle, set_device, use_kernels
from ppcls.engine.model import load_network


class Predictor:
    """Top-k answers for pictures.

    Args:
        source: a checked configuration (its weights, ``Infer.transforms`` and
            ``Infer.PostProcess`` are used), or an exported folder.
        allow_random: predict with a network without weights.
        logger: where to say what was loaded; standard error by default.
    """

    def __init__(self, source: Config | str | Path, allow_random: bool = False, logger: Any = None):
        require_paddle()
        if logger is None:
            import sys

            logger = log.make_logger(stream=sys.stderr)
        if isinstance(source, Config):
            self._classifier = _from_config(source, allow_random, logger)
        else:
            self._classifier = _from_exported(source)

    def predict(self, images: Picture | Sequence[Picture]) -> list[Answer]:
        """Answers for all pictures, in order.

        Args:
            images: paths of pictures or of folders of pictures, or RGB uint8 arrays [H, W, 3].

        Returns:
            ``{'class_ids': [...], 'scores': [...], 'file_name': ..., 'label_names': [...]}`` for
            each picture, or ``{'file_name': ..., 'error': ...}`` for one that cannot be read.
        """
        return [answer for batch in self.batches(images) for answer in batch]

    def batches(self, images: Picture | Sequence[Picture]) -> Iterator[list[Answer]]:
        """As ``predict``, a list for each batch as soon as it is there."""
        given = [images] if isinstance(images, (str, Path, np.ndarray)) else images
        pictures: list[Picture] = []
        for image in given:
            pictures += [image] if isinstance(image, np.ndarray) else find_pictures(image)
        return self._classifier.batches(pictures)


def _from_config(config: Config, allow_random: bool, logger: Any) -> Classifier:
    import paddle

    infer, transforms, postprocess = config.require(
        "Infer", "Infer.transforms", "Infer.PostProcess", purpose="prediction"
    )
    log.warn_of_config(logger, config)
    set_device(config.Global.device, logger)
    net, state = load_network(config, logger, allow_random)
    use_kernels(net, config.Global.cpu_kernels, logger)
    pipeline = build_inference_pipeline(config, transforms)

    def run(images: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            return net(paddle.to_tensor(images)).numpy()

    answers = build_postprocess(postprocess, state)
    return Classifier(pipeline, run, answers, infer.batch_size)


def _from_exported(folder: str | Path) -> Classifier:
    model = read_exported(folder)
    return Classifier(model.pipeline(), PaddleRuntime(folder), model.postprocess())
