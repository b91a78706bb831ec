"""What commands do before they begin: the imports, which take seconds, and the configuration."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppcls.config import Config

ENDED_BY = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@contextmanager
def starting() -> Iterator[None]:
    """While the libraries of a command are imported, Ctrl-C and SIGTERM end the process at once.

    Python would raise an exception in the midst of them, which some swallow, and others turn into
    an ImportError that says something else. SIGTERM waits until they are there: Paddle's own
    answer to it, which it sets up meanwhile, is a page of text.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDED_BY:
            # What was ignored before we came (nohup, a script's background process) stays so.
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, _end)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM} & before.keys())
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, _end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM} & before.keys())
        for number, handler in before.items():
            signal.signal(number, handler)


def add_override(parser: argparse.ArgumentParser) -> None:
    """``-o PATH=VALUE``, for :func:`load`."""
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="set a value of the configuration; may be repeated",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """``-c FILE`` and ``-o PATH=VALUE``, for :func:`load`."""
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="a YAML file")
    add_override(parser)


def add_number(parser: Any, name: str, kind: type, least: float, default: Any, help: str) -> None:
    """An option that is a number of at least ``least``."""

    def parsed(value: str) -> Any:
        try:
            number = kind(value)
        except ValueError:
            number = None
        if number is None or not least <= number < float("inf"):
            what = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {what} >= {least:g}, received '{value}'")
        return number

    suffix = "" if default is None else f" (default: {default})"
    parser.add_argument(name, type=parsed, default=default, metavar="N", help=f"{help}{suffix}")


def load(path: str, overrides: Sequence[str]) -> Config:
    """The checked configuration of a command that needs Paddle.

    Raises:
        ConfigError: the configuration has mistakes.
        EnvironmentProblem: there is no Paddle.
    """
    with starting():
        from ppcls.config import load_config
        from ppcls.engine.device import require_paddle

        require_paddle()
        return load_config(path, overrides)


def _end(number: int, frame: FrameType | None) -> None:
    name = ENDED_BY[signal.Signals(number)]
    os.write(2, f"\nstopped by {name}; nothing was started\n".encode())
    os._exit(128 + number)
