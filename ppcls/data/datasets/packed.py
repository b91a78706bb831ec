"""Packed pictures: tar shards with an index, in a folder or behind a web address."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from ppcls.data.datasets.base import Mode, OnError, PictureDataset, existing
from ppcls.data.shard_cache import CachedShards, RangedShards, fetch_index, fetch_tables, url_of
from ppcls.data.shard_files import LocalShards
from ppcls.data.shards import INDEX_FILE, Index, PackedSource, Shards, parse_index
from ppcls.data.transforms.base import Transform
from ppcls.errors import DataError
from ppcls.registry import DATASETS, TRANSFORMS, Many
from ppcls.transfer import TransferError

SPLITS: dict[str, str] = {"Train": "train", "Eval": "val"}


@DATASETS.register()
class PackedDataset(PictureDataset):
    """What ``ppcls data pack`` has written; see :mod:`ppcls.data.shards`.

    Every sampler can read it. :class:`ppcls.data.samplers.packed.ShardSampler` reads shard after
    shard, which is what slow disks and the web need.

    Args:
        root: folder with ``index.json``, or its address (http, https). What is fetched from there
            goes to ``$PPCLS_HOME/shards``.
        transform_ops: what happens to each picture; None decodes only.
        on_error: a picture that cannot be read stops the run, or is skipped and counted. A
            missing or truncated shard in a folder always stops it.
        max_bad_ratio: largest part of an epoch's pictures that ``skip`` tolerates.
        cache_gb: for an address, size in GB (10^9 bytes) of the shards that are kept on disk, for
            each of training and evaluation. It should hold several shards for each reader, and all
            of them if the sampler is not ShardSampler. 0 keeps none and requests each sample by
            itself, from a server that gives parts of files.
        class_num: number of classes of the network; labels have to be below it.
        mode: which of ``train/`` and ``val/`` is read if the folder has them.

    Attributes:
        shards: int64 [N], the shard of each sample.

    Raises:
        DataError: something is missing, truncated or does not fit the index; says which file.
        ArgumentError: ``cache_gb`` is too small for a shard.
    """

    def __init__(
        self,
        root: str,
        transform_ops: Annotated[list[Transform] | None, Many(TRANSFORMS)] = None,
        on_error: OnError = "stop",
        max_bad_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01,
        cache_gb: Annotated[float, Field(ge=0)] = 10.0,
        *,
        class_num: int | None = None,
        mode: Mode = "Train",
    ):
        source = _remote(root, mode, cache_gb) if "://" in root else _local(root, mode)
        _check_classes(source, class_num, root)
        super().__init__(source, transform_ops, on_error, max_bad_ratio)
        self.shards = source.shards
        self._bytes = source.origin

    def select(self, indices: np.ndarray) -> None:
        """Keeps only these samples, in this order; they are numbered anew, from 0."""
        super().select(indices)
        self.shards = self.shards[np.asarray(indices, np.int64)]

    def expect(self, indices: np.ndarray) -> None:
        """Tells which samples will be read next: shards on the web are then fetched ahead.

        Args:
            indices: int64 [n], in about the order in which they will be read.
        """
        if isinstance(self._bytes, CachedShards):
            shards, first = np.unique(self.shards[indices], return_index=True)
            self._bytes.expect(shards[np.argsort(first)])


def _local(root: str, mode: Mode) -> PackedSource:
    folder = existing(root, "folder", "root")
    index = _read_index(folder)
    if index.splits:
        folder = folder / _split(index, mode, root)
        index = _read_index(folder)
    return PackedSource(index, folder, LocalShards(folder, index.shards))


def _read_index(folder: Path) -> Index:
    path = folder / INDEX_FILE
    if not path.is_file():
        raise DataError(
            f"root: expected a file at '{path}', received none; 'ppcls data pack' writes it last"
        )
    return parse_index(path.read_bytes(), str(path))


def _remote(root: str, mode: Mode, cache_gb: float) -> PackedSource:
    try:
        index, folder = fetch_index(root)
        if index.splits:
            root = url_of(root, _split(index, mode, root))
            index, folder = fetch_index(root)
        fetch_tables(root, index, folder)
    except TransferError as error:
        raise DataError(str(error)) from None
    shards: Shards
    if cache_gb == 0:
        shards = RangedShards(root, index.shards)
    else:
        shards = CachedShards(root, index.shards, folder, int(cache_gb * 1e9))
    return PackedSource(index, folder, shards)


def _split(index: Index, mode: Mode, root: str) -> str:
    folder = index.splits.get(SPLITS[mode])
    if folder is None:
        raise DataError(
            f"{root}: expected '{SPLITS[mode]}' for mode {mode}, received only"
            f" {', '.join(map(repr, index.splits))}"
        )
    return folder


def _check_classes(source: PackedSource, class_num: int | None, root: str) -> None:
    if class_num is None:
        return
    if source.labels.ndim == 2:
        if source.labels.shape[1] != class_num:
            raise DataError(
                f"{root}: expected Arch.class_num {class_num} targets a sample, received"
                f" {source.labels.shape[1]}"
            )
        return
    highest = int(source.labels.max())
    classes = max(len(source.class_names or ()), highest + 1)
    if classes > class_num:
        raise DataError(
            f"{root}: expected at most Arch.class_num {class_num} classes, received {classes}"
        )
