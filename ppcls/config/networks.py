"""Which networks a configuration has, and whether its losses and metrics speak of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ppcls.config.problems import Problem
from ppcls.config.source import Node, origin_of
from ppcls.errors import suggestion
from ppcls.registry import NETWORK_GROUPS, Spec

if TYPE_CHECKING:
    from ppcls.config.schema import ConfigSchema

LOGITS, TOKEN = "logits", "distillation"


def members(arch: Spec) -> dict[str, Spec]:
    """The networks of a ``DistillationModel`` by label, as if each stood in ``Arch`` alone."""
    class_num, models = arch.arguments["class_num"], arch.arguments["models"]
    listed = arch.arguments["pretrained_list"] or [None] * len(models)
    return {
        label: replace(
            spec,
            arguments={"class_num": class_num, **spec.arguments},
            extra={**spec.extra, "pretrained": source or spec.extra["pretrained"]},
        )
        for (label, spec), source in zip(models, listed, strict=True)
    }


def evaluated(arch: Spec) -> Spec:
    """The network that is evaluated, saved and exported: ``Arch``'s own, or its student."""
    if arch.registry is not NETWORK_GROUPS:
        return arch
    return members(arch)[arch.arguments["infer_model_name"]]


def find_problems(sections: ConfigSchema, tree: Node) -> Iterator[Problem]:
    """Losses and metrics that want networks, or outputs of them, which are not there."""
    arch = sections.Arch
    group = arch.registry is NETWORK_GROUPS
    student = arch.arguments["infer_model_name"] if group else ""
    labels = list(members(arch)) if group else []
    for mode in ("Train", "Eval"):
        for i, spec in enumerate(getattr(sections.Loss, mode, None) or []):
            path = f"Loss.{mode}.{i}.{spec.name}"
            if not group:
                found = _without_group(spec)
            elif mode == "Train":
                found = _of_training(spec, arch, labels)
            else:
                found = _of_evaluation(spec, student)
            yield from _placed(found, path, tree)
        for i, spec in enumerate(getattr(sections.Metric, mode, None) or []):
            wanted = spec.arguments.get("model_key")
            if group and wanted not in (None, student):
                message = f"expected '{student}', whose answers are measured; received '{wanted}'"
                path = f"Metric.{mode}.{i}.{spec.name}"
                yield from _placed([("model_key", message)], path, tree)


Found = Iterable[tuple[str, str]]  # an argument, and what is wrong with it


def _placed(found: Found, path: str, tree: Node) -> Iterator[Problem]:
    for argument, message in found:
        at = f"{path}.{argument}" if argument else path
        yield Problem(origin_of(tree, at), at, message)


def _wanted(spec: Spec) -> list[tuple[str, list[str]]]:
    """The argument and the labels of each tuple of networks that a loss compares."""
    names = [("model_names", [name]) for name in spec.arguments.get("model_names", ())]
    return names + [("model_name_pairs", p) for p in spec.arguments.get("model_name_pairs", ())]


def _without_group(spec: Spec) -> Found:
    if _wanted(spec):
        yield "", "is a loss between the networks of a DistillationModel; Arch is one network"


def _of_evaluation(spec: Spec, student: str) -> Found:
    for argument, labels in _wanted(spec):
        if labels != [student]:
            message = f"expected '{student}' alone, the only network that is evaluated"
            yield argument, f"{message}; received {labels}"


def _of_training(spec: Spec, arch: Spec, labels: list[str]) -> Found:
    wanted = _wanted(spec)
    if not wanted:
        yield "", "is a loss of one network; DistillationGTCELoss says of which of Arch.models"
    for argument, names in wanted:
        for name in names:
            if name not in labels:
                known = ", ".join(repr(label) for label in labels)
                message = f"expected models of Arch.models, {known}; received '{name}'"
                yield argument, message + suggestion(name, labels)
            else:
                yield from _missing_output("key", spec.arguments.get("key"), name, arch)
        if names[0] in labels:
            token = spec.arguments.get("token_key")
            yield from _missing_output("token_key", token, names[0], arch)


def _missing_output(argument: str, key: str | None, label: str, arch: Spec) -> Found:
    known = _outputs(label, arch)
    if key is not None and key not in known:
        listed = ", ".join(repr(name) for name in known)
        message = f"expected an output of '{label}', {listed}; received '{key}'"
        yield argument, message + suggestion(key, known)


def _outputs(label: str, arch: Spec) -> list[str]:
    """Keys of what a network gives in training."""
    models: list[tuple[str, Spec]] = arch.arguments["models"]
    position = [name for name, _ in models].index(label)
    spec = models[position][1]
    freeze: list[Any] = arch.arguments["freeze_params_list"] or [False] * len(models)
    token = [TOKEN] if spec.arguments.get("distilled") and not freeze[position] else []
    return [LOGITS, *token, *(spec.extra["return_patterns"] or [])]
