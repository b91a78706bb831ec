"""Readers as a configuration describes them, and batches on the device."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppcls.config import Config
from ppcls.data.datasets import PictureDataset
from ppcls.data.loader import Batch, DataLoader
from ppcls.data.pipeline import Pipeline
from ppcls.data.transforms.normalize import ToCHWImage
from ppcls.engine.distributed import World
from ppcls.errors import ArgumentError, DataError
from ppcls.registry import Spec

if TYPE_CHECKING:
    import paddle


def build_reader(
    config: Config, mode: Literal["Train", "Eval"], world: World, logger: logging.Logger
) -> DataLoader:
    """The reader ``DataLoader.<mode>`` for this process's share of the samples.

    Raises:
        DataError: a path is missing, or a list or folder is wrong.
        ConfigError: the sampler does not suit the data set.
    """
    section = getattr(config.DataLoader, mode)
    class_num = config.Arch.arguments["class_num"]
    dataset: PictureDataset = section.dataset.build(class_num=class_num, mode=mode)
    seed = config.Global.seed
    try:
        sampler = section.sampler.build(
            sample_count=len(dataset),
            seed=seed,
            rank=world.rank,
            world_size=world.size,
            training=mode == "Train",
        )
    except ArgumentError as error:
        path = f"DataLoader.{mode}.sampler.{error.argument}"
        raise config.problem(path, str(error)) from None
    if mode == "Train" and dataset.class_names and len(dataset.class_names) != class_num:
        found = len(dataset.class_names)
        raise DataError(
            f"DataLoader.Train.dataset has {found} class folders, but Arch.class_num is "
            f"{class_num}: set it with -o Arch.class_num={found}"
        )
    if mode == "Train" and dataset.labels.max() + 1 < class_num:
        highest = dataset.labels.max()
        logger.warning(f"Arch.class_num is {class_num}, but the highest label is {highest}")
    return DataLoader(
        dataset,
        sampler,
        seed=seed,
        num_workers=section.loader.num_workers,
        timeout=section.loader.timeout,
        on_bad_sample=lambda text: logger.warning(f"left out: {text}"),
    )


def build_inference_pipeline(config: Config, transforms: list[Spec]) -> Pipeline:
    """The preprocessing of ``Infer.transforms``; raises ConfigError if it does not end in CHW."""
    try:
        return Pipeline([spec.build() for spec in transforms])
    except ArgumentError as error:
        raise config.problem("Infer.transforms", str(error)) from None


class ToTensors:
    """Batches as tensors on the device.

    Args:
        pipeline: whose batch stage is to be done.
        kernels: do it by the CPU kernels; the results are the same bits.
    """

    def __init__(self, pipeline: Pipeline, kernels: bool = False):
        self._pipeline = pipeline
        self._table = _byte_table(pipeline) if kernels else None

    def __call__(self, batch: Batch) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Images [N, 3, H, W] float32, normalised, and targets."""
        import paddle

        targets = paddle.to_tensor(batch.labels)
        if self._table is not None and batch.images.dtype == np.uint8:
            from ppcls.ops.pixels import look_up_pixels

            return look_up_pixels(batch.images, self._table), targets
        images: Any = paddle.to_tensor(batch.images)
        return self._pipeline.batch(images, paddle.to_tensor), targets


def _byte_table(pipeline: Pipeline) -> np.ndarray | None:
    """What the batch stage makes of each byte, [256, 3]; None if it does not begin with HWC."""
    if not any(isinstance(transform, ToCHWImage) for transform in pipeline.batch_transforms):
        return None
    bytes_ = np.arange(256, dtype=np.uint8).reshape(1, 256, 1, 1).repeat(3, axis=3)
    return pipeline.batch(bytes_)[0, :, :, 0].T


def check_class_names(found: list[str] | None, expected: list[str] | None) -> None:
    """Raises DataError if class folders are not those that the labels came from in training."""
    if found and expected and found != expected:
        only_found = sorted(set(found) - set(expected))[:5]
        only_expected = sorted(set(expected) - set(found))[:5]
        raise DataError(
            "the class folders are not those of the training set, so labels would not agree: "
            f"only here {only_found}, only there {only_expected}"
        )
