"""A tree -> YAML text: as it is written beside the results, or with the origin of each value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from ppcls.config.source import Loader, Node

COLUMN = 60  # where origins start


class _Dumper(yaml.SafeDumper):
    """Quotes every text that our reader would take for a number or null."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


def render(tree: Node, origins: bool = False) -> str:
    """YAML that reads back to the same values; with ``origins``, a comment behind each of them."""
    lines = [
        f"{text:<{COLUMN}}  # {origin}" if origins and origin else text
        for text, origin in _lines(tree, "")
    ]
    return "\n".join(lines) + "\n"


def _lines(node: Node, indent: str) -> Iterator[tuple[str, str]]:
    """Lines of YAML, each with the origin of the value on it."""
    entries = node.value.items() if isinstance(node.value, dict) else enumerate(node.value)
    for key, child in entries:
        head = f"{indent}{_scalar(key)}:" if isinstance(key, str) else f"{indent}-"
        if _is_leaf(child):
            yield f"{head} {_scalar(child.plain())}", str(child.origin)
        elif isinstance(key, str):
            yield head, ""
            yield from _lines(child, indent + "  ")
        else:
            # A list item that is a map starts on the line of its dash.
            (first, origin), *rest = _lines(child, indent + "  ")
            yield f"{head} {first.lstrip()}", origin
            yield from rest


def _is_leaf(node: Node) -> bool:
    if isinstance(node.value, list):
        return all(_is_leaf(child) and not isinstance(child.value, list) for child in node.value)
    return not isinstance(node.value, dict) or not node.value


def _scalar(value: Any) -> str:
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6
    )
    return text.removesuffix("\n").removesuffix("\n...")
