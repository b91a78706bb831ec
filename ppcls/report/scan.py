"""Looks at every picture once, in processes that may die of one without ending the command."""

from __future__ import annotations

import hashlib
import io
import mmap
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

import numpy as np
from PIL import Image

from ppcls.data.image import FORMATS, decode
from ppcls.data.pool import GLANCE, STOPPING, forked, how_ended
from ppcls.data.worker import settle
from ppcls.errors import EnvironmentProblem, PPClsError
from ppcls.report.similar import grey_copy, is_blank, perceptual_hash, thumb

WAITING, READING, READ, FAILED = range(4)
# What the file of each format may be called; PIXELS are of no file. MPO is a JPEG of some phones.
PIXELS = ""
SUFFIXES: dict[str, frozenset[str]] = {
    PIXELS: frozenset(),
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif"}),
    "MPO": frozenset({".jpg", ".jpeg", ".jpe", ".mpo"}),
    "PNG": frozenset({".png"}),
    "BMP": frozenset({".bmp", ".dib"}),
    "GIF": frozenset({".gif"}),
    "WEBP": frozenset({".webp"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "PPM": frozenset({".ppm", ".pgm", ".pbm", ".pnm"}),
}
FORMAT_NAMES = tuple(SUFFIXES)
FACTS = np.dtype(
    [
        ("state", "u1"),
        ("format", "u1"),  # its place in FORMAT_NAMES
        ("blank", "?"),
        ("width", "u4"),
        ("height", "u4"),
        ("bytes", "u8"),
        ("digest", "u8", 2),  # of the pixels, so that a copy in another file counts
        ("hash", "u8"),
        ("thumb", "u1", 256),
    ]
)
PORTION = 16  # pictures handed out at once
FALSE_STARTS = 3  # workers that may die before they read anything


class Readable(Protocol):
    """What is scanned."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes | np.ndarray:
        """A whole picture file, or uint8 RGB [height, width, 3]."""


def look(data: bytes | np.ndarray, facts: np.void) -> None:
    """Writes down what there is to know of a picture.

    Raises:
        DecodeError: the picture cannot be used, by the rules of :func:`ppcls.data.image.decode`.
    """
    pixels = data if isinstance(data, np.ndarray) else decode(data)
    kind = PIXELS if isinstance(data, np.ndarray) else _format(data)
    facts["format"] = FORMAT_NAMES.index(kind if kind in SUFFIXES else PIXELS)
    facts["bytes"] = data.nbytes if isinstance(data, np.ndarray) else len(data)
    facts["height"], facts["width"] = pixels.shape[:2]
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    facts["digest"] = np.frombuffer(digest.digest(), np.uint64)
    grey = grey_copy(pixels)
    facts["blank"] = is_blank(grey)
    facts["hash"] = perceptual_hash(grey)
    facts["thumb"] = thumb(grey)


def _format(data: bytes) -> str:
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        return picture.format or PIXELS


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    portion: range = range(0)
    reading: int = -1
    since: float = 0.0


class Scan:
    """The facts about every picture.

    Args:
        samples: the pictures.
        workers: processes that read; 0 reads in this one, which a broken picture may end.
        timeout: seconds after which a picture counts as stuck (with workers only).
        looks: what is noted of a picture.

    Attributes:
        facts: ``FACTS`` [N]; meaningful where ``state`` is READ.
        errors: why a picture could not be read, by its index.
    """

    def __init__(
        self,
        samples: Readable,
        workers: int,
        timeout: float = 60.0,
        looks: Callable[[bytes | np.ndarray, np.void], None] = look,
    ):
        self._samples = samples
        self._look = looks
        self._timeout = timeout
        can_fork = "fork" in multiprocessing.get_all_start_methods()
        count = len(samples)
        self._count = min(workers, -(-count // PORTION)) if can_fork else 0
        # Made before the fork and shared: workers write the facts where they are wanted.
        self.facts = np.frombuffer(mmap.mmap(-1, max(1, count) * FACTS.itemsize), FACTS)[:count]
        self.errors: dict[int, str] = {}
        self._workers: list[_Worker] = []
        self._portions = deque(range(i, min(i + PORTION, count)) for i in range(0, count, PORTION))
        self._leaving: list[BaseProcess] = []
        self._false_starts = self._done = 0

    def run(self) -> Iterator[int]:
        """Looks at everything; gives, now and then, how many pictures are done."""
        if not self._count:
            for index in range(len(self.facts)):
                if reason := self._read(index):
                    self.errors[index] = reason
                yield index + 1
            return
        try:
            for _ in range(self._count):
                self._start()
            while self._workers:
                self._wait()
                yield self._done
        finally:
            self._stop()

    def _read(self, index: int) -> str:
        """Reads a picture; gives why that failed, or nothing."""
        facts = self.facts[index]
        facts["state"] = READING
        try:
            self._look(self._samples.read(index), facts)
        except Exception as error:  # whatever a library makes of a broken file
            facts["state"] = FAILED
            return _cause(error)
        facts["state"] = READ
        return ""

    def _start(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        inherited = [worker.pipe for worker in self._workers] + [ours]
        process = forked(self._work, (theirs, inherited, os.getpid()), "scan")
        theirs.close()
        self._workers.append(_Worker(process, ours))
        self._hand_out(self._workers[-1])

    def _work(self, pipe: Connection, inherited: list[Connection], parent: int) -> None:
        """Body of a worker: answers a portion with (index, reason) for each failure, then None."""
        settle(parent)
        for connection in inherited:  # or this process would outlive its parent
            connection.close()
        while True:
            try:
                for index in pipe.recv():
                    if reason := self._read(index):
                        pipe.send((index, reason))
                pipe.send(None)
            except (EOFError, OSError):
                return

    def _hand_out(self, worker: _Worker) -> None:
        """Gives a worker its next portion, or sends it home."""
        worker.portion = self._portions.popleft() if self._portions else range(0)
        try:
            if worker.portion:
                worker.pipe.send(worker.portion)
                return
        except OSError:  # it has died; its sentinel will tell
            return
        self._workers.remove(worker)
        self._leaving.append(worker.process)
        worker.pipe.close()

    def _wait(self) -> None:
        """Waits for news, for at most a second, and deals with it."""
        watched = [item for w in self._workers for item in (w.pipe, w.process.sentinel)]
        ready = wait(watched, timeout=GLANCE)
        for worker in list(self._workers):
            alive = worker.process.sentinel not in ready
            if worker.pipe in ready or not alive:
                self._receive(worker)
            if not alive and worker in self._workers:
                worker.process.join()
                ended = how_ended(worker.process.exitcode)
                self._bury(worker, f"the process that read it {ended}")
            elif worker in self._workers and self._is_stuck(worker):
                worker.process.kill()
                self._leaving.append(worker.process)
                self._bury(worker, f"was not read within {self._timeout:g} s")

    def _receive(self, worker: _Worker) -> None:
        try:
            while worker in self._workers and worker.pipe.poll():
                answer = worker.pipe.recv()
                if answer is None:
                    self._done += len(worker.portion)
                    self._hand_out(worker)
                else:
                    self.errors[answer[0]] = answer[1]
        except (EOFError, OSError):  # it has died; its sentinel will tell
            return

    def _is_stuck(self, worker: _Worker) -> bool:
        states = self.facts["state"][worker.portion.start : worker.portion.stop]
        reading = worker.portion.start + int((states >= READ).sum())
        if reading != worker.reading:
            worker.reading, worker.since = reading, time.monotonic()
        return time.monotonic() - worker.since > self._timeout

    def _bury(self, worker: _Worker, reason: str) -> None:
        """Blames the picture that a dead worker was reading, and has another one go on."""
        self._workers.remove(worker)
        worker.pipe.close()
        states = self.facts["state"][worker.portion.start : worker.portion.stop]
        blamed = worker.portion.start + np.flatnonzero(states == READING)
        for index in map(int, blamed):
            self.facts["state"][index] = FAILED
            self.errors[index] = reason
        for index in range(worker.portion.start, worker.portion.stop):
            if self.facts["state"][index] == FAILED:  # its message may have died with the worker
                self.errors.setdefault(index, "cannot be read")
        self._false_starts += not len(blamed)
        if self._false_starts > FALSE_STARTS:
            raise EnvironmentProblem(f"the reading processes do not live: {reason}")
        done = int((states >= READ).sum())
        self._done += done
        if rest := worker.portion[done:]:
            self._portions.appendleft(rest)
        if self._portions:
            self._start()

    def _stop(self) -> None:
        """Ends the workers at once: they hold nothing that could be lost."""
        for worker in self._workers:
            worker.process.kill()
            worker.pipe.close()
        processes = self._leaving + [worker.process for worker in self._workers]
        until = time.monotonic() + STOPPING
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
        self._workers.clear()


def _cause(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if isinstance(error, PPClsError) else f"{type(error).__name__}: {error}"
