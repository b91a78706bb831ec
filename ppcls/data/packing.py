"""One folder of packed pictures in the making; an interrupted one is gone on with."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.cache import locked
from ppcls.data.datasets.base import PictureDataset, Source
from ppcls.data.shard_writer import Ahead, Sample, ShardWriter, prepared, suffix_of
from ppcls.data.shards import (
    FORMAT,
    INDEX_FILE,
    NAMES_FILE,
    TABLE,
    TABLE_FILE,
    TARGETS_FILE,
    VERSION,
    key_of,
)
from ppcls.errors import DataError

STATE = ".packing"  # folder of what a restart has to know; gone when all is done
LARGEST_LABEL = 2**31 - 1
AHEAD = 4  # pictures that each thread prepares ahead of the writer


@dataclass(frozen=True)
class Settings:
    """What the bytes of the shards depend on, beside the samples."""

    shard_bytes: int
    shuffle: bool
    seed: int
    short_side: int | None
    quality: int


class Packing:
    """Packs a data set into a folder.

    ``.packing/000000.npz`` tells what is in shard 0, and is written before that gets its name:
    a shard is done if both are there and agree.

    Args:
        source: of the pictures; of a data set, the samples that it has.
        out: the folder; new, or with what an interrupted packing of the same has left.
        workers: threads that read and encode.
        skip: leaves out pictures that cannot be read.
        progress: shows a bar, if standard error is a terminal.

    Raises:
        DataError: a label that a shard cannot hold.
    """

    def __init__(
        self,
        source: Source | PictureDataset,
        out: Path,
        settings: Settings,
        workers: int,
        skip: bool,
        progress: bool,
    ):
        self.out, self.state = out, out / STATE
        self.settings, self.workers, self.skip, self.progress = settings, workers, skip, progress
        if isinstance(source, PictureDataset):
            self.source: Source = source.source
            self.rows = np.asarray([source.row(i) for i in range(len(source))], np.int64)
        else:
            self.source, self.rows = source, np.arange(len(source.labels))
        labels = self.source.labels[self.rows]
        if labels.ndim == 1 and len(labels) and labels.max() > LARGEST_LABEL:
            raise DataError(f"expected labels up to {LARGEST_LABEL}, received {labels.max()}")
        self.names = [_name(self.source, int(row)) for row in self.rows]
        self.suffixes = sorted({"jpg", "png", *(suffix_of(os.fsdecode(n)) for n in self.names)})
        self.order = np.arange(len(self.rows))
        if settings.shuffle:
            self.order = np.random.default_rng(settings.seed).permutation(self.order)
        self.fingerprint = self._fingerprint()

    def run(self) -> dict[str, Any]:
        """Packs what is not packed yet; returns the content of ``index.json``.

        Raises:
            DataError: a picture cannot be read, or the folder holds something else.
            OSError, EnvironmentProblem: the folder cannot be written.
        """
        try:
            if not self._is_done():
                self.state.mkdir(parents=True, exist_ok=True)
                with locked(self.state / "lock"):
                    if not self._is_done():
                        self._pack()
        except OSError:
            if not self._is_done():  # or another process has done it, and removed the state
                raise
        tree: dict[str, Any] = json.loads((self.out / INDEX_FILE).read_text(encoding="utf-8"))
        return tree

    def _fingerprint(self) -> str:
        """Digits of what is to be packed, and how."""
        digest = hashlib.sha256(json.dumps([VERSION, asdict(self.settings)]).encode())
        digest.update(b"\0".join(self.names))
        digest.update(np.ascontiguousarray(self.source.labels[self.rows]).tobytes())
        return digest.hexdigest()

    def _is_done(self) -> bool:
        """Whether this very packing is done; raises DataError if the folder is taken."""
        names = [path.name for path in self.out.iterdir()] if self.out.is_dir() else []
        if INDEX_FILE in names:
            if self.fingerprint.encode() not in (self.out / INDEX_FILE).read_bytes():
                raise DataError(
                    f"{self.out}: expected a new folder, received one of other packed pictures,"
                    " or packed with other arguments"
                )
            return True
        if names and STATE not in names:
            raise DataError(f"{self.out}: expected a new folder, received one with '{names[0]}'")
        return False

    def _pack(self) -> None:
        mark = self.state / "fingerprint"
        is_other = mark.is_file() and mark.read_text(encoding="ascii") != self.fingerprint
        if is_other and any(self.out.glob("*.tar")):
            raise DataError(
                f"{self.out}: holds an interrupted packing of other pictures or with other"
                " arguments: repeat that one, or choose another folder"
            )
        if is_other:
            for note in self.state.glob("*.npz"):
                note.unlink()
        commit(mark, self.fingerprint.encode())
        notes = self._finished()
        skipped = self._write_shards(notes)
        self._write_index(notes, skipped)
        shutil.rmtree(self.state)

    def _shard(self, number: int) -> Path:
        return self.out / f"shard-{number:06d}.tar"

    def _note(self, number: int) -> Path:
        return self.state / f"{number:06d}.npz"

    def _finished(self) -> list[dict[str, np.ndarray]]:
        """What is in the shards that an interrupted packing has left whole."""
        notes: list[dict[str, np.ndarray]] = []
        while self._note(len(notes)).is_file() and self._shard(len(notes)).is_file():
            with np.load(self._note(len(notes))) as arrays:
                note = {name: arrays[name] for name in arrays.files}
            if self._shard(len(notes)).stat().st_size != int(note["bytes"]):
                break
            notes.append(note)
        return notes

    def _write_shards(self, notes: list[dict[str, np.ndarray]]) -> list[str]:
        """Adds what is missing; returns which pictures are left out and in none of the notes."""
        from tqdm import tqdm

        start = int(notes[-1]["next"]) if notes else 0
        shown = self.progress and sys.stderr.isatty()
        pool = ThreadPoolExecutor(self.workers)
        try:
            with tqdm(total=len(self.order), initial=start, disable=not shown, unit="img") as bar:
                samples = Ahead(self._samples(pool, start), start, bar.update)
                while samples.head is not None:
                    first = sum(len(note["place"]) for note in notes)
                    notes.append(self._write_shard(len(notes), first, samples))
                return samples.drain()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _write_shard(self, number: int, first: int, samples: Ahead) -> dict[str, np.ndarray]:
        """Writes shard ``number`` and its note; its samples are numbered from ``first``."""
        entries: list[tuple[int, int, int, int]] = []
        note: dict[str, Any] = {}

        def describe(size: int, digest: str) -> None:
            columns = np.asarray(entries, np.int64).T
            note.update(zip(("place", "offset", "size", "suffix"), columns, strict=True))
            note.update(next=samples.position, skipped=samples.drain(), bytes=size, sha256=digest)
            content = io.BytesIO()
            np.savez(content, **note)
            commit(self._note(number), content.getvalue())

        with ShardWriter(self._shard(number), describe) as writer:
            while (sample := samples.head) is not None:
                if entries and writer.size_with(sample) > self.settings.shard_bytes:
                    break
                place, offset = samples.place, writer.add(key_of(first + len(entries)), sample)
                suffix = self.suffixes.index(sample.suffix)
                entries.append((place, offset, len(sample.data), suffix))
                samples.advance()
        return {name: np.asarray(value) for name, value in note.items()}

    def _samples(self, pool: ThreadPoolExecutor, start: int) -> Iterator[tuple[int, Sample | str]]:
        """(place, sample or why there is none), in order, prepared ahead by threads."""
        how = (self.settings.short_side, self.settings.quality)
        waiting: deque[tuple[int, Future[Sample]]] = deque()
        places = map(int, self.order[start:])
        while True:
            while len(waiting) < self.workers * AHEAD and (place := next(places, None)) is not None:
                row = int(self.rows[place])
                waiting.append((place, pool.submit(prepared, self.source, row, *how)))
            if not waiting:
                return
            place, future = waiting.popleft()
            try:
                yield place, future.result()
            except DataError as error:
                if not self.skip:
                    raise
                yield place, str(error)

    def _write_index(self, notes: list[dict[str, np.ndarray]], skipped: list[str]) -> None:
        skipped = [str(text) for note in notes for text in note["skipped"]] + skipped
        if not notes:
            raise DataError(f"none of the {len(skipped)} pictures can be read, e.g. {skipped[0]}")
        places = np.concatenate([note["place"] for note in notes])
        names = [self.names[place] for place in places]
        labels = self.source.labels[self.rows[places]]
        table = np.zeros(len(places), TABLE)
        for name in ("offset", "size", "suffix"):
            table[name] = np.concatenate([note[name] for note in notes])
        counts = [len(note["place"]) for note in notes]
        table["shard"] = np.repeat(np.arange(len(notes)), counts)
        table["name_end"] = np.cumsum([len(name) for name in names])
        contents = {NAMES_FILE: b"".join(names)}
        if labels.ndim == 1:
            table["label"] = labels
        else:
            contents[TARGETS_FILE] = _npy(labels.astype("<f4"))
        contents[TABLE_FILE] = _npy(table)
        for name, data in contents.items():
            commit(self.out / name, data)
        files = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in contents.items()
        }
        packing = {**asdict(self.settings), "fingerprint": self.fingerprint, "skipped": skipped}
        shards = [
            {
                "url": self._shard(number).name,
                "nsamples": counts[number],
                "filesize": int(note["bytes"]),
                "sha256": str(note["sha256"]),
            }
            for number, note in enumerate(notes)
        ]
        tree = {
            **{"format": FORMAT, "version": VERSION, "samples": len(table)},
            **{"class_names": self.source.class_names, "suffixes": self.suffixes},
            **{"files": files, "packing": packing},
            # What wids, webdataset's random access, asks for:
            **{"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": self.out.name},
            "shardlist": shards,
        }
        commit(self.out / INDEX_FILE, as_json(tree))


def commit(path: Path, data: bytes) -> None:
    """Writes a file that is there as a whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def as_json(tree: dict[str, Any]) -> bytes:
    """A file for people, too."""
    return (json.dumps(tree, indent=1) + "\n").encode()


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _name(source: Source, row: int) -> bytes:
    """What a picture is called, relative to the root if there is one."""
    root = getattr(source, "root", "")
    path = source.path(row)
    inside = root and path.startswith(root)
    return os.fsencode(path[len(root) :].lstrip("/") if inside else path)
