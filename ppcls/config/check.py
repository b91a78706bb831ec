"""Checks a tree against the sections and against the signatures of the components it names.

One rule serves both: a map's keys are the parameters of a callable with an annotated signature (a
section's dataclass or a component's builder). Every mistake is collected, none stops the check.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from ppcls.config import structure, types
from ppcls.config.problems import DEFAULT, Origin, Problem
from ppcls.config.schema import NO_MEANING, NOT_YET
from ppcls.config.source import Node, from_plain
from ppcls.errors import ArgumentError, PPClsError, UnknownName, suggestion
from ppcls.registry import (
    REQUIRED,
    Argument,
    ByName,
    Entry,
    Labelled,
    Many,
    One,
    Registry,
    Repeats,
    Spec,
)

T = TypeVar("T")

NAME = "name"


class _Invalid(Exception):
    """The value was wrong and is reported already."""


class Checker:
    """Turns a tree into sections and specs; fills in defaults; collects problems and warnings."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self._to_probe: list[tuple[Spec, Node, str]] = []
        self._sequences: list[tuple[Registry[Any], list[Spec], Node, str]] = []
        self._repeated: list[tuple[str, Any, Node, str]] = []

    def section(self, cls: type, node: Node, path: str = "") -> Any | None:
        """An instance of the dataclass ``cls``, or None if a problem was found in it."""
        try:
            values = self._call(structure.section_arguments(cls), self._map(node, path), node, path)
            return cls(**values)
        except ArgumentError as error:
            self._report_argument(error, node, path)
        except _Invalid:
            pass
        return None

    def probe(self, context: Mapping[str, Any]) -> None:
        """Lets each component check its arguments: cheap ones by being built once."""
        for spec, node, path in self._to_probe:
            try:
                spec.probe(**context)
            except PPClsError as error:
                if spec.registry.probe and self._is_reported(f"{path}."):
                    continue  # a mistake of one of its components
                if isinstance(error, ArgumentError):
                    self._report_argument(error, node, path)
                else:
                    self._report(node.origin, path, str(error))
        for registry, specs, node, path in self._sequences:
            try:
                registry.check_sequence([spec.build(**context) for spec in specs])
            except PPClsError as error:  # a component's own mistake is reported already
                if not self._is_reported(path):
                    self._report(node.origin, path, str(error))
        for key, value, node, path in self._repeated:
            section, _, name = key.rpartition(".")
            if value != context[name] and not self._is_reported(section):
                message = f"expected {context[name]}, as {key} is, received {value}"
                self._report(node.origin, path, message)

    # A map of arguments ------------------------------------------------------------------------

    def _call(
        self, arguments: Mapping[str, Argument], given: dict[str, Node], node: Node, path: str
    ) -> dict[str, Any]:
        """Values for all ``arguments``; raises _Invalid after reporting every problem."""
        guessed: set[str] = set()
        by_name = structure.by_name(arguments)
        own = {name: argument for name, argument in arguments.items() if name not in by_name}
        others = [key for key in given if key not in own]
        if not by_name:
            for key in others:
                self._unknown(key, given, own, path, guessed)

        def value(name: str) -> Any:
            if name in by_name:
                return self._named(by_name[name], {key: given[key] for key in others}, node, path)
            return self._argument(arguments[name], given, node, path, guessed)

        return dict(zip(arguments, _all(value, arguments), strict=True))

    def _argument(
        self,
        argument: Argument,
        given: dict[str, Node],
        node: Node,
        path: str,
        guessed: set[str],
    ) -> Any:
        at = _join(path, argument.name)
        if argument.name in given:
            return self._value(argument.annotation, given[argument.name], at)
        if argument.default is REQUIRED:
            if argument.name not in guessed:
                expected = structure.describe(argument.annotation)
                self._report(node.origin, at, f"is missing; expected {expected}")
            raise _Invalid
        if not dataclasses.is_dataclass(argument.default):
            default = copy.deepcopy(argument.default)  # lists must not be shared between runs
            if default is not None or not structure.is_structure(argument.annotation):
                given[argument.name] = from_plain(default)
            return default
        given[argument.name] = Node({}, DEFAULT)
        return self.section(type(argument.default), given[argument.name], at)

    def _unknown(
        self,
        key: str,
        given: dict[str, Node],
        arguments: Iterable[str],
        path: str,
        guessed: set[str],
    ) -> None:
        """Reports a key without a parameter, unless it is known to mean nothing here."""
        at = _join(path, key)
        node = given[key]
        if reason := next((r for p, r in NO_MEANING.items() if fnmatchcase(at, p)), None):
            self.warnings.append(f"{node.origin}: {at}: {reason}")
            del given[key]
            return
        admitted = next((a for p, a in NOT_YET.items() if fnmatchcase(at, p)), None)
        if admitted is not None and node.plain() in admitted:
            del given[key]
        elif admitted is not None:
            only = "" if admitted[0] is None else f"; only {admitted[0]!r} is"
            self._report(node.origin, at, f"is not supported by this version{only}")
        else:
            hint = suggestion(key, arguments)
            guessed.update(name for name in arguments if f"'{name}'" in hint)
            self._report(node.origin, at, f"unknown key{hint}")

    # One value -----------------------------------------------------------------------------------

    def _value(self, annotation: Any, node: Node, path: str) -> Any:
        base, metadata = types.split(annotation)
        members = types.alternatives(base)
        if node.value is None and type(None) in members:
            return None
        for marker in metadata:
            if isinstance(marker, One):
                return self._one(marker, node, path)
            if isinstance(marker, Many):
                return self._many(marker, node, path)
            if isinstance(marker, Labelled):
                return self._labelled(marker, node, path)
        for member in members:
            if isinstance(member, type) and dataclasses.is_dataclass(member):
                value = self.section(member, node, path)
                if value is None:
                    raise _Invalid
                return value
        if dataclasses.is_dataclass(item := types.item_annotation(annotation)):
            return self._sections(item, node, path)
        value = self._leaf(annotation, node, path)
        repeats = [marker for marker in metadata if isinstance(marker, Repeats)]
        self._repeated += [(marker.key, value, node, path) for marker in repeats]
        return value

    def _leaf(self, annotation: Any, node: Node, path: str) -> Any:
        item = types.item_annotation(annotation)
        try:
            if isinstance(node.value, list) and item is not None:
                checked = [self._leaf(item, n, f"{path}.{i}") for i, n in enumerate(node.value)]
                return types.convert(checked, annotation)
            value = types.convert(node.plain(), annotation)
        except ValueError as error:
            self._report(node.origin, path, str(error))
            raise _Invalid from None
        node.value = from_plain(value, node.origin).value
        return value

    def _one(self, marker: One, node: Node, path: str) -> Spec:
        given = self._map(node, path)
        name_node = given.get(NAME)
        if name_node is None:
            near = [key for key in given if "'name'" in suggestion(key, [NAME])]
            for key in near:
                self._report(
                    given[key].origin, _join(path, key), "unknown key; did you mean 'name'?"
                )
            if not near:
                kind = marker.registry.kind
                self._report(
                    node.origin, _join(path, NAME), f"is missing; expected a {kind}'s name"
                )
            raise _Invalid
        registry, also = marker.registry, marker.also
        if marker.instead is not None and _is_near(name_node.plain(), marker.instead):
            registry, also = marker.instead, ()
        entry = self._entry(registry, name_node, _join(path, NAME))
        return self._spec(registry, entry, node, path, (Argument(NAME, str), *also, *marker.always))

    def _many(self, marker: Many, node: Node, path: str) -> list[Spec]:
        items = self._items(f"{marker.registry.kinds}, at least one: '- Name:", node, path)
        specs = _all(lambda item: self._item(marker.registry, *item), items)
        if marker.registry.probe and marker.whole:
            self._sequences.append((marker.registry, specs, node, path))
        return specs

    def _labelled(self, marker: Labelled, node: Node, path: str) -> list[tuple[str, Spec]]:
        kinds, kind = marker.one.registry.kinds, marker.one.registry.kind

        def item(child: Node, at: str) -> tuple[str, Spec]:
            if not isinstance(child.value, dict) or len(child.value) != 1:
                message = f"expected one {kind}, 'Label: {{name: Name, argument: value}}'"
                self._report(child.origin, at, f"{message}, received {child.plain()!r}")
                raise _Invalid
            [(label, given)] = child.value.items()
            return label, self._one(marker.one, given, _join(at, label))

        return _all(lambda x: item(*x), self._items(f"{kinds}, '- Label:", node, path))

    def _sections(self, cls: Any, node: Node, path: str) -> list[Any]:
        if not isinstance(node.value, list) or not node.value:
            message = "expected a list of maps, at least one: '- {key: value}'"
            self._report(node.origin, path, f"{message}; received {node.plain()!r}")
            raise _Invalid
        items = [self.section(cls, n, f"{path}.{i}") for i, n in enumerate(node.value)]
        if None in items:
            raise _Invalid
        return items

    def _items(self, expected: str, node: Node, path: str) -> list[tuple[Node, str]]:
        """The items of a list that is not empty, and the path of each."""
        if not isinstance(node.value, list) or not node.value:
            message = f"expected a list of {expected} {{key: value}}'"
            self._report(node.origin, path, f"{message}; received {node.plain()!r}")
            raise _Invalid
        return [(item, f"{path}.{i}") for i, item in enumerate(node.value)]

    def _item(self, registry: Registry[Any], node: Node, path: str) -> Spec:
        if isinstance(node.value, str):  # `- ToCHWImage`
            node.value = {node.value: Node(None, node.origin)}
        if not isinstance(node.value, dict) or len(node.value) != 1:
            message = f"expected one {registry.kind}, 'Name: {{argument: value}}'"
            self._report(node.origin, path, f"{message}, received {node.plain()!r}")
            raise _Invalid
        [(name, given)] = node.value.items()
        return self._by_name(registry, name, given, path)

    def _named(
        self, marker: ByName, given: dict[str, Node], node: Node, path: str
    ) -> list[tuple[Any, ...]]:
        if not given:
            expected = f"at least one {marker.registry.kind}, 'Name: {{argument: value}}'"
            self._report(node.origin, path, f"expected {expected}; received none")
            raise _Invalid

        def component(name: str) -> tuple[Any, ...]:
            spec = self._by_name(marker.registry, name, given[name], path, marker.also)
            return spec, *spec.extra.values()

        return _all(component, given)

    def _by_name(
        self,
        registry: Registry[Any],
        name: str,
        node: Node,
        path: str,
        also: tuple[Argument, ...] = (),
    ) -> Spec:
        at = _join(path, name)
        entry = self._entry(registry, Node(name, node.origin), at)
        if node.value is None:
            node.value = {}
        return self._spec(registry, entry, node, at, also)

    def _entry(self, registry: Registry[Any], name: Node, path: str) -> Entry:
        try:
            return registry.entry(types.convert(name.plain(), str))
        except (UnknownName, ValueError) as error:
            self._report(name.origin, path, str(error))
            raise _Invalid from None

    def _spec(
        self,
        registry: Registry[Any],
        entry: Entry,
        node: Node,
        path: str,
        also: tuple[Argument, ...],
    ) -> Spec:
        arguments = entry.arguments() | {argument.name: argument for argument in also}
        values = self._call(arguments, self._map(node, path), node, path)
        extra = {argument.name: values.pop(argument.name) for argument in also}
        extra.pop(NAME, None)
        spec = Spec(registry, entry.name, values, extra)
        self._to_probe.append((spec, node, path))
        return spec

    def _map(self, node: Node, path: str) -> dict[str, Node]:
        if isinstance(node.value, dict):
            return node.value
        self._report(node.origin, path, f"expected a map of keys, received {node.plain()!r}")
        raise _Invalid

    # Reports -------------------------------------------------------------------------------------

    def _is_reported(self, start: str) -> bool:
        return any(problem.path.startswith(start) for problem in self.problems)

    def _report(self, origin: Origin, path: str, message: str) -> None:
        self.problems.append(Problem(origin, path, message))

    def _report_argument(self, error: ArgumentError, node: Node, path: str) -> None:
        """An argument's own line if it was given, else the line of its component."""
        given = node.value.get(error.argument) if isinstance(node.value, dict) else None
        origin = given.origin if given and given.origin != DEFAULT else node.origin
        self._report(origin, _join(path, error.argument), str(error))


def _all(check: Callable[[Any], T], items: Iterable[Any]) -> list[T]:
    """What ``check`` returns for each item; raises _Invalid after the last one if any was wrong."""
    checked, complete = [], True
    for item in items:
        try:
            checked.append(check(item))
        except _Invalid:
            complete = False
    if not complete:
        raise _Invalid
    return checked


def _is_near(name: Any, registry: Registry[Any]) -> bool:
    """Whether a name is one of the registry's, or a misspelt one."""
    return isinstance(name, str) and (name in registry.names() or bool(suggestion(name, registry)))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
