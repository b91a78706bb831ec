"""``ppcls lr-find`` and ``ppcls batch-find``: numbers for a configuration, measured."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from ppcls.cli_start import add_config, add_number, load, starting
from ppcls.errors import ArgumentError, UsageError

CONFIG = "configs/quick_start/MobileNeXt_mnist.yaml"
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def add_find_commands(commands: Any) -> None:
    """Adds ``lr-find`` and ``batch-find``."""
    _add_lr_find(commands)
    _add_batch_find(commands)


def _lr_find(options: argparse.Namespace) -> int:
    config = load(options.config, options.override)
    with starting():
        from tqdm import tqdm

        from ppcls.engine.lr_finder import find_rate
        from ppcls.report.figure import require_figure
        from ppcls.report.lr_find import advice, plot, table

    out = Path(options.out or f"{Path(options.config).stem}_lr_find.png")
    require_figure(out)
    numbers = options.first, options.last, options.steps, options.limit
    # On a terminal only.
    bar = tqdm(total=options.steps, unit="step", leave=False, file=sys.stderr, disable=None)
    try:
        with bar:
            sweep = find_rate(config, *numbers, on_step=bar.update)
    except ArgumentError as error:
        raise UsageError(f"--{error.argument}: {error}") from error
    plot(sweep, out, Path(options.config).name)
    sys.stdout.write(f"{table(sweep)}\n\n{advice(sweep, config)}\n{out}\n")
    return 0


def _batch_find(options: argparse.Namespace) -> int:
    config = load(options.config, options.override)
    with starting():
        from ppcls.engine.batch_finder import Trial, find_batch, plan
        from ppcls.report.batch_find import HEADER, advice, row

    limits = plan(config, options.memory, options.most)
    sys.stdout.write(f"{limits.words()}\n\n{HEADER}\n")

    def show(trial: Trial) -> None:
        sys.stdout.write(f"{row(trial)}\n")
        sys.stdout.flush()

    trials = find_batch(config, limits.limit, limits.most, show)
    sys.stdout.write(f"\n{advice(trials, limits, config)}\n")
    return int(not any(trial.fits for trial in trials))


# The command line --------------------------------------------------------------------------------


def _add_lr_find(commands: Any) -> None:
    parser = commands.add_parser(
        "lr-find",
        help="find a learning rate by a short run with a rising one",
        description="Trains some steps while the learning rate rises, draws the losses over it, "
        "and says which rate to use. Writes nothing but the picture.",
        epilog=f"example: ppcls lr-find -c {CONFIG}",
    )
    add_config(parser)
    add_number(parser, "--first", float, 1e-12, 1e-6, "the rate of the first step")
    add_number(parser, "--last", float, 1e-12, 10, "the rate of the last step")
    add_number(parser, "--steps", int, 1, 200, "optimizer steps")
    add_number(parser, "--limit", float, 1, 4, "times the lowest loss, above which it ends")
    parser.add_argument(
        "--out", metavar="FILE", help="the picture (default: FILE_lr_find.png, in this folder)"
    )
    parser.set_defaults(run=_lr_find, resume="the same command starts anew")


def _add_batch_find(commands: Any) -> None:
    parser = commands.add_parser(
        "batch-find",
        help="find the largest batch that fits into memory",
        description="Takes training steps with larger and larger batches, each size in a process "
        "of its own, and says which is the largest that fits. Writes nothing.",
        epilog=f"example: ppcls batch-find -c {CONFIG} --memory 4G",
    )
    add_config(parser)
    parser.add_argument(
        "--memory",
        type=_bytes,
        metavar="SIZE",
        help="what the training process may take, such as 4G (default: 90 %% of what is free)",
    )
    add_number(parser, "--most", int, 1, None, "largest batch to try (default: the training set)")
    parser.set_defaults(run=_batch_find, resume="the same command starts anew")


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if not size:
        raise argparse.ArgumentTypeError(f"expected a size such as 4G or 512M, received '{text}'")
    return size
