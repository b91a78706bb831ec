"""YAML -> a checked configuration, with inheritance, overrides, and errors that name the line.

config = load_config("configs/quick_start/MobileNeXt_mnist.yaml", ["Global.epochs=3"])
config.Global.epochs, config.Arch.name, config.DataLoader.Train.sampler.arguments
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.config import averaging, stages, targets
from ppcls.config.check import Checker
from ppcls.config.compose import compose
from ppcls.config.networks import evaluated, find_problems
from ppcls.config.problems import ConfigError, Origin, Problem
from ppcls.config.render import render
from ppcls.config.schema import ConfigSchema
from ppcls.config.source import Node, origin_of
from ppcls.registry import Spec

__all__ = ["Config", "ConfigError", "Origin", "Problem", "load_config"]


@dataclass
class Config(ConfigSchema):
    """A checked configuration; the sections are those of ``ConfigSchema``.

    Attributes:
        path: the file it was read from.
        tree: all values, defaults included, with their origins.
        warnings: keys that were accepted without having a meaning here: where, and why.
    """

    path: str = ""
    tree: Node | None = None
    warnings: Sequence[str] = ()

    @property
    def network(self) -> Spec:
        """The network that is evaluated, saved and exported: ``Arch``, or a group's student."""
        return evaluated(self.Arch)

    def require(self, *paths: str, purpose: str) -> list[Any]:
        """The values at some dotted paths; raises ConfigError naming each that is missing."""
        problems = [
            Problem(Origin(self.path), path, f"is missing; {purpose} needs it")
            for path in paths
            if self._at(path) is None
        ]
        if problems:
            raise ConfigError(problems)
        return [self._at(path) for path in paths]

    def problem(self, path: str, message: str) -> ConfigError:
        """A ConfigError that points at the line of the value at ``path``, or of what lacks it."""
        tree = self.tree or Node({}, Origin(self.path))
        return ConfigError([Problem(origin_of(tree, path), path, message)])

    def warning(self) -> str | None:
        """One text about all keys without a meaning here, or None."""
        if not self.warnings:
            return None
        return f"accepted, but without a meaning here: {'; '.join(self.warnings)}"

    def to_yaml(self, origins: bool = False) -> str:
        """The resolved configuration, defaults included; it can be run again."""
        return render(self.tree, origins) if self.tree else ""

    def _at(self, path: str) -> Any:
        value: Any = self
        for key in path.split("."):
            value = getattr(value, key, None)
        return value


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, composes and checks a configuration.

    Args:
        path: a YAML file.
        overrides: ``dotted.path=value`` with the value in YAML, as after ``-o``.

    Raises:
        ConfigError: with every mistake found.
    """
    tree = compose(path, overrides)
    checker = Checker()
    sections = checker.section(ConfigSchema, tree)
    checker.probe(_context(tree))
    if sections is not None and not checker.problems:
        checker.problems += find_problems(sections, tree)
        checker.problems += stages.find_problems(sections, tree)
        checker.problems += averaging.find_problems(sections, tree)
        checker.problems += targets.find_problems(sections, tree)
    if checker.problems:
        raise ConfigError(checker.problems)
    values = {f: getattr(sections, f) for f in ConfigSchema.__dataclass_fields__}
    return Config(**values, path=str(path), tree=tree, warnings=tuple(checker.warnings))


def _context(tree: Node) -> dict[str, Any]:
    """The facts about the run that components are checked against; what is wrong is left out."""
    plain = tree.plain()
    context: dict[str, Any] = {"steps_per_epoch": 1}
    for key, section, name in (("epochs", "Global", "epochs"), ("class_num", "Arch", "class_num")):
        values = plain.get(section)
        value = values.get(name) if isinstance(values, dict) else None
        context[key] = value if type(value) is int and value > 0 else 10**9
    return context
