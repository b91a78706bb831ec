"""Readers as a configuration describes them, and batches on the device."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from ppcls.config import Config
from ppcls.data.datasets import PictureDataset
from ppcls.data.loader import Batch, DataLoader
from ppcls.data.pipeline import Pipeline
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


def to_tensors(batch: Batch, pipeline: Pipeline) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Images [N, 3, H, W] float32, normalised on the device, and targets."""
    import paddle

    images: Any = paddle.to_tensor(batch.images)
    return pipeline.batch(images, paddle.to_tensor), paddle.to_tensor(batch.labels)


def check_class_names(found: list[str] | None, expected: list[str] | None) -> None:
    """Raises DataError if class folders are not those that the labels came from in training."""
    if found and expected and found != expected:
        only_found = sorted(set(found) - set(expected))[:5]
        only_expected = sorted(set(expected) - set(found))[:5]
        raise DataError(
            "the class folders are not those of the training set, so labels would not agree: "
            f"only here {only_found}, only there {only_expected}"
        )
