"""What is wrong with a configuration, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ppcls.errors import PPClsError


@dataclass(frozen=True, order=True)
class Origin:
    """Where a value was written: a file and its 1-based line, or the n-th ``-o``, or a default."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


DEFAULT = Origin("default")
COMMAND_LINE = "command-line"


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake: where it stands, the dotted path of the value, and what is wrong with it."""

    origin: Origin
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.origin), self.path, self.message) if part)


class ConfigError(PPClsError):
    """A configuration that cannot be used; ``problems`` holds every mistake found in it."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]):
        self.problems = sorted(set(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))
