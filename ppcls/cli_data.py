"""``ppcls data``: checks, lists, shows, measures and packs data sets."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ppcls.cli_start import add_config, add_number, add_override, load, starting
from ppcls.errors import ArgumentError, UsageError

CONFIG = "configs/quick_start/photos.yaml"


def add_data_commands(commands: Any) -> None:
    """Adds ``data`` with its subcommands to the subparsers of ``ppcls``."""
    parser = commands.add_parser("data", help="check, list, browse, measure, pack data sets")
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_check(subcommands)
    _add_list(subcommands)
    _add_browse(subcommands)
    _add_doctor(subcommands)
    _add_pack(subcommands)


# Commands ----------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    with starting():
        from ppcls.report.data_check import check, find_samples
        from ppcls.report.findings import Limits
        from ppcls.report.similar import LARGEST_DISTANCE

    if not 0 <= options.near <= LARGEST_DISTANCE:
        raise UsageError(f"--near: expected 0 to {LARGEST_DISTANCE}, received {options.near}")
    limits = Limits(
        min_side=options.min_side,
        max_pixels=options.max_pixels,
        near=None if options.no_near else options.near,
        imbalance=options.imbalance,
    )
    workers = (os.cpu_count() or 1) if options.workers is None else options.workers
    lists = options.image_root, options.delimiter, options.names
    samples = find_samples([Path(path) for path in options.paths], lists, options.override)
    found = check(samples, limits, workers, Path(options.out), options.timeout)
    return int(found and options.strict)


def _list(options: argparse.Namespace) -> int:
    with starting():
        from ppcls.data.lists import make_lists, write_lists
        from ppcls.report.listing import summary

    if options.group is not None and options.together is not None:
        raise UsageError("expected --group or --together, received both")
    root, together = Path(options.folder), []
    if options.together is not None:
        from ppcls.report.data_check import read_groups

        together = read_groups(Path(options.together))
    try:
        lists = make_lists(root, options.val, options.test, options.seed, options.group, together)
    except ArgumentError as error:
        raise UsageError(f"--{error.argument}: {error}") from error
    out = Path(options.out) if options.out else root
    files = write_lists(lists, out, options.force)
    sys.stdout.write(summary(lists, files))
    return 0


def _browse(options: argparse.Namespace) -> int:
    config = load(options.config, options.override)
    with starting():
        from ppcls.report.browse import View, browse

    view = View(options.mode, options.count, options.repeat, options.original, options.epoch)
    browse(config, view, Path(options.out))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    config = load(options.config, options.override)
    with starting():
        from ppcls.engine.doctor import diagnose

    sys.stdout.write(diagnose(config, batches=options.batches).rstrip("\n") + "\n")
    return 0


def _pack(options: argparse.Namespace) -> int:
    with starting():
        from ppcls.data.pack import pack
        from ppcls.report.page import counted, shown

    try:
        done = pack(
            options.source,
            options.out,
            list_file=options.list,
            delimiter=options.delimiter,
            shard_mb=options.shard_mb,
            shuffle=options.shuffle,
            seed=options.seed,
            short_side=options.short_side,
            quality=options.quality,
            workers=options.workers,
            on_error=options.on_error,
        )
    except ArgumentError as error:
        raise UsageError(f"{error.argument}: {error}") from error
    for reason in done.skipped:
        sys.stderr.write(f"left out: {shown(reason)}\n")
    for folder in done.not_packed:
        sys.stderr.write(f"not packed: {shown(folder)} (only train/ and val/ are)\n")
    held = f"{counted(done.samples, 'picture')} in {counted(done.shards, 'shard')}"
    sys.stdout.write(f"{done.out}: {held}, {done.bytes / 1e6:,.1f} MB\n")
    return 0


# The command line --------------------------------------------------------------------------------


def _add_check(commands: Any) -> None:
    parser = _add(
        commands,
        "check",
        _check,
        "find broken, doubled, leaking and mislabelled pictures",
        "ppcls data check photos --strict",
        "Decodes every picture, prints what may be wrong, and writes check.html and check.json. "
        "Exit code 0, or with --strict 1 if anything was found.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a folder of class folders (or of train/ and val/ with those), a YAML configuration, "
        "or list files, each a split of its own",
    )
    lists = parser.add_argument_group("list files")
    lists.add_argument("--image-root", metavar="FOLDER", help="default: the folder of each list")
    lists.add_argument("--delimiter", metavar="TEXT", help="default: any blanks and tabs")
    lists.add_argument("--names", metavar="FILE", help="names of the classes, '<id> <name>' a line")
    what = parser.add_argument_group("what counts as a finding")
    add_number(what, "--min-side", int, 1, 24, "shorter side, below which a picture is tiny")
    add_number(what, "--max-pixels", int, 1, 25_000_000, "width x height, above which it is huge")
    add_number(
        what, "--near", int, 0, 6, "bits of 64 that hashes of similar pictures may differ in"
    )
    what.add_argument("--no-near", action="store_true", help="look for equal pictures only")
    add_number(what, "--imbalance", float, 1, 10, "largest class, divided by a smallest one")
    what.add_argument("--strict", action="store_true", help="exit code 1 if anything was found")
    add_number(parser, "--workers", int, 0, None, "decoding processes (default: one a processor)")
    add_number(parser, "--timeout", float, 0.1, 60, "seconds after which a picture counts as stuck")
    _add_out(parser, "output/data_check")
    add_override(parser)


def _add_list(commands: Any) -> None:
    parser = _add(
        commands,
        "list",
        _list,
        "make list files and a label map from class folders",
        "ppcls data list photos --val 0.2 --test 0.1",
        "Writes train_list.txt, val_list.txt, label_map.txt and, if asked, test_list.txt. Each "
        "class is split alike. Splits that have folders (train/, val/, test/) stay as they are.",
    )
    parser.add_argument("folder", metavar="PATH", help="a folder of class folders")
    add_number(parser, "--val", float, 0, 0.2, "part of each class for validation")
    add_number(parser, "--test", float, 0, 0, "part of each class for a test list")
    add_number(parser, "--seed", int, 0, 0, "another seed is another split")
    parser.add_argument(
        "--group",
        metavar="REGEX",
        help="pictures whose paths match in the same text stay in one split, such as 'burst_\\d+'",
    )
    parser.add_argument(
        "--together",
        metavar="FILE",
        help="a check.json of 'ppcls data check': pictures that are alike stay in one split",
    )
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: PATH)")
    parser.add_argument("--force", action="store_true", help="write over existing lists")


def _add_browse(commands: Any) -> None:
    parser = _add(
        commands,
        "browse",
        _browse,
        "draw what the network sees after all transforms",
        f"ppcls data browse -c {CONFIG} --original --repeat 4",
        "Draws samples after augmentation and mixing, with labels: browse.png and browse.html.",
    )
    add_config(parser)
    parser.add_argument("--mode", choices=("Train", "Eval"), default="Train", help="whose reader")
    add_number(parser, "--count", int, 1, 16, "pictures")
    add_number(parser, "--repeat", int, 1, 1, "draws of each, from as many epochs")
    parser.add_argument("--original", action="store_true", help="also draw the files themselves")
    add_number(parser, "--epoch", int, 1, 1, "the first epoch to draw from")
    _add_out(parser, "output/data_browse")


def _add_doctor(commands: Any) -> None:
    parser = _add(
        commands,
        "doctor",
        _doctor,
        "measure what limits a training run on this machine",
        f"ppcls data doctor -c {CONFIG}",
        "Measures reading, decoding and training apart and together, and says what to change.",
    )
    add_config(parser)
    add_number(parser, "--batches", int, 1, 20, "batches that each stage is measured with")


def _add_pack(commands: Any) -> None:
    parser = _add(
        commands,
        "pack",
        _pack,
        "pack many small files into few large ones",
        "ppcls data pack photos photos_packed --short-side 256",
        "Packs class folders, or a list file's pictures, into tar shards that are read in one go. "
        "What an interrupted call has left is gone on with.",
    )
    parser.add_argument("source", metavar="IN", help="class folders, or the root of --list")
    parser.add_argument("out", metavar="OUT", help="a new folder")
    parser.add_argument("--list", metavar="FILE", help="'<path> <label>' a line")
    parser.add_argument("--delimiter", metavar="TEXT", help="default: any blanks and tabs")
    add_number(parser, "--shard-mb", float, 0, 256, "largest size of a shard in MB")
    add_number(parser, "--short-side", int, 1, None, "scale larger pictures down to such JPEGs")
    add_number(parser, "--quality", int, 1, 90, "of these JPEGs")
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what a picture that cannot be read does (default: stop)",
    )
    parser.add_argument(
        "--no-shuffle", dest="shuffle", action="store_false", help="keep the order of the pictures"
    )
    add_number(parser, "--seed", int, 0, 0, "of the order")
    add_number(parser, "--workers", int, 1, None, "threads (default: one a processor)")
    parser.set_defaults(resume="the same command goes on with what is packed")


def _add(
    commands: Any, name: str, run: Any, help: str, example: str, description: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=description, epilog=f"example: {example}"
    )
    parser.set_defaults(run=run)
    return parser


def _add_out(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--out", metavar="FOLDER", default=default, help=f"where to write (default: {default})"
    )
