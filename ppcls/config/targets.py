"""Whether the losses of a run can work with the batches that its reader gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ppcls.config.problems import Problem
from ppcls.config.source import Node, origin_of

if TYPE_CHECKING:
    from ppcls.config.schema import ConfigSchema, ReaderSection
    from ppcls.registry import Spec

DATASET = "DataLoader.Train.dataset"
VIEWS, MIXING = f"{DATASET}.views", f"{DATASET}.batch_transform_ops"

Wrong = Iterable[tuple[str, str]]  # where, and what


def find_problems(sections: ConfigSchema, tree: Node) -> Iterator[Problem]:
    """Views of pictures that a loss lacks, or that cannot be made; targets that it cannot read."""
    train = sections.DataLoader.Train if sections.DataLoader else None
    wrong = [*_losses_of_evaluation(sections)]
    if train is not None:
        wrong += [*_losses_of_training(sections, train), *_without_views(train)]
    for path, message in wrong:
        yield Problem(origin_of(tree, path), path, message)


def _losses(sections: ConfigSchema, mode: str) -> Iterator[tuple[str, Spec]]:
    for i, spec in enumerate(getattr(sections.Loss, mode, None) or []):
        yield f"Loss.{mode}.{i}.{spec.name}", spec


def _losses_of_evaluation(sections: ConfigSchema) -> Wrong:
    for path, spec in _losses(sections, "Eval"):
        if "views" in spec.arguments:
            message = "is a loss between views of a picture, and evaluation has one: name CELoss"
            yield path, message


def _losses_of_training(sections: ConfigSchema, train: ReaderSection) -> Wrong:
    views, mixes = train.dataset.extra["views"], train.dataset.extra["batch_transform_ops"]
    for path, spec in _losses(sections, "Train"):
        wanted, ignored = (spec.arguments.get(name) for name in ("views", "ignore_index"))
        if wanted not in (None, views):
            yield VIEWS, f"expected {wanted}, as {path}.views is, received {views}"
        if ignored is not None and mixes:
            message = f"expected null with {MIXING}, received {ignored}"
            yield f"{path}.ignore_index", f"{message}: mixed targets have no index"


def _without_views(train: ReaderSection) -> Wrong:
    """What makes several views impossible, or keeps them from being those of a picture."""
    views, dataset = train.dataset.extra["views"], train.dataset
    if views == 1:
        return
    if dataset.extra["batch_transform_ops"]:
        message = f"expected 1 with batch_transform_ops, received {views}"
        yield VIEWS, f"{message}: each view would be mixed with another picture"
    operations = dataset.arguments.get("transform_ops") or []
    makers = [spec.name for spec in operations if spec.build().per_view]
    if len(makers) != 1:
        expected = f"expected 1, or one AugMix (or TimmAutoAugment: augmix-...) in {DATASET}"
        received = f"received {views} and {' and '.join(makers) or 'none'}"
        yield VIEWS, f"{expected}.transform_ops that makes them, {received}"
