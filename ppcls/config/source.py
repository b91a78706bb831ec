"""YAML text -> a tree of values that remember the file and line they were written at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ppcls.config.problems import DEFAULT, ConfigError, Origin, Problem

MOST_NODES = 100_000  # a configuration has hundreds; aliases of aliases can make billions


@dataclass
class Node:
    """A value and where it was written.

    Attributes:
        value: a scalar, a ``dict[str, Node]`` or a ``list[Node]``.
        origin: the line of the key for an entry of a map, else the line of the value.
    """

    value: Any
    origin: Origin

    def plain(self) -> Any:
        """The value without origins."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def from_plain(value: Any, origin: Origin = DEFAULT) -> Node:
    """Wraps a plain value; every part gets the same origin."""
    if isinstance(value, dict):
        return Node({key: from_plain(child, origin) for key, child in value.items()}, origin)
    if isinstance(value, list):
        return Node([from_plain(child, origin) for child in value], origin)
    return Node(value, origin)


def origin_of(tree: Node, path: str) -> Origin:
    """Where the value at a dotted path was written, or what lacks it or left it to its default."""
    node, origin = tree, tree.origin
    for key in path.split("."):
        child = None
        if isinstance(node.value, dict):
            child = node.value.get(key)
        elif isinstance(node.value, list) and key.isdecimal() and int(key) < len(node.value):
            child = node.value[int(key)]
        if child is None:
            break
        node = child
        if node.origin != DEFAULT:
            origin = node.origin
    return origin


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's numbers (``1e-3`` is one) and Python's ``None``."""


STANDARD = "tag:yaml.org,2002:"
MERGE_TAG = f"{STANDARD}merge"
TAGS = {
    yaml.MappingNode: {f"{STANDARD}map"},
    yaml.SequenceNode: {f"{STANDARD}seq"},
    yaml.ScalarNode: {f"{STANDARD}{kind}" for kind in ("null", "bool", "int", "float", "str")},
}

Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    f"{STANDARD}float",
    re.compile(
        r"""^(?:[-+]?(?:[0-9][0-9_]*)?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9][0-9_]*\.(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)
Loader.add_implicit_resolver(f"{STANDARD}null", re.compile("^None$"), ["N"])


def read_file(path: str | Path) -> Node:
    """Reads a YAML file. Raises ConfigError for one that is missing, unreadable or malformed."""
    origin = Origin(str(path))
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError([Problem(origin, "", "there is no such file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(origin, "", f"cannot be read: {error}")]) from None
    root = read_text(text, str(path))
    if root.value is None:
        return Node({}, Origin(str(path), 1))
    if not isinstance(root.value, dict):
        message = f"expected sections such as 'Global:', received {_kind(root.value)}"
        raise ConfigError([Problem(root.origin, "", message)])
    return root


def read_text(text: str, file: str, line: int = 0) -> Node:
    """Reads YAML text; ``line`` replaces the lines of the text (for a value given by ``-o``)."""
    start = Origin(file, line or 1)
    try:
        loader = Loader(text)
    except yaml.YAMLError as error:
        raise ConfigError([Problem(start, "", f"not valid YAML: {error}")]) from None
    try:
        tree = loader.get_single_node()
        return _Reader(loader, file, line).read(tree) if tree else Node(None, start)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Origin(file, line or (mark.line + 1 if mark else 1))
        raise ConfigError([Problem(at, "", f"not valid YAML: {error.problem}")]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError([Problem(start, "", f"not valid YAML: {error}")]) from None
    finally:
        loader.dispose()


class _Reader:
    """Turns PyYAML's nodes into ours; refuses what a configuration must not hold."""

    def __init__(self, loader: Loader, file: str, line: int):
        self._loader = loader
        self._file = file
        self._line = line
        self._count = 0

    def read(self, node: yaml.Node, origin: Origin | None = None) -> Node:
        self._count += 1
        origin = origin or self._origin(node)
        if self._count > MOST_NODES:
            raise ConfigError([Problem(origin, "", f"more than {MOST_NODES} values")])
        if node.tag not in TAGS[type(node)]:
            raise ConfigError([Problem(origin, "", f"tag '{node.tag}' is not allowed here")])
        if isinstance(node, yaml.MappingNode):
            return Node(self._map(node), origin)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.read(child) for child in node.value], origin)
        return Node(self._scalar(node, origin), origin)

    def _scalar(self, node: yaml.Node, origin: Origin) -> Any:
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError):  # `!!int a`
            message = f"not valid YAML: '{node.value}' is no {node.tag.rpartition(':')[2]}"
            raise ConfigError([Problem(origin, "", message)]) from None

    def _map(self, node: yaml.MappingNode) -> dict[str, Node]:
        children: dict[str, Node] = {}
        own: dict[str, Node] = {}
        for key_node, value_node in node.value:
            origin = self._origin(key_node)
            if key_node.tag == MERGE_TAG:
                # Read here and not by PyYAML, which would copy nested merges without a limit.
                children |= self._merged(value_node, origin)
                continue
            key = self._key(key_node, origin)
            if key in own:
                message = f"key '{key}' is given twice, first at line {own[key].origin.line}"
                raise ConfigError([Problem(origin, "", message)])
            own[key] = self.read(value_node, origin)
        return {**children, **own}

    def _merged(self, node: yaml.Node, origin: Origin) -> dict[str, Node]:
        """The entries behind ``<<``: of one map, or of several, the first of which counts."""
        maps = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Node] = {}
        for item in maps:
            if not isinstance(item, yaml.MappingNode):
                raise ConfigError([Problem(origin, "", "expected a map, or several, behind '<<'")])
            merged = {**self.read(item).value, **merged}
        return merged

    def _key(self, node: yaml.Node, origin: Origin) -> str:
        key = self.read(node).value if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            received = repr(key) if isinstance(node, yaml.ScalarNode) else "a list or map"
            raise ConfigError([Problem(origin, "", f"expected a text key, received {received}")])
        return key

    def _origin(self, node: yaml.Node) -> Origin:
        return Origin(self._file, self._line or node.start_mark.line + 1)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"{value!r}"
