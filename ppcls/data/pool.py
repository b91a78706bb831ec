"""The parent's side of the reader processes: handing out batches and watching over the readers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from ppcls.data.worker import IDLE, BatchRead, Dataset, Reply, SharedSlots, Size, Task, work
from ppcls.errors import DataError

AHEAD = 2  # batches a worker has to do: one that it reads and one that waits
STOPPING = 2.0  # seconds that all workers together have to be gone after SIGKILL
GLANCE = 1.0  # seconds between two looks at what the workers are reading

Draws = tuple[np.ndarray, Size | None]  # of one batch, and the size of its pictures


@dataclass
class _Worker:
    number: int
    process: BaseProcess
    pipe: Connection
    pending: int = 0


class ReaderPool:
    """Forked reader processes that live until :meth:`close`.

    Fork, and close, from a thread that lives as long as the readers: they are killed when it ends.

    Args:
        seed: of the run.
        max_batch: largest number of samples in a batch.
        batch_bytes: size of the pictures of a batch; larger ones travel through a pipe, slower.
        timeout: seconds without any progress after which a picture counts as stuck.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        num_workers: int,
        max_batch: int,
        batch_bytes: int,
        timeout: float,
    ):
        self._dataset = dataset
        self._timeout = timeout
        # One more than the workers can fill: the batch that the consumer holds.
        self._shared = SharedSlots(
            AHEAD * num_workers + 1, num_workers, max(1, max_batch), batch_bytes
        )
        self._owner = os.getpid()
        self._workers: list[_Worker] = []
        self.closed = False
        try:
            for number in range(num_workers):
                self._start(number, seed)
        except BaseException:
            self.close()
            raise

    def run(self, epoch: int, batches: Sequence[Draws]) -> Iterator[BatchRead]:
        """Reads the batches, in order. The pictures are valid until the next batch is asked for.

        Raises:
            DataError: a reader died, or made no progress for ``timeout`` seconds; the pool is
                closed then.
            RuntimeError: another run was started meanwhile.
        """
        generation = self._begin()
        ready: dict[int, Reply] = {}
        sent = 0
        try:
            for wanted in range(len(batches)):
                if generation != self._generation():
                    raise RuntimeError("expected one epoch of a loader at a time, received another")
                sent = self._hand_out(epoch, batches, sent, wanted)
                while wanted not in ready:
                    ready.update((reply.ticket, reply) for reply in self._replies())
                    sent = self._hand_out(epoch, batches, sent, wanted)
                yield self._opened(ready.pop(wanted))
        finally:
            if generation == self._generation():
                self._cancel()

    def close(self) -> None:
        """Ends the readers at once: they hold nothing that could be lost. May be called again."""
        if self.closed or os.getpid() != self._owner:  # a forked copy does not own them
            return
        self.closed = True
        for worker in self._workers:
            worker.process.kill()
        until = time.monotonic() + STOPPING
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            worker.pipe.close()

    def _start(self, number: int, seed: int) -> None:
        ours, theirs = multiprocessing.Pipe()
        inherited = [worker.pipe for worker in self._workers] + [ours]
        arguments = (number, self._dataset, seed, self._shared, theirs, inherited, os.getpid())
        process = forked(work, arguments, f"reader-{number}")
        theirs.close()
        self._workers.append(_Worker(number, process, ours))

    def _begin(self) -> int:
        """Waits until the readers have dropped what an abandoned run left them."""
        self._cancel()
        while any(worker.pending for worker in self._workers):
            self._replies()
        return self._generation()

    def _cancel(self) -> None:
        self._shared.generation[0] += 1

    def _generation(self) -> int:
        return int(self._shared.generation[0])

    def _hand_out(self, epoch: int, batches: Sequence[Draws], sent: int, wanted: int) -> int:
        """Sends tasks while there is a free slot and a worker with little to do.

        The slots of the batches before ``wanted`` are free: the consumer has asked for the next.
        """
        while sent < min(len(batches), wanted + self._shared.slots):
            worker = min(self._workers, key=lambda worker: worker.pending)
            if worker.pending >= AHEAD:
                break
            slot, (draws, size) = sent % self._shared.slots, batches[sent]
            self._shared.draws(slot, len(draws))[:] = draws
            try:
                worker.pipe.send(Task(sent, slot, epoch, len(draws), self._generation(), size))
            except OSError as error:
                raise self._death(worker) from error
            worker.pending += 1
            sent += 1
        return sent

    def _replies(self) -> list[Reply]:
        """Waits for at least one answer."""
        watched = [item for w in self._workers for item in (w.pipe, w.process.sentinel)]
        seen, since = self._shared.current.copy(), time.monotonic()
        while True:
            left = since + self._timeout - time.monotonic()
            ready = wait(watched, timeout=min(GLANCE, max(0.0, left)))
            replies = [self._receive(worker) for worker in self._workers if worker.pipe in ready]
            if replies:
                return replies
            for worker in self._workers:
                if worker.process.sentinel in ready:
                    raise self._death(worker)
            if not np.array_equal(seen, self._shared.current):
                seen, since = self._shared.current.copy(), time.monotonic()
            elif time.monotonic() - since >= self._timeout:
                raise self._stuck()

    def _receive(self, worker: _Worker) -> Reply:
        try:
            reply = worker.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._death(worker) from error
        worker.pending -= 1
        return reply

    def _opened(self, reply: Reply) -> BatchRead:
        if reply.shape is not None:
            slot = reply.ticket % self._shared.slots
            reply.read.images = self._shared.pixels(slot, reply.shape, reply.dtype)
        return reply.read

    def _death(self, worker: _Worker) -> DataError:
        worker.process.join(STOPPING)
        code = worker.process.exitcode
        index = int(self._shared.current[worker.number])
        busy = "while idle" if index == IDLE else f"while reading {self._dataset.describe(index)}"
        self.close()
        return DataError(
            f"reader worker {worker.number} ({worker.process.pid}) {how_ended(code)} {busy}"
        )

    def _stuck(self) -> DataError:
        busy = [
            f"reader worker {worker.number} ({worker.process.pid}): {self._dataset.describe(index)}"
            for worker in self._workers
            if (index := int(self._shared.current[worker.number])) != IDLE
        ]
        self.close()
        pictures = "; ".join(busy) or "none (all workers are idle)"
        return DataError(
            f"no picture was read for {self._timeout:g} s (timeout); busy with {pictures}"
        )


def forked(target: Callable[..., None], arguments: tuple[Any, ...], name: str) -> BaseProcess:
    """Starts a reader process, which has to call :func:`ppcls.data.worker.settle` first."""
    process = multiprocessing.get_context("fork").Process(
        target=target, args=arguments, name=name, daemon=True
    )
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return process


def how_ended(code: int | None) -> str:
    """What became of a process, by its exit code."""
    if code is None:
        return "closed its pipe"
    if code >= 0:
        return f"ended with exit code {code}"
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"was killed by signal {signal.Signals(-code).name}{hint}"
