"""The errors a user can cause. The command line prints them as one message, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CURE = "a lower learning rate or a longer warm-up is the usual cure"  # of a loss that is lost


class PPClsError(Exception):
    """Base of every error that a user can cause and mend; ``exit_code`` is the command's."""

    exit_code = 1


class DataError(PPClsError):
    """A list file, a folder or a picture that cannot be used."""


class WeightsError(PPClsError):
    """A weights file or checkpoint that cannot be read, or does not fit the network."""


class EnvironmentProblem(PPClsError):
    """Something the machine lacks: a package, a device, a writable folder, a living process."""


class TrainingError(PPClsError):
    """A run that cannot go on, such as a loss that is not finite."""


class Stopped(PPClsError):
    """A run that was told to stop by a signal, and has saved what it had."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


class UsageError(PPClsError):
    """A wrong command line."""

    exit_code = 2


class UnknownName(PPClsError, KeyError):
    """A name that a registry does not hold."""

    def __str__(self) -> str:
        return str(self.args[0])


class ArgumentError(PPClsError, ValueError):
    """A constructor's argument that has the right type but cannot be used.

    Attributes:
        argument: name of the argument, so that a configuration error can point at its line.
    """

    def __init__(self, argument: str, message: str):
        super().__init__(message)
        self.argument = argument


def suggestion(name: str, candidates: Iterable[str]) -> str:
    """``"; did you mean 'X'?"`` for the candidate nearest to ``name``, or an empty string."""
    folded = {candidate.casefold(): candidate for candidate in candidates}
    sought = name.casefold()
    near = difflib.get_close_matches(sought, folded, n=1, cutoff=0.85)
    # A name with words behind it is nearer than one that happens to be as long.
    near += [known for known in folded if sought.startswith(f"{known}_")]
    near += difflib.get_close_matches(sought, folded, n=1, cutoff=0.6)
    return f"; did you mean '{folded[near[0]]}'?" if near else ""
