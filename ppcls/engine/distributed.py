"""The processes of a run, and how they wait for and talk to each other.

Paddle's collectives on a CPU end the job after 30 s without an answer, and nothing changes that
limit. So whatever may take one process long (evaluation, a checkpoint) is waited for, and small
values are exchanged, through the job's key-value store, which waits as long as it is asked to.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ppcls.errors import EnvironmentProblem

# The store loses its connection over messages of some ten megabytes.
NUMBERS_AT_ONCE = 2**18  # 2 MB


class World:
    """The processes of a run.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank = rank
        self.size = size
        self._store: Any = None
        self._run = self._exchanges = 0
        self._last_key = ""

    @classmethod
    def from_environment(cls) -> World:
        """What ``python -m paddle.distributed.launch`` says; one process without it."""
        rank = os.environ.get("PADDLE_TRAINER_ID", "0")
        size = os.environ.get("PADDLE_TRAINERS_NUM", "1")
        return cls(int(rank), int(size))

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and log lines."""
        return self.rank == 0

    def connect(self) -> None:
        """Joins the other processes; call it once, when nothing can fail on this side any more."""
        if self.size == 1:
            return
        import paddle
        from paddle.distributed import collective

        if paddle.get_device() == "cpu":
            # The launcher takes a set CUDA_VISIBLE_DEVICES for a GPU, whatever this run is for.
            os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
        if collective._default_store is None:
            paddle.distributed.init_parallel_env()
        if collective._default_store is None:
            raise EnvironmentProblem("Paddle did not connect the processes of this run")
        self.attach(collective._default_store)

    def attach(self, store: Any) -> None:
        """Talks through this store from now on.

        The store is the job's and forgets nothing, so the runs in it are numbered: a second one
        must not read the values of the first.
        """
        self._store = store
        self._run = store.add(f"ppcls/runs/{self.rank}", 1)

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """Every process's float64 array of one shape, in order of rank; all processes must call."""
        if self.size == 1:
            return [array]
        flat = np.ascontiguousarray(array, "<f8").reshape(-1)
        starts = range(0, max(len(flat), 1), NUMBERS_AT_ONCE)
        pieces = [self._exchange(flat[start : start + NUMBERS_AT_ONCE]) for start in starts]
        return [np.concatenate(parts).reshape(array.shape) for parts in zip(*pieces, strict=True)]

    def _exchange(self, piece: np.ndarray) -> list[np.ndarray]:
        self._exchanges += 1
        key = f"ppcls/{self._run}/{self._exchanges}"
        self._store.set(f"{key}/{self.rank}", piece.tobytes())
        received = []
        for rank in range(self.size):
            self._store.wait(f"{key}/{rank}")
            received.append(np.frombuffer(bytes(self._store.get(f"{key}/{rank}")), "<f8"))
        # Whoever has come to this exchange has read all of the one before: its memory is let go.
        if self._last_key:
            self._store.set(self._last_key, b"")
        self._last_key = f"{key}/{self.rank}"
        return received

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum over all processes, added in the same order everywhere."""
        return np.sum(self.gather(array), axis=0)

    def wait(self) -> None:
        """Returns when every process has come here."""
        self.gather(np.zeros(0))

    def share_buffers(self, net: Any) -> None:
        """Gives every process the first one's batch statistics, which each gathers for itself.

        Evaluation is split over the processes, so all of them must hold the network that is saved.
        """
        # Paddle keeps batch statistics as parameters that are not trained, not as buffers.
        tensors = net.state_dict(use_hook=False).values()  # AMP's hook would hand out copies
        buffers = [t for t in tensors if t.stop_gradient and "float" in str(t.dtype)]
        if self.size == 1 or not buffers:
            return
        import paddle

        self.wait()
        flat = paddle.concat([b.flatten().astype("float32") for b in buffers])
        paddle.distributed.broadcast(flat, src=0)
        parts = paddle.split(flat, [b.size for b in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.set_value(part.reshape(buffer.shape).astype(buffer.dtype))
