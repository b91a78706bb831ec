"""Real training steps that leave nothing behind, for commands that measure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ppcls.config import Config
from ppcls.data.loader import Batch
from ppcls.engine import logging as log
from ppcls.engine.handler import Handler
from ppcls.engine.trainer import Step, Trainer
from ppcls.errors import TrainingError

if TYPE_CHECKING:
    import paddle


class Rehearsal(Trainer):
    """A trainer that takes real steps and writes nothing.

    Args:
        config: a checked configuration.
        handlers: what happens beside the steps.
        loads: load the weights that the configuration names; a step takes as long without.

    Attributes:
        device: ``cpu`` or ``gpu``.

    Raises:
        ConfigError, DataError, WeightsError, EnvironmentProblem: as before any training.
    """

    def __init__(self, config: Config, handlers: Sequence[Handler] = (), loads: bool = True):
        section, arch = replace(config.Global, eval_during_train=False), config.Arch
        if not loads:
            section = replace(section, checkpoints=None, pretrained_model=None)
            arch = replace(arch, extra={**arch.extra, "pretrained": False})
        super().__init__(replace(config, Global=section, Arch=arch), handlers)
        self.config = config  # whoever asks whether the run has weights is not told otherwise
        import paddle

        self.device = "cpu" if paddle.get_device() == "cpu" else "gpu"
        self.guard = _Admitting()  # type: ignore[assignment]

    def train_on(self, batch: Batch) -> Step | None:
        """Takes one step, or a part of one with ``Global.update_freq``."""
        return self._step(batch)

    def save(self, name: str) -> None:
        """Raises TrainingError: nothing is written."""
        raise TrainingError("a rehearsal saves nothing")

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device == "gpu":
            import paddle

            paddle.device.synchronize()

    def _open_folder(self) -> None:
        self.logger = log.make_logger(stream=sys.stderr)
        log.warn_of_config(self.logger, self.config)

    def _write_config(self) -> None:
        pass


class _Admitting:
    """In the place of ``LossGuard``, which would write down the pictures of a lost loss."""

    def before_forward(self) -> None:
        pass

    def admits(self, loss: paddle.Tensor, batch: Batch) -> bool:
        return True

    def read(self) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass
