"""Weight decay as a penalty added to the gradient."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from pydantic import Field

from ppcls.registry import REGULARIZERS

Coefficient = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Regularizer(Protocol):
    """A penalty on the weights."""

    def paddle_regularizer(self) -> Any:
        """What Paddle's optimizers take as ``weight_decay``."""


@REGULARIZERS.register()
class L1:
    """Adds ``coeff * sign(weight)`` to a weight's gradient."""

    def __init__(self, coeff: Coefficient = 0.0):
        self.coeff = coeff

    def paddle_regularizer(self) -> Any:
        """The same as a ``paddle.regularizer.L1Decay``."""
        import paddle

        return paddle.regularizer.L1Decay(self.coeff)


@REGULARIZERS.register()
class L2:
    """Adds ``coeff * weight`` to a weight's gradient."""

    def __init__(self, coeff: Coefficient = 0.0):
        self.coeff = coeff

    def paddle_regularizer(self) -> Any:
        """The same as a ``paddle.regularizer.L2Decay``."""
        import paddle

        return paddle.regularizer.L2Decay(self.coeff)
