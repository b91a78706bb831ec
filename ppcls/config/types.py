"""What an annotation admits: checking one value, and saying in words what was expected."""

from __future__ import annotations

import collections.abc
import types
import typing
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ppcls.config.arithmetic import evaluate

WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
    None: "null",
}
BOUNDS = {
    annotated_types.Ge: (">=", "ge"),
    annotated_types.Gt: (">", "gt"),
    annotated_types.Le: ("<=", "le"),
    annotated_types.Lt: ("<", "lt"),
    annotated_types.MinLen: ("of length >=", "min_length"),
    annotated_types.MaxLen: ("of length <=", "max_length"),
}
SEQUENCES = (list, collections.abc.Sequence)


def split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """``Annotated[T, m, ...]`` -> (T, (m, ...)); anything else -> (it, ())."""
    if get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
        return base, tuple(metadata)
    return annotation, ()


def alternatives(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation alone; bounds of the union stay with each."""
    base, metadata = split(annotation)
    if get_origin(base) not in (Union, types.UnionType):
        return [annotation]
    members = [member for arg in get_args(base) for member in alternatives(arg)]
    bounded = [m for m in members if split(m)[0] is not type(None)]
    return [_annotate(m, metadata) if m in bounded else m for m in members]


def _annotate(annotation: Any, metadata: tuple[Any, ...]) -> Any:
    for item in metadata:
        annotation = Annotated[annotation, item]
    return annotation


def item_annotation(annotation: Any) -> Any | None:
    """The annotation of a list's items if a list is admitted, else None."""
    for member in alternatives(annotation):
        base, _ = split(member)
        if get_origin(base) in SEQUENCES:
            return get_args(base)[0]
        if base is list:
            return Any
    return None


def convert(value: Any, annotation: Any) -> Any:
    """The value as the annotation wants it.

    Integers are numbers too, and a text such as ``1.0/255.0`` is one where a number is wanted.

    Raises:
        ValueError: with "expected ..., received ...".
    """
    adapter: TypeAdapter[Any] = TypeAdapter(
        annotation, config=ConfigDict(strict=True, allow_inf_nan=False)
    )
    for candidate in (value, *_as_numbers(value)):
        try:
            return adapter.validate_python(candidate)
        except ValidationError:
            continue
    raise ValueError(f"expected {describe(annotation)}, received {_received(value)}")


def _as_numbers(value: Any) -> list[Any]:
    """What a text may mean where a number is wanted: an integer first, then a float."""
    if not isinstance(value, str):
        return []
    try:
        number = evaluate(value)
    except ValueError:
        return []
    return [int(number), number] if float(number).is_integer() else [number]


def describe(annotation: Any) -> str:
    """In words, what the annotation admits: ``an integer >= 1 or null``."""
    return " or ".join(_describe_one(member) for member in alternatives(annotation))


def _describe_one(annotation: Any) -> str:
    base, metadata = split(annotation)
    bounds = " and ".join(_bounds(metadata))
    if get_origin(base) is Literal:
        words = "one of " + ", ".join(repr(arg) for arg in get_args(base))
    elif get_origin(base) in SEQUENCES:
        words = f"a list of {_plural(describe(get_args(base)[0]))}"
    else:
        words = WORDS.get(base, getattr(base, "__name__", str(base)))
    notes = " ".join(f"({note})" for note in metadata if isinstance(note, str))
    return " ".join(part for part in (words, bounds, notes) if part)


def _plural(words: str) -> str:
    for one, many in (("an integer", "integers"), ("a number", "numbers"), ("a text", "texts")):
        words = words.replace(one, many)
    return words


def _bounds(metadata: tuple[Any, ...]) -> list[str]:
    constraints = [c for m in metadata for c in (m.metadata if isinstance(m, FieldInfo) else [m])]
    return [
        f"{sign} {getattr(constraint, attribute)}"
        for constraint in constraints
        for kind, (sign, attribute) in BOUNDS.items()
        if isinstance(constraint, kind)
    ]


def _received(value: Any) -> str:
    if isinstance(value, dict):
        return "a map"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return repr(value)


def hints(owner: Any) -> dict[str, Any]:
    """Resolved annotations of a class's fields, with their metadata."""
    return typing.get_type_hints(owner, include_extras=True)
