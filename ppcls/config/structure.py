"""What sections and signatures say about a map of keys, and in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ppcls.config import types
from ppcls.registry import REQUIRED, Argument, ByName, Labelled, Many, One


def section_arguments(cls: type) -> dict[str, Argument]:
    """The keys of a section, a dataclass."""
    hints = types.hints(cls)
    return {f.name: Argument(f.name, hints[f.name], _default(f)) for f in dataclasses.fields(cls)}


def by_name(arguments: Mapping[str, Argument]) -> dict[str, ByName]:
    """The parameter that takes components by name, if there is one."""
    return {
        name: marker
        for name, argument in arguments.items()
        for marker in types.split(argument.annotation)[1]
        if isinstance(marker, ByName)
    }


def describe(annotation: Any) -> str:
    """In words, what the value has to be."""
    for marker in types.split(annotation)[1]:
        if isinstance(marker, One):
            return f"a {marker.registry.kind}, {{name: ..., argument: value}}"
        if isinstance(marker, Many):
            return f"a list of {marker.registry.kinds}, '- Name: {{argument: value}}'"
        if isinstance(marker, Labelled):
            return f"a list of {marker.one.registry.kinds}, '- Label: {{name: ...}}'"
    return "a section" if is_structure(annotation) else types.describe(annotation)


def is_structure(annotation: Any) -> bool:
    """Whether the value is a section or made of components, rather than plain data."""
    base, metadata = types.split(annotation)
    return any(isinstance(marker, (One, Many, Labelled)) for marker in metadata) or any(
        dataclasses.is_dataclass(member) for member in types.alternatives(base)
    )


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default is not dataclasses.MISSING:
        return f.default
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return REQUIRED
