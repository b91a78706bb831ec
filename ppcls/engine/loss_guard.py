"""What happens when a loss is not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.data.loader import Batch
from ppcls.engine.averaging.statistics import trained_norms
from ppcls.errors import CURE, TrainingError

if TYPE_CHECKING:
    import paddle

    from ppcls.engine.trainer import Trainer

FILES_SHOWN = 3
LOST_FILE = "lost_batches.jsonl"
CHECKPOINTS = ("latest", "best_model")


class LossGuard:
    """Looks at every loss before its gradients are used.

    ``Global.on_nan: stop`` ends the run at the first loss that is NaN or infinite, ``skip`` leaves
    the batch out, ``max_nan_skips`` times. Reading a loss makes the host wait for the device, so on
    a GPU ``stop`` reads some together (not measured here); weights that are lost are never saved.

    Args:
        trainer: whose losses they are.
    """

    def __init__(self, trainer: Trainer):
        import paddle

        section = trainer.config.Global
        self._trainer = trainer
        self._skips = section.on_nan == "skip"
        self._most = section.max_nan_skips
        waits = not self._skips and paddle.get_device() != "cpu"
        self._every = section.print_batch_step if waits else 1
        self._unread: list[tuple[paddle.Tensor, Batch]] = []
        self._statistics: list[tuple[paddle.Tensor, paddle.Tensor]] = []
        self.skipped = 0

    def before_forward(self) -> None:
        """Keeps the batch statistics: a batch that is left out must not leave its own behind."""
        if self._skips:
            norms = trained_norms(self._trainer.trained)
            tensors = [tensor for norm in norms for tensor in (norm._mean, norm._variance)]
            self._statistics = [(tensor, tensor.clone()) for tensor in tensors]

    def admits(self, loss: paddle.Tensor, batch: Batch) -> bool:
        """Whether the gradients of this batch may be used.

        Raises:
            TrainingError: the run cannot go on; says step, pictures and last checkpoint.
        """
        if self._skips:
            if self._is_finite_everywhere(loss):
                return True
            self._skip(loss.item(), batch)
            return False
        # What the reader's memory holds changes with the next batch: only the numbers are kept.
        kept = Batch(np.zeros(0), np.zeros(0), batch.indices, batch.number)
        self._unread.append((loss.detach(), kept))
        if len(self._unread) >= self._every:
            self.read()
        return True

    def read(self) -> None:
        """Reads the losses that have not been looked at; raises as ``admits`` does."""
        unread, self._unread = self._unread, []
        for loss, batch in unread:
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingError(f"{self._describe(value, batch)}: the run cannot go on; {CURE}")

    def state(self) -> dict[str, Any]:
        """How many batches were left out."""
        return {"skipped": self.skipped} if self.skipped else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on counting."""
        self.skipped = state.get("skipped", 0)

    def _is_finite_everywhere(self, loss: paddle.Tensor) -> bool:
        """Whether no process has lost its loss: they step together, or not at all."""
        finite = loss.detach().isfinite().astype("int32")
        if self._trainer.world.size > 1:
            import paddle

            paddle.distributed.all_reduce(finite, op=paddle.distributed.ReduceOp.MIN)
        return bool(finite.item())

    def _skip(self, value: float, batch: Batch) -> None:
        for tensor, before in self._statistics:
            tensor.copy_(before, False)  # in place: kernels know it by its address
        self.skipped += 1
        text = self._describe(value, batch)
        if self.skipped > self._most:
            limit = f"after {self._most} batches that were left out (Global.max_nan_skips)"
            raise TrainingError(f"{text}: the run cannot go on {limit}; {CURE}")
        self._trainer.logger.warning(f"{text}: left out, {self.skipped} of at most {self._most}")

    def _describe(self, value: float, batch: Batch) -> str:
        trainer = self._trainer
        state, dataset = trainer.state, trainer.reader.dataset
        own = [str(trainer.folder / n) for n in CHECKPOINTS if n in trainer.saved]
        saved = [*own, trainer.config.Global.checkpoints][0]
        last = f"last good checkpoint: {saved}" if saved else "no checkpoint was saved"
        where = f"in epoch {state.epoch}, batch {batch.number}, step {state.global_step}"
        if math.isfinite(value):
            pictures = f"its pictures are in {LOST_FILE}"
            return f"another process's loss is not finite {where} ({pictures}; {last})"
        files = [str(dataset.path(index)) for index in batch.indices.tolist()]
        place = {"epoch": state.epoch, "step": state.global_step, "batch": batch.number}
        line = json.dumps({**place, "process": trainer.world.rank, "files": files})
        with (trainer.folder / LOST_FILE).open("a", encoding="utf-8") as lost:
            lost.write(line + "\n")
        shown = ", ".join(files[:FILES_SHOWN]) + (", ..." if len(files) > FILES_SHOWN else "")
        return f"the loss is {value} {where} ({shown}; all {len(files)} in {LOST_FILE}; {last})"
