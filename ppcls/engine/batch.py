"""Readers as a configuration describes them, and batches on the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ppcls.config import Config
from ppcls.config.stages import stages_of
from ppcls.data.datasets import PictureDataset
from ppcls.data.loader import Batch, DataLoader
from ppcls.data.mixing.base import BatchTransform, batch_generator
from ppcls.data.pipeline import Pipeline
from ppcls.data.subsets import chosen
from ppcls.data.transforms.normalize import ToCHWImage
from ppcls.data.worker import Dataset
from ppcls.engine.distributed import World
from ppcls.engine.progressive import staged_sampler
from ppcls.errors import ArgumentError, DataError
from ppcls.registry import Spec

if TYPE_CHECKING:
    import paddle

# Arguments of data sets that say where samples come from.
SAMPLES_FROM = (
    "image_root",
    "cls_label_path",
    "csv_path",
    "data_file",
    "mode",
    "data_path",
    "split",
    "lmdb_path",
    "root",
)


def build_reader(
    config: Config,
    mode: Literal["Train", "Eval"],
    world: World,
    logger: logging.Logger,
    prepare: Callable[[PictureDataset], None] | None = None,
) -> DataLoader:
    """The reader ``DataLoader.<mode>`` for this process's share of the samples.

    Args:
        prepare: called with the data set before its readers are started.

    Raises:
        DataError: a path is missing, or a list or folder is wrong.
        ConfigError: an argument of the data set cannot be used, the sampler does not suit the
            data set, or there is no such part of it.
    """
    section = getattr(config.DataLoader, mode)
    class_num = config.Arch.arguments["class_num"]
    dataset = _dataset(config, mode, class_num, prepare)
    if mode == "Train":
        _check_classes(dataset, class_num, logger)
    _keep_part(dataset, config, mode, logger)
    dataset.epochs = config.Global.epochs if mode == "Train" else 1
    dataset.views = section.dataset.extra["views"] if mode == "Train" else 1
    dataset.pipeline.decodes_parts = _decodes_parts(config, mode, section.loader.decode)
    seed = config.Global.seed
    facts = {
        "sample_count": len(dataset),
        "labels": dataset.labels,
        "shards": getattr(dataset, "shards", None),
        "seed": seed,
        "rank": world.rank,
        "world_size": world.size,
        "training": mode == "Train",
    }
    try:
        sampler = section.sampler.build(**facts)
        stages = stages_of(config) if mode == "Train" else None
        if stages is not None:
            dataset.stages = stages
            sampler = staged_sampler(sampler, section.sampler, facts, stages, config)
        return DataLoader(
            dataset,
            sampler,
            seed=seed,
            num_workers=section.loader.num_workers,
            timeout=section.loader.timeout,
            on_bad_sample=lambda text: logger.warning(f"left out: {text}"),
        )
    except ArgumentError as error:
        part = "loader" if error.argument == "num_workers" else "sampler"
        path = f"DataLoader.{mode}.{part}.{error.argument}"
        raise config.problem(path, str(error)) from None


def _dataset(
    config: Config,
    mode: Literal["Train", "Eval"],
    class_num: int,
    prepare: Callable[[PictureDataset], None] | None,
) -> PictureDataset:
    """The data set; its errors say where the configuration names it."""
    spec: Spec = getattr(config.DataLoader, mode).dataset
    place = f"DataLoader.{mode}.dataset"
    try:
        dataset: PictureDataset = spec.build(class_num=class_num, mode=mode)
        if prepare is not None:
            prepare(dataset)
        return dataset
    except ArgumentError as error:
        raise config.problem(f"{place}.{error.argument}", str(error)) from None
    except DataError as error:
        argument, _, text = str(error).partition(": ")
        if argument not in spec.arguments:
            argument, text = "", str(error)
        path = f"{place}.{argument}" if argument else place
        # Many lines have places of their own, and stay whole.
        text = f"cannot be used:\n{text}" if "\n" in text else text
        raise DataError(str(config.problem(path, text))) from error


def check_folds(config: Config, train: Dataset, evaluation: Dataset) -> None:
    """Raises ConfigError if a ``fold`` is not cut from the same samples for both readers."""
    section = config.DataLoader
    if section is None or section.Train is None or section.Eval is None:
        return
    specs = section.Train.dataset, section.Eval.dataset
    if all(spec.extra["fold"] is None for spec in specs):
        return
    found = [{**spec.arguments, **spec.extra} for spec in specs]
    differs = next((k for k in ("fold", *SAMPLES_FROM) if found[0].get(k) != found[1].get(k)), None)
    if differs is not None:
        one, other = (arguments.get(differs) for arguments in found)
        difference = f"the {differs} of DataLoader.Train.dataset, {one!r}, received {other!r}"
    elif not np.array_equal(train.source.labels, evaluation.source.labels):
        difference = "the samples of DataLoader.Train.dataset, received those of an evaluation"
    else:
        return
    path = "DataLoader.Eval.dataset.fold"
    message = f"expected {difference}: a fold is cut from the same samples for both"
    raise config.problem(path, message)


def _decodes_parts(config: Config, mode: str, decode: str) -> bool:
    if mode == "Eval" and decode == "fast":
        path = "DataLoader.Eval.loader.decode"
        raise config.problem(
            path, "expected 'auto' or 'exact', received 'fast': evaluation is exact"
        )
    return mode == "Train" and decode != "exact"


def _check_classes(dataset: PictureDataset, class_num: int, logger: logging.Logger) -> None:
    if dataset.class_names and len(dataset.class_names) != class_num:
        found = len(dataset.class_names)
        raise DataError(
            f"DataLoader.Train.dataset has {found} classes, but Arch.class_num is "
            f"{class_num}: set it with -o Arch.class_num={found}"
        )
    if dataset.labels.ndim == 1 and dataset.labels.max() + 1 < class_num:
        highest = dataset.labels.max()
        logger.warning(f"Arch.class_num is {class_num}, but the highest label is {highest}")


def _keep_part(
    dataset: PictureDataset, config: Config, mode: Literal["Train", "Eval"], logger: logging.Logger
) -> None:
    """Leaves the samples that ``subset``, ``few_shot`` and ``fold`` say."""
    extra = getattr(config.DataLoader, mode).dataset.extra
    wanted = {key: extra[key] for key in ("subset", "few_shot", "fold")}
    if all(value is None for value in wanted.values()):
        return
    try:
        indices = chosen(
            dataset.labels, **wanted, mode=mode, seed=config.Global.seed, warn=logger.warning
        )
    except ArgumentError as error:
        path = f"DataLoader.{mode}.dataset.{error.argument}"
        raise config.problem(path, str(error)) from None
    if indices is not None:
        dataset.select(indices)


def build_inference_pipeline(config: Config, transforms: list[Spec]) -> Pipeline:
    """The preprocessing of ``Infer.transforms``; raises ConfigError if it does not end in CHW."""
    try:
        return Pipeline([spec.build() for spec in transforms])
    except ArgumentError as error:
        raise config.problem("Infer.transforms", str(error)) from None


def build_postprocess(spec: Spec, state: Mapping[str, Any]) -> Any:
    """What turns logits into answers, with what is known of the weights (``load_checkpoint``)."""
    return spec.build(class_names=state.get("class_names"), calibrated=state.get("temperature"))


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

        if paddle.get_device() != "cpu":
            images, targets = (_sent(array) for array in (batch.images, batch.labels))
            return self._pipeline.batch(images, paddle.to_tensor), targets
        targets = paddle.to_tensor(batch.labels)
        if self._table is not None and batch.images.dtype == np.uint8:
            from ppcls.ops.pixels import look_up_pixels

            return look_up_pixels(batch.images, self._table), targets
        return self._pipeline.batch(paddle.to_tensor(batch.images), paddle.to_tensor), targets


def _sent(array: np.ndarray) -> Any:
    """A tensor on the GPU; the copy goes on while the GPU still does the step before.

    From pinned memory, which is the only kind that a GPU fetches from by itself. Not measured.
    """
    import paddle

    return paddle.to_tensor(array, place=paddle.CUDAPinnedPlace()).cuda(blocking=False)


class Mixing:
    """The batch transforms of a run, on the device.

    Args:
        transforms: in their order; without any, batches stay as they are.
        class_num: number of classes.
        seed: of the run.
        rank: number of this process.
    """

    def __init__(self, transforms: Sequence[BatchTransform], class_num: int, seed: int, rank: int):
        self._transforms = list(transforms)
        self._class_num = class_num
        self._seed = seed
        self._rank = rank

    @classmethod
    def of(cls, config: Config, world: World) -> Mixing:
        """As ``DataLoader.Train.dataset.batch_transform_ops`` says."""
        specs = batch_transforms(config)
        class_num = config.Arch.arguments["class_num"]
        return cls([s.build() for s in specs], class_num, config.Global.seed, world.rank)

    def of_alphas(self, alphas: Mapping[str, float]) -> Mixing:
        """The same with other alphas of ``mixup`` and ``cutmix``, those that are given."""
        transforms = [transform.of_alphas(alphas) for transform in self._transforms]
        return Mixing(transforms, self._class_num, self._seed, self._rank)

    def __call__(
        self, images: paddle.Tensor, targets: paddle.Tensor, epoch: int, index: int
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """The batch, mixed as this batch of this epoch is in every run of this seed.

        Args:
            images: float32 [N, 3, H, W].
            targets: class indices [N], or probabilities [N, class_num], as they are returned.
            index: number of the batch in its epoch.
        """
        if not self._transforms:
            return images, targets
        import paddle

        if not paddle.is_floating_point(targets):
            targets = paddle.nn.functional.one_hot(targets, self._class_num)
        rng = batch_generator(self._seed, epoch, index, self._rank)
        for transform in self._transforms:
            images, targets = transform(images, targets, rng)
        return images, targets


def batch_transforms(config: Config) -> list[Spec]:
    """What ``DataLoader.Train.dataset.batch_transform_ops`` names; empty if nothing."""
    reader = config.DataLoader.Train if config.DataLoader else None
    return list((reader and reader.dataset.extra["batch_transform_ops"]) or [])


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
