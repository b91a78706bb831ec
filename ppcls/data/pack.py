"""Packing a data set: many small files become a few large ones, with an index."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ppcls.data.datasets.base import PictureDataset, Source
from ppcls.data.datasets.folders import EVAL_NAMES, SPLITS, read_folders
from ppcls.data.datasets.listfile import read_list
from ppcls.data.packing import Packing, Settings, as_json, commit
from ppcls.data.shards import FORMAT, INDEX_FILE, VERSION
from ppcls.errors import ArgumentError, EnvironmentProblem


@dataclass(frozen=True)
class PackSummary:
    """What was packed.

    Attributes:
        bytes: of all shards.
        skipped: where each left-out picture is, and why (``on_error="skip"``).
        not_packed: folders beside ``train/`` and ``val/`` that look like further splits.
    """

    out: str
    samples: int = 0
    shards: int = 0
    bytes: int = 0
    skipped: list[str] = field(default_factory=list)
    not_packed: list[str] = field(default_factory=list)


def pack(
    source: str | Path | Source | PictureDataset,
    out: str | Path,
    *,
    list_file: str | Path | None = None,
    delimiter: str | None = None,
    shard_mb: float = 256.0,
    shuffle: bool = True,
    seed: int = 0,
    short_side: int | None = None,
    quality: int = 90,
    workers: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    progress: bool = True,
) -> PackSummary:
    """Packs labelled pictures into tar shards; see :mod:`ppcls.data.shards` for the layout.

    What an interrupted call has left is gone on with, if its arguments were the same. The same
    samples and arguments give the same bytes.

    Args:
        source: a folder of class folders, or with ``train/`` and ``val/`` that hold them (they
            become ``out/train`` and ``out/val``); with ``list_file`` the folder that its paths
            are relative to; or a data set.
        out: folder to be made; it may hold nothing but an interrupted packing.
        list_file: ``<path> <label>`` a line.
        delimiter: what separates path and label; None is any run of blanks and tabs.
        shard_mb: largest size of a shard in MB (10^6 bytes); a picture that is larger gets a
            shard of its own.
        shuffle: stores the samples in random order, so that reading them in the order in which
            they are stored mixes the classes.
        seed: of that order.
        short_side: larger pictures become JPEGs with a short side of so many pixels, turned
            upright; all others, and without it all, keep their bytes.
        quality: of these JPEGs.
        workers: threads that read and encode; None is one a processor.
        on_error: what a picture that cannot be read does: it stops, or is left out.
        progress: shows a bar, if standard error is a terminal.

    Raises:
        DataError: the source is wrong, a picture cannot be read, or ``out`` holds something else.
        ArgumentError: an argument out of range.
        EnvironmentProblem: ``out`` cannot be written.
    """
    _check(shard_mb, seed, short_side, quality, workers, on_error)
    settings = Settings(int(shard_mb * 1e6), shuffle, seed, short_side, quality)
    options = (settings, workers or _processors(), on_error == "skip", progress)
    out = Path(out)
    if not isinstance(source, (str, Path)):
        return _packed(source, out, *options)
    if out.resolve() == Path(source).resolve():
        raise ArgumentError("out", f"expected another folder than {source}, received the same")
    if list_file is not None:
        return _packed(read_list(str(source), str(list_file), delimiter), out, *options)
    modes: list[Literal["Train", "Eval"]] = ["Train", "Eval"]
    modes = [mode for mode in modes if (Path(source) / SPLITS[mode]).is_dir()]
    if not modes:
        if Path(source).resolve() in out.resolve().parents:  # it would become a class
            raise ArgumentError("out", f"expected a folder outside {source}, received {out}")
        return _packed(read_folders(str(source), "Train"), out, *options)
    others = [Path(source) / name for name in EVAL_NAMES if name not in SPLITS.values()]
    tables = {SPLITS[mode]: read_folders(str(source), mode) for mode in modes}
    parts = [_packed(table, out / split, *options) for split, table in tables.items()]
    tree = {"format": FORMAT, "version": VERSION, "splits": {split: split for split in tables}}
    try:
        commit(out / INDEX_FILE, as_json(tree))
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {out / INDEX_FILE}: {error.strerror}") from None
    return PackSummary(
        str(out),
        sum(part.samples for part in parts),
        sum(part.shards for part in parts),
        sum(part.bytes for part in parts),
        [text for part in parts for text in part.skipped],
        [str(folder) for folder in others if folder.is_dir()],
    )


def _packed(source: Source | PictureDataset, out: Path, *options: Any) -> PackSummary:
    try:
        index = Packing(source, out, *options).run()
    except OSError as error:
        where = error.filename or out
        raise EnvironmentProblem(f"cannot write {where}: {error.strerror}") from None
    sizes = [shard["filesize"] for shard in index["shardlist"]]
    skipped = index["packing"]["skipped"]
    return PackSummary(str(out), index["samples"], len(sizes), sum(sizes), skipped)


def _check(
    shard_mb: float,
    seed: int,
    short_side: int | None,
    quality: int,
    workers: int | None,
    on_error: str,
) -> None:
    if not 0 < shard_mb < math.inf:
        raise ArgumentError("shard_mb", f"expected a number > 0, received {shard_mb}")
    if seed < 0:
        raise ArgumentError("seed", f"expected an integer >= 0, received {seed}")
    if short_side is not None and short_side < 1:
        raise ArgumentError("short_side", f"expected an integer >= 1, received {short_side}")
    if not 1 <= quality <= 100:
        raise ArgumentError("quality", f"expected an integer from 1 to 100, received {quality}")
    if workers is not None and workers < 1:
        raise ArgumentError("workers", f"expected an integer >= 1, received {workers}")
    if on_error not in ("stop", "skip"):
        raise ArgumentError("on_error", f"expected 'stop' or 'skip', received {on_error!r}")


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
