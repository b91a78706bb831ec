"""From another library's names and layouts to a network's own."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from paddle import nn

from ppcls.backbones.base import Backbone
from ppcls.backbones.naming import Naming


def recognise_naming(net: Any, weights: Mapping[str, np.ndarray]) -> Naming | None:
    """Whose names a source uses: a library's of ``net.namings()``, or None for the network's own.

    Names alone do not tell: timm's names of a vision transformer are PaddleClas's too, with every
    matrix turned around. So what counts is how many entries fit by name and shape.
    """
    best, most = None, _fitting(net, weights, None)
    for naming in net.namings() if isinstance(net, Backbone) else ():
        fitting = _fitting(net, weights, naming)
        if fitting > most:
            best, most = naming, fitting
    return best


def translate(
    net: Any, weights: Mapping[str, np.ndarray], naming: Naming | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Weights by the network's names, in Paddle's layout, and the source's names left over."""
    rename = naming.rename if naming else str
    names = {ours: rename(ours) for ours in net.state_dict()}
    found = {ours: weights[theirs] for ours, theirs in names.items() if theirs in weights}
    found = (_from_torch if naming and naming.torch else _from_paddle)(net, found)
    if isinstance(net, Backbone):
        found = net.adapt_weights(found, naming)
    rest = weights.keys() - set(names.values())
    ignored = naming.ignored if naming else "$^"
    return found, [name for name in weights if name in rest and not re.search(ignored, name)]


def translate_slots(
    net: Any, arrays: Mapping[str, np.ndarray], naming: Naming | None
) -> dict[str, np.ndarray]:
    """An optimizer's arrays, keyed ``<name of a parameter>/<slot>``, by the network's names."""
    slots: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        name, _, slot = key.rpartition("/")
        slots.setdefault(slot, {})[name] = array
    found: dict[str, np.ndarray] = {}
    for slot, values in slots.items():
        translated, rest = translate(net, values, naming)
        found |= {f"{name}/{slot}": array for name, array in translated.items()}
        found |= {f"{name}/{slot}": values[name] for name in rest}
    return found


def translate_groups(
    net: Any, arrays: Mapping[str, np.ndarray], naming: Naming | None
) -> dict[str, np.ndarray]:
    """Several sets of weights, keyed ``<group>/<name>``, by the network's names."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        group, _, name = key.rpartition("/")
        groups.setdefault(group, {})[name] = array
    return {
        f"{group}/{name}": array
        for group, weights in groups.items()
        for name, array in translate(net, weights, naming)[0].items()
    }


def _fitting(net: Any, weights: Mapping[str, np.ndarray], naming: Naming | None) -> int:
    rename = naming.rename if naming else str
    found, _ = translate(net, weights, naming)
    return sum(
        list(found[name].shape) == list(tensor.shape)
        for name, tensor in net.state_dict().items()
        if name in found and rename(name) in weights  # not what a family fills in
    )


def _from_torch(net: Any, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turns the matrices of linear layers around, and drops or adds dimensions of size 1."""
    linear = {
        f"{prefix}.weight" if prefix else "weight"
        for prefix, layer in net.named_sublayers(include_self=True)
        if isinstance(layer, nn.Linear)
    }
    state = net.state_dict()
    turned = {}
    for name, array in weights.items():
        shape = list(state[name].shape)
        if name in linear and math.prod(array.shape[2:]) == 1:
            array = array.reshape(array.shape[:2]).T  # a pointwise convolution there, at times
        elif array.size == math.prod(shape) and _without_ones(array.shape) == _without_ones(shape):
            array = array.reshape(shape)
        turned[name] = array
    return turned


def _from_paddle(net: Any, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Makes matrices [in, out] of linear layers the pointwise convolutions [out, in, 1, 1] here."""
    state = net.state_dict()
    return {
        name: array.T[:, :, None, None]
        if array.ndim == 2 and list(state[name].shape[2:]) == [1, 1]
        else array
        for name, array in weights.items()
    }


def _without_ones(shape: Any) -> list[int]:
    return [size for size in shape if size != 1]
