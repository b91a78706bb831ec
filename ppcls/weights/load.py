"""Loads weights into a network and says what became of every name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.backbones.naming import Naming
from ppcls.errors import WeightsError
from ppcls.ops.network import restore
from ppcls.weights.bfloat16 import to_float32
from ppcls.weights.manifest import MANIFEST_FILE, read_manifest, verify_files
from ppcls.weights.read import NAME_TABLE, NUMBERS, open_weights
from ppcls.weights.source import MODEL_FILE, find_weights
from ppcls.weights.translate import recognise_naming, translate

MOST_NAMES = 5  # names of each kind that a message lists


@dataclass
class WeightReport:
    """What became of the names of a network and of a weights source.

    Attributes:
        matched: loaded.
        missing: in the network, not in the source.
        unexpected: in the source, not in the network, by the source's names.
        mismatched: name -> (shape in the source, shape in the network).
        new_head: the classifier was left as it is.
        naming: whose names the source uses, if they are not the network's own.
        taken: which part of a training script's checkpoint was loaded, in words.
        adopted: settings that the network took over because that library's weights need them.
            A network built anew, to load what was saved from this one, needs them as arguments.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    new_head: bool = False
    naming: Naming | None = None
    taken: str = ""
    adopted: dict[str, Any] = field(default_factory=dict)

    @property
    def library(self) -> str | None:
        """Who published the names that the source uses; None for the network's own names."""
        return self.naming.library if self.naming else None

    def __str__(self) -> str:
        names_of = f" by the names of {self.library}" if self.library else ""
        taken = f" ({self.taken})" if self.taken else ""
        parts = [f"{len(self.matched)} matched{names_of}{taken}"]
        for kind, names in self._unmatched().items():
            if names:
                parts.append(f"{len(names)} {kind} ({_some(names)})")
        return ", ".join(parts)

    def _unmatched(self) -> dict[str, list[str]]:
        shapes = [f"{n}: source {a}, network {b}" for n, (a, b) in self.mismatched.items()]
        return {"missing": self.missing, "unexpected": self.unexpected, "mismatched": shapes}


def load_weights(
    net: Any,
    source: str | Path | Mapping[str, Any],
    *,
    ignore_head: bool = False,
    adapt_head: bool = False,
) -> WeightReport:
    """Loads weights into a network, or leaves it untouched and raises.

    The source may use the network's own names, those of published PaddleClas weights, or those of
    a PyTorch library whose weights the family knows (``Backbone.namings``).

    Args:
        net: a network of this library, or any Paddle layer.
        source: see ``find_weights``, or a map of name -> array or tensor.
        ignore_head: keep the network's classifier whatever the source holds.
        adapt_head: keep the network's classifier if the source has another number of classes.

    Raises:
        WeightsError: the source cannot be read, is of another architecture, or has another
            number of classes.
    """
    label = "the given weights" if isinstance(source, Mapping) else str(source)
    if isinstance(source, Mapping):
        weights, taken = _arrays(source), ""
    else:
        weights, taken = read_checked(find_weights(source))
    state = net.state_dict(use_hook=False)  # the tensors themselves, also of 16 bits (AMP)
    naming = recognise_naming(net, weights)
    translated, unexpected = translate(net, weights, naming)
    report = _compare(state, translated, unexpected)
    report.naming, report.taken = naming, taken
    head = net.classifier_names() if hasattr(net, "classifier_names") else set()
    if ignore_head or (adapt_head and head & report.mismatched.keys()):
        report = _without(report, head)
    if report.missing or report.mismatched:
        raise WeightsError(_misfit(net, label, report, head, len(state)))
    for name in report.matched:
        state[name].set_value(_as_dtype(translated[name], state[name]))
    if naming is not None and naming.settings:
        report.adopted = net.adopt(**naming.settings)
    if report.adopted:
        restore(net)  # CPU kernels have seen the layers as they were; `accelerate` sees them anew
    return report


def read_checked(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """As ``open_weights``, but holds the file of a checkpoint against its manifest first."""
    if path.name == MODEL_FILE and (path.parent / MANIFEST_FILE).is_file():
        verify_files(path.parent, read_manifest(path.parent), required=[MODEL_FILE])
    return open_weights(path)


def _arrays(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(value) for name, value in weights.items() if name != NAME_TABLE}
    for name, array in arrays.items():
        if array.dtype.kind not in NUMBERS:
            raise WeightsError(f"expected arrays of numbers, but '{name}' is a {array.dtype}")
    return arrays


def _compare(
    state: Mapping[str, Any], weights: Mapping[str, np.ndarray], unexpected: list[str]
) -> WeightReport:
    report = WeightReport(unexpected=unexpected)
    for name, tensor in state.items():
        if name not in weights:
            report.missing.append(name)
        elif list(weights[name].shape) != list(tensor.shape):
            report.mismatched[name] = (list(weights[name].shape), list(tensor.shape))
        else:
            report.matched.append(name)
    return report


def _without(report: WeightReport, head: set[str]) -> WeightReport:
    """The report as if neither side had a classifier."""
    return replace(
        report,
        matched=[name for name in report.matched if name not in head],
        missing=[name for name in report.missing if name not in head],
        mismatched={n: shapes for n, shapes in report.mismatched.items() if n not in head},
        new_head=True,
    )


def _misfit(net: Any, label: str, report: WeightReport, head: set[str], size: int) -> str:
    name = getattr(net, "arch_name", type(net).__name__)
    wrong = {*report.missing, *report.mismatched}
    if head and wrong <= head and report.mismatched:
        source_shape, net_shape = next(iter(report.mismatched.values()))
        return (
            f"{label}: has {source_shape[-1]} classes, the network {name} has {net_shape[-1]}; set "
            f"Arch.class_num to {source_shape[-1]}; only training from Global.pretrained_model, or "
            "ignore_head, gives it a new classifier"
        )
    return (
        f"{label}: holds weights of another architecture than {name}: only {len(report.matched)} "
        f"of the network's {size} names fit: {report}"
    )


def _some(names: list[str]) -> str:
    more = f", and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _as_dtype(array: np.ndarray, tensor: Any) -> np.ndarray:
    dtype = str(tensor.dtype).rpartition(".")[2]
    if array.dtype == np.uint16 and "float" in dtype:
        array = to_float32(array)
    return array.astype(dtype, copy=False).reshape(tensor.shape)
