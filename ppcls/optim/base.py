"""What every optimizer here can do, around an optimizer of Paddle's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ppcls.errors import WeightsError
from ppcls.optim.schedules import Schedule

if TYPE_CHECKING:
    import numpy as np
    import paddle

NAMES_SHOWN = 10


class Network(Protocol):
    """What an optimizer needs of a ``paddle.nn.Layer``."""

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        """Names, as in the state dict, and parameters."""


class Optimizer:
    """Steps the parameters of one network by the rates of one schedule.

    Its state is keyed by the parameters' names in the network. Paddle's own is keyed by names
    that are numbered in each process anew, so that it loads into the wrong weights, silently, as
    soon as another layer was built before.

    Args:
        inner: Paddle's optimizer over groups of ``parameters``.
        parameters: the parameters that it updates, by structured name.
        schedule: the learning rate of each iteration.
        decayed: names of the parameters with weight decay.

    Attributes:
        inner: Paddle's optimizer, for ``paddle.amp.decorate`` and ``GradScaler.step``.
    """

    def __init__(
        self,
        inner: paddle.optimizer.Optimizer,
        parameters: Mapping[str, paddle.Tensor],
        schedule: Schedule,
        decayed: Iterable[str],
    ):
        self.inner = inner
        self.schedule = schedule
        self._parameters = dict(parameters)
        self._decayed = list(decayed)

    def set_step(self, step: int) -> float:
        """Sets and returns the learning rate of the 0-based iteration ``step``."""
        rate = self.schedule(step)
        self.inner.set_lr(rate)
        return rate

    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        self.inner.step()

    def use_kernels(self) -> bool:
        """Steps by the CPU kernels of ``ppcls.ops`` from now on, if they know how; says whether."""
        return False

    def clear_grad(self) -> None:
        """Forgets the gradients.

        They are not set to zero: a parameter that gets no gradient in the next iteration would
        then still decay and follow its momentum, but not after a resume, which starts without.
        """
        self.inner.clear_grad(set_to_zero=False)

    def scale_gradients(self, factor: float) -> None:
        """Multiplies all gradients."""
        import paddle

        with paddle.no_grad():
            for parameter in self._parameters.values():
                if parameter.grad is not None:
                    parameter.grad.scale_(factor)

    def decayed_names(self) -> list[str]:
        """Names of the parameters with weight decay, in the network's order."""
        return list(self._decayed)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all state, such as ``"features.0.0.weight/velocity"``.

        Call it, like ``load_state_dict``, once the weights are loaded and have their final
        precision: with ``multi_precision`` the 32-bit master copies are made from them.
        """
        return {key: _to_numpy(tensor) for key, tensor in self._state()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continues from a ``state_dict``: the next step is exactly what it would have been.

        Raises:
            WeightsError: a name is missing or unknown, or a shape differs. Nothing was changed.
        """
        import paddle

        own = dict(self._state())
        _check_fits(state, own)
        for key, tensor in own.items():
            tensor.set_value(paddle.to_tensor(state[key]).astype(tensor.dtype))

    def _state(self) -> Iterator[tuple[str, paddle.Tensor]]:
        """Keys and live tensors of the state, all of them."""
        self._create_state()
        masters = self.inner._master_weights
        for name, parameter in self._parameters.items():
            master = masters.get(parameter.name)
            if master is not None:
                yield f"{name}/master_weight", master
            owner = parameter if master is None else master
            for kind, tensors in self.inner._accumulators.items():
                yield f"{name}/{kind}", tensors[owner.name]

    def _create_state(self) -> None:
        """Has Paddle create what it would only create at a parameter's first step.

        Its public way to load a state before that needs the names that it is going to invent for
        the tensors, which depend on every optimizer built before in the process.
        """
        import paddle

        block = paddle.static.default_main_program().global_block()
        self.inner._create_accumulators(block, list(self._parameters.values()))


def _check_fits(state: Mapping[str, np.ndarray], own: Mapping[str, paddle.Tensor]) -> None:
    problems = [f"missing: {key}" for key in own if key not in state]
    problems += [f"unexpected: {key}" for key in state if key not in own]
    problems += [
        f"{key}: expected shape {list(tensor.shape)}, received {list(state[key].shape)}"
        for key, tensor in own.items()
        if key in state and list(state[key].shape) != list(tensor.shape)
    ]
    if problems:
        more = len(problems) - NAMES_SHOWN
        lines = problems[:NAMES_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        listed = "\n  ".join(["the optimizer's state does not fit the network:", *lines])
        raise WeightsError(listed)


def _to_numpy(tensor: paddle.Tensor) -> np.ndarray:
    import paddle

    # numpy has no bfloat16: Paddle would hand out its bits as integers.
    exact = tensor.astype("float32") if tensor.dtype == paddle.bfloat16 else tensor
    return exact.numpy()
