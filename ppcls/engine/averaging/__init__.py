"""Averaging of weights during training: handlers beside the loop, named by ``EMA`` or ``Average``.

An average is kept beside the trained weights. ``Averaging.scored`` lends it to the network while
that is evaluated or saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ppcls.config import Config
    from ppcls.engine.averaging.base import Averaging


def build_averaging(config: Config) -> Averaging | None:
    """The handler that averages as a configuration says; None if it does not say so."""
    from ppcls.engine.averaging.ema import EMA

    if config.EMA is not None:
        return EMA(config.EMA)
    return config.Average.build(epochs=config.Global.epochs) if config.Average else None
