"""Mixed precision: which operations run in 16 bits, and how small gradients survive it.

Not measured here, as it needs a GPU: Paddle's CPU build accepts autocasting, warns, and calculates
in float32 (its convolutions have no 16-bit version).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ppcls.config import Config

if TYPE_CHECKING:
    import paddle

    from ppcls.config.schema import AMPSection
    from ppcls.optim.base import Optimizer

COUNTS = ("incr_count", "decr_count")  # of steps in a row with finite and with other gradients
START_SCALE = 2.0**15  # of dynamic loss scaling, where the configuration gives none


class Precision:
    """How a run calculates; in float32 without a section.

    Args:
        section: ``AMP`` of the configuration, or None.
    """

    def __init__(self, section: AMPSection | None = None):
        self._section = section
        self._scaler: Any = None
        if section is not None and section.dtype_used == "float16":
            import paddle

            dynamic = section.use_dynamic_loss_scaling
            self._changes = section.scale_loss is None if dynamic is None else dynamic
            self._scaler = paddle.amp.GradScaler(
                init_loss_scaling=section.scale_loss or START_SCALE,
                use_dynamic_loss_scaling=self._changes,
            )

    @classmethod
    def of(cls, config: Config, logger: logging.Logger) -> Precision:
        """As ``AMP`` says, on the device that is set.

        Published recipes bring an ``AMP`` section along and run on a CPU as well: there a warning
        says that it is float32. What was asked for by ``AMP.dtype`` is not replaced silently.

        Raises:
            ConfigError: this device cannot calculate in ``AMP.dtype``.
        """
        import paddle

        section = config.AMP
        if section is None or not section.use_amp:
            return cls()
        if paddle.get_device() == "cpu":
            if section.dtype is not None:
                raise config.problem(
                    "AMP.dtype",
                    f"expected a GPU for {section.dtype}: on a CPU Paddle's convolutions know "
                    "float32 only; leave AMP out, or set AMP.use_amp to false",
                )
            logger.warning("AMP: needs a GPU; on this CPU, training is in float32")
            return cls()
        has = {
            "bfloat16": paddle.amp.is_bfloat16_supported,
            "float16": paddle.amp.is_float16_supported,
        }
        if not has[section.dtype_used]():
            expected = f"expected a GPU that calculates in {section.dtype_used}"
            raise config.problem("AMP.dtype", f"{expected}; {paddle.get_device()} does not")
        return cls(section)

    def prepare(self, net: Any, optimizer: Optimizer) -> None:
        """Puts the weights into 16 bits (level O2), with 32-bit copies in the optimizer.

        Call it when the weights are loaded, and before the optimizer's state is.
        """
        if self._section is None or self._section.level != "O2":
            return
        import paddle

        paddle.amp.decorate(
            models=net,
            optimizers=optimizer.inner,
            level="O2",
            dtype=self._section.dtype_used,
            master_weight=True,
            save_dtype="float32",
        )

    def training(self) -> AbstractContextManager[Any]:
        """The context of a forward pass in training."""
        return nullcontext() if self._section is None else _autocast(self._section)

    def evaluation(self) -> AbstractContextManager[Any]:
        """The context of an evaluation: as trained if the weights are in 16 bits, or if asked."""
        section = self._section
        if section is None or not (section.use_fp16_test or section.level == "O2"):
            return nullcontext()
        return _autocast(section)

    def scaled(self, loss: paddle.Tensor) -> paddle.Tensor:
        """The loss whose gradients do not vanish in float16."""
        return loss if self._scaler is None else self._scaler.scale(loss)

    def step(self, optimizer: Optimizer) -> None:
        """Steps by the gradients, scaled back; leaves it out where one of them is not finite."""
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer.inner)
            self._scaler.update()

    def state(self) -> dict[str, Any]:
        """The scale of the loss and its counters, as plain JSON; empty without scaling."""
        if self._scaler is None:
            return {}
        return {key: _plain(value) for key, value in self._scaler.state_dict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the scale that ``state`` said, if this run's scale is dynamic, too."""
        if self._scaler is None or not state or not self._changes:
            return
        import numpy as np

        own = self._scaler.state_dict()
        counts = {key: state[key] for key in COUNTS if key in state}
        scale = np.array([state["scale"]], np.float32)
        self._scaler.load_state_dict({**own, **counts, "scale": scale})


def _autocast(section: AMPSection) -> AbstractContextManager[Any]:
    import paddle

    context: AbstractContextManager[Any] = paddle.amp.auto_cast(
        custom_white_list=section.custom_white_list,
        custom_black_list=section.custom_black_list,
        level=section.level,
        dtype=section.dtype_used,
        use_promote=section.use_promote,
    )
    return context


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
