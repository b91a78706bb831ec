"""Inheritance (``_base_``) and command-line overrides (``-o path=value``).

Maps merge, lists and scalars replace. ``_replace_: true`` inside a map drops what the bases say
there, for a component that is exchanged for another kind with other arguments.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ppcls.config.problems import COMMAND_LINE, ConfigError, Origin, Problem
from ppcls.config.source import Node, read_file, read_text

BASE, REPLACE = "_base_", "_replace_"


def compose(path: str | Path, overrides: Sequence[str] = ()) -> Node:
    """The tree of a file with its bases under it and the overrides on top. Raises ConfigError."""
    tree = _read_with_bases(Path(path), ())
    _forget_replace(tree)
    problems: list[Problem] = []
    for number, override in enumerate(overrides, 1):
        try:
            _override(tree, override, Origin(COMMAND_LINE, number))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return tree


def _read_with_bases(path: Path, above: tuple[Path, ...]) -> Node:
    tree = read_file(path)
    base_node = tree.value.pop(BASE, None)
    merged = Node({}, tree.origin)
    for base, origin in _bases(base_node):
        base_path = Path(os.path.normpath(path.parent / base))
        if not _is_file(base_path):
            raise ConfigError([Problem(origin, BASE, f"there is no file '{base_path}'")])
        if base_path.resolve() in {p.resolve() for p in (*above, path)}:
            raise ConfigError([Problem(origin, BASE, f"'{base}' includes itself")])
        merged = _merge(merged, _read_with_bases(base_path, (*above, path)))
    return _merge(merged, tree)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _bases(node: Node | None) -> list[tuple[str, Origin]]:
    if node is None:
        return []
    items = node.value if isinstance(node.value, list) else [node]
    for item in items:
        if not isinstance(item.value, str):
            message = f"expected relative paths of YAML files, received {item.plain()!r}"
            raise ConfigError([Problem(item.origin, BASE, message)])
    return [(item.value, item.origin) for item in items]


def _merge(base: Node, over: Node) -> Node:
    if not isinstance(over.value, dict):
        return over
    replace = over.value.get(REPLACE)  # stays: it holds against the bases of other files too
    keep = isinstance(base.value, dict) and not (replace and replace.value is True)
    children = dict(base.value) if keep else {}
    for key, child in over.value.items():
        children[key] = _merge(children.get(key, Node(None, child.origin)), child)
    return Node(children, over.origin)


def _forget_replace(node: Node) -> None:
    if isinstance(node.value, dict):
        node.value.pop(REPLACE, None)
    for child in _children(node):
        _forget_replace(child)


def _children(node: Node) -> Iterable[Node]:
    if isinstance(node.value, dict):
        return node.value.values()
    return node.value if isinstance(node.value, list) else ()


def _override(tree: Node, override: str, origin: Origin) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        message = f"expected dotted.path=value, received '{override}'"
        raise ConfigError([Problem(origin, "", message)])
    value = read_text(text, COMMAND_LINE, origin.line)
    if isinstance(value.value, dict):
        value.value.pop(REPLACE, None)  # a map given by -o replaces in any case
    node = tree
    for i, key in enumerate(keys[:-1]):
        node = _child(node, key, ".".join(keys[:i]), origin)
    last, above = keys[-1], ".".join(keys[:-1])
    if isinstance(node.value, list):
        node.value[_index(node.value, last, above, origin)] = value
    else:
        _as_map(node, above, origin)[last] = value


def _child(node: Node, key: str, path: str, origin: Origin) -> Node:
    if isinstance(node.value, list):
        return node.value[_index(node.value, key, path, origin)]
    return _as_map(node, path, origin).setdefault(key, Node({}, origin))


def _as_map(node: Node, path: str, origin: Origin) -> dict[str, Node]:
    if node.value is None:  # `- ToCHWImage:` may get an argument
        node.value = {}
    if not isinstance(node.value, dict):
        message = f"expected a map to set a key of, but the value is {node.plain()!r}"
        raise ConfigError([Problem(origin, path, message)])
    return node.value


def _index(items: list[Node], key: str, path: str, origin: Origin) -> int:
    if key.isascii() and key.isdecimal() and int(key) < len(items):
        return int(key)
    message = f"expected the position of an item, 0 to {len(items) - 1}, received '{key}'"
    raise ConfigError([Problem(origin, path, message)])
