"""Reads timm's configuration strings, such as ``rand-m9-mstd0.5-inc1``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NoReturn

from ppcls.errors import ArgumentError, suggestion

POLICIES = ("rand", "augmix", "v0", "v0r", "original", "originalr", "3a")
CHOICES = ("weights", "3a", "3aw")
UNIFORM_ABOVE = 100  # a larger `mstd` draws the magnitude uniformly

# What each key sets, its least and greatest value, and whether it is whole.
FIELDS: dict[str, tuple[str, float, float, bool]] = {
    "m": ("magnitude", 0, math.inf, False),
    "n": ("layers", 1, math.inf, True),
    "p": ("probability", 0, 1, False),
    "mstd": ("deviation", 0, math.inf, False),
    "mmax": ("limit", 0, math.inf, False),
    "inc": ("increasing", 0, 1, True),
    "a": ("alpha", 1e-3, math.inf, False),
    "b": ("blended", 0, 1, True),
}
KEYS: dict[str, dict[str, tuple[str, float, float, bool]]] = {
    "rand": {key: FIELDS[key] for key in ("m", "n", "p", "mstd", "mmax", "inc")}
    | {"w": ("weight_set", 0, 0, True)},
    "augmix": {key: FIELDS[key] for key in ("m", "mstd", "a", "b")}
    | {"w": ("width", 1, math.inf, True), "d": ("depth", 0, math.inf, True)},
}


@dataclass(frozen=True)
class Settings:
    """What a configuration string says.

    Attributes:
        policy: the first piece: ``rand``, ``augmix`` or the name of a table.
        magnitude: ``m``, of ``rand`` and ``augmix``.
        deviation: ``mstd``, of the normal noise on every magnitude; infinity draws each magnitude
            uniformly from 0 to its value.
        limit: ``mmax``, what magnitudes are cut off at.
        layers: ``n``, operations a picture.
        probability: ``p``, of each of them.
        increasing: ``inc``, whether every operation is stronger with the magnitude.
        weight_set: ``w0`` chooses by the weights of timm's first versions.
        choice: ``t``, name of a choice of operations.
        width, depth, alpha: ``w``, ``d``, ``a`` of AugMix.
        blended: ``b``: another way to compute the same mixture; without effect here.
    """

    policy: str
    magnitude: float = 10
    deviation: float = 0
    limit: float = 10
    layers: int = 2
    probability: float = 0.5
    increasing: int = 0
    weight_set: int | None = None
    choice: str | None = None
    width: int = 3
    depth: int = -1
    alpha: float = 1
    blended: int = 0


def parse(text: str) -> Settings:
    """The settings of a configuration string: a policy, and pieces ``<key><value>`` in any order.

    Raises:
        ArgumentError: (``config_str``) names the piece that is wrong.
    """
    policy, *pieces = text.split("-")
    if policy not in POLICIES:
        raise ArgumentError(
            "config_str",
            f"expected one of {', '.join(POLICIES)} in front, received '{policy}' in"
            f" '{text}'{suggestion(policy, POLICIES)}",
        )
    # AugMix draws its severities, as the paper does, unless told otherwise.
    values: dict[str, float | str] = (
        {"magnitude": 3, "deviation": math.inf} if policy == "augmix" else {}
    )
    seen: set[str] = set()
    for piece in pieces:
        name, value = _piece(piece, policy, text)
        if name in seen:
            raise ArgumentError("config_str", f"expected each key once, received '{text}'")
        seen.add(name)
        values[name] = value
    if "weight_set" in seen and "choice" in seen:
        raise ArgumentError("config_str", f"expected either w or t, received both in '{text}'")
    return Settings(policy, **values)  # type: ignore[arg-type]


def _piece(piece: str, policy: str, text: str) -> tuple[str, float | str]:
    if policy == "rand" and piece.startswith("t"):
        if piece[1:] not in CHOICES:
            _refuse(f"one of {', '.join(CHOICES)} behind 't'", piece, text)
        return "choice", piece[1:]
    keys = KEYS.get(policy, {"mstd": FIELDS["mstd"]})
    match = re.fullmatch(r"([a-z]+?)(\d+(?:\.\d*)?|\.\d+|inf)", piece)
    if match is None or match[1] not in keys:
        known = [*keys, "t"] if policy == "rand" else list(keys)
        _refuse(f"a key of {', '.join(known)} and its value", piece, text)
    key, value = match[1], float(match[2])
    name, low, high, whole = keys[key]
    if key == "mstd" and value > UNIFORM_ABOVE:
        return name, math.inf
    if math.isinf(value) or not low <= value <= high or (whole and not value.is_integer()):
        bounds = f">= {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        _refuse(f"{'an integer' if whole else 'a number'} {bounds} behind '{key}'", piece, text)
    return name, int(value) if whole else value


def _refuse(expected: str, piece: str, text: str) -> NoReturn:
    raise ArgumentError("config_str", f"expected {expected}, received '{piece}' in '{text}'")
