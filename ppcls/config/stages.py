"""The stages of a run, from either way to write them, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ppcls.config.networks import evaluated
from ppcls.config.problems import Problem
from ppcls.config.progressive import SETTINGS, Stage, Stages
from ppcls.config.source import Node, origin_of
from ppcls.registry import BACKBONES, Spec

if TYPE_CHECKING:
    from ppcls.config.schema import ConfigSchema, ReaderSection

TRAIN = "DataLoader.Train"
MODE = "Global.train_mode"
PUBLISHED_KEYS = {"progress_size": "size", "progress_magnitude": "magnitude"}

# Dropout of the last stage, which it grows to from that of the first: Table 6 of the paper, L for
# XL. `train_mode: progressive` implies it; PaddleClas has the same numbers for S in its code.
FIRST_DROPOUT = 0.1
LAST_DROPOUT = {
    "EfficientNetV2_S": 0.3,
    "EfficientNetV2_M": 0.4,
    "EfficientNetV2_L": 0.5,
    "EfficientNetV2_XL": 0.5,
}


def stages_of(config: ConfigSchema) -> Stages | None:
    """The stages of a checked configuration; None if it has none."""
    if config.Progressive is not None:
        return Stages(config.Progressive.stages, config.Global.epochs)
    lists = {found.setting: found.values for found in _published(_train(config))}
    if config.Global.train_mode != "progressive" or not lists:
        return None
    count = len(next(iter(lists.values())))
    last = LAST_DROPOUT.get(evaluated(config.Arch).name)
    if last is not None:
        grown = last - FIRST_DROPOUT
        lists["dropout"] = [FIRST_DROPOUT + grown * i / max(count - 1, 1) for i in range(count)]
    stages = [Stage(**{key: values[i] for key, values in lists.items()}) for i in range(count)]
    return Stages(stages, config.Global.epochs)


def find_problems(sections: ConfigSchema, tree: Node) -> Iterator[Problem]:
    """Stages that contradict each other, or that nothing of the configuration can follow."""
    published = list(_published(_train(sections)))
    wrong = list(_contradictions(sections, published))
    if not wrong and (stages := stages_of(sections)) is not None:
        at = {found.setting: found.path for found in published}
        for setting, message in _without_effect(sections, stages):
            wrong.append((at.get(setting, f"Progressive.stages.0.{setting}"), message))
    for path, message in wrong:
        yield Problem(origin_of(tree, path), path, message)


@dataclass(frozen=True)
class _List:
    """A published list with a value for each stage."""

    path: str
    setting: str
    values: list[Any]


Wrong = Iterable[tuple[str, str]]  # where, and what


def _train(sections: ConfigSchema) -> ReaderSection | None:
    return sections.DataLoader.Train if sections.DataLoader else None


def _operations(train: ReaderSection | None) -> list[Spec]:
    return (train and train.dataset.arguments.get("transform_ops")) or []


def _published(train: ReaderSection | None) -> Iterator[_List]:
    for i, spec in enumerate(_operations(train)):
        for key, setting in PUBLISHED_KEYS.items():
            if (values := spec.arguments.get(key)) is not None:
                yield _List(f"{TRAIN}.dataset.transform_ops.{i}.{spec.name}.{key}", setting, values)


def _contradictions(sections: ConfigSchema, published: list[_List]) -> Wrong:
    is_on = sections.Global.train_mode == "progressive"
    if is_on and sections.Progressive is None and not published:
        lists = " or ".join(PUBLISHED_KEYS)
        yield MODE, f"expected stages, a section Progressive or {lists}; received none"
    if not published:
        return
    first, *others = published
    if sections.Progressive is not None:
        yield "Progressive", f"expected stages in one place, received {first.path}, too"
    elif not is_on:
        yield first.path, f"expected {MODE} 'progressive' with it, received null"
    for other in others:
        if len(other.values) != len(first.values):
            expected = f"a value for each of the {len(first.values)} stages of {first.path}"
            yield other.path, f"expected {expected}, received {len(other.values)}"
        if other.setting == first.setting:
            yield other.path, f"expected one list, received {first.path}, too"
    yield from _other_dropout(sections, is_on)


def _other_dropout(sections: ConfigSchema, is_on: bool) -> Wrong:
    """Arch.dropout would be overruled."""
    arch = evaluated(sections.Arch)
    if not is_on or arch.name not in LAST_DROPOUT:
        return
    default = BACKBONES.entry(arch.name).arguments()["dropout"].default
    if arch.arguments["dropout"] != default:
        grows = f"it grows from {FIRST_DROPOUT} to {LAST_DROPOUT[arch.name]} with {MODE}"
        message = f"expected the default {default}, received {arch.arguments['dropout']}: {grows}"
        yield "Arch.dropout", f"{message}; a section Progressive may say something else"


def _without_effect(sections: ConfigSchema, stages: Stages) -> Wrong:
    train = _train(sections)
    checks = {"dropout": _dropout_problem(sections)}
    if train is not None:
        transforms = [t for spec in _operations(train) for t in _flat(spec.build())]
        mixing = [s.build() for s in train.dataset.extra["batch_transform_ops"] or []]
        mixes = frozenset().union(*(transform.mixes for transform in mixing))
        checks |= {
            "size": _size_problem(transforms, train.sampler),
            "magnitude": _magnitude_problem(transforms),
            "mixup": "" if "mixup" in mixes else "expected MixupOperator or another mixup in",
            "cutmix": "" if "cutmix" in mixes else "expected CutmixOperator or another CutMix in",
            "batch_size": _batch_problem(train.sampler),
        }
        for name in ("mixup", "cutmix"):
            if checks[name]:
                checks[name] += f" {TRAIN}.dataset.batch_transform_ops, received none"
    for setting in SETTINGS:
        if stages.sets(setting) and (message := checks.get(setting)):
            yield setting, message


def _flat(transform: Any) -> Iterator[Any]:
    """A transform, and those that it applies."""
    yield transform
    for part in getattr(transform, "transforms", ()):
        yield from _flat(part)


def _size_problem(transforms: list[Any], sampler: Spec) -> str:
    if "scales" in sampler.arguments:
        return f"expected a sampler that leaves sizes alone, received {sampler.name}"
    if not any(transform.size for transform in transforms):
        return f"expected RandCropImage or another size in {TRAIN}'s transforms, received none"
    return ""


def _magnitude_problem(transforms: list[Any]) -> str:
    scaled = [transform for transform in transforms if transform.magnitude is not None]
    if not scaled:
        return f"expected RandAugment in {TRAIN}.dataset.transform_ops, received none"
    growing = next((t for t in scaled if t.magnitudes[0] != t.magnitudes[1]), None)
    if growing is not None:
        first_last = list(growing.magnitudes)
        return f"expected a {type(growing).__name__} with one magnitude, received {first_last}"
    return ""


def _batch_problem(sampler: Spec) -> str:
    if "batch_size" in sampler.arguments:
        return ""
    return f"expected a sampler with a batch_size, received {sampler.name}"


def _dropout_problem(sections: ConfigSchema) -> str:
    arch = evaluated(sections.Arch)
    if "dropout" not in arch.arguments:
        return f"expected a network with dropout before its classifier, received {arch.name}"
    if getattr(sections.Global, "to_static", False):
        return "expected Global.to_static false: what is compiled keeps its first dropout"
    return ""
