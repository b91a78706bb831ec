"""The floating numbers of a network in one flat tensor, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.errors import WeightsError

if TYPE_CHECKING:
    import paddle


class FlatWeights:
    """Parameters and batch statistics of a network, as one float32 tensor on its device.

    One tensor, so that an update of an average is two operations and not two for each layer.
    Integers stay out: an average of them means nothing, and the network keeps its own.

    Args:
        net: the network; its parameters have to stay the same tensors.
    """

    def __init__(self, net: paddle.nn.Layer):
        state = net.state_dict(use_hook=False)  # AMP's level O2 has a hook that hands out copies
        self.tensors = {name: t for name, t in state.items() if "float" in str(t.dtype)}
        self._held: paddle.Tensor | None = None

    @property
    def is_replaced(self) -> bool:
        """Whether the network holds other weights than the trained ones just now."""
        return self._held is not None

    def read(self) -> paddle.Tensor:
        """A copy of what is trained, whatever the network holds just now; [numbers] float32."""
        return self._live() if self._held is None else self._held.clone()

    @contextmanager
    def replaced(self, values: paddle.Tensor) -> Iterator[None]:
        """The network holds ``values`` inside the block, and its own bits again after it."""
        own = [tensor.detach().clone() for tensor in self.tensors.values()]
        self._held = self._live()
        try:
            self.write(values)
            yield
        finally:
            self._held = None
            _copy(own, self.tensors.values())

    def write(self, values: paddle.Tensor) -> None:
        """Has the network hold these numbers, which are rounded if it is of half precision."""
        parts = values.split([_size(tensor) for tensor in self.tensors.values()])
        _copy(parts, self.tensors.values())

    def read_into(self, own: paddle.Tensor) -> None:
        """Puts the numbers that the network holds now into ``own``, in place."""
        own.copy_(self._live(), False)

    def to_arrays(self, values: paddle.Tensor, group: str) -> dict[str, np.ndarray]:
        """``<group>/<name>`` -> float32 array of the parameter's shape."""
        flat, arrays, start = values.numpy(), {}, 0
        for name, tensor in self.tensors.items():
            size = _size(tensor)
            arrays[f"{group}/{name}"] = flat[start : start + size].reshape(tensor.shape)
            start += size
        return arrays

    def from_arrays(self, arrays: Mapping[str, np.ndarray], group: str) -> paddle.Tensor | None:
        """What ``to_arrays`` was given; None if there is no such group.

        Raises:
            WeightsError: a name of the network is missing in the group, or a shape differs.
        """
        import paddle

        start = f"{group}/"
        if not any(name.startswith(start) for name in arrays):
            return None
        parts = []
        for name, tensor in self.tensors.items():
            array = arrays.get(f"{group}/{name}")
            if array is None or list(array.shape) != list(tensor.shape):
                received = "nothing" if array is None else f"shape {list(array.shape)}"
                message = f"expected shape {list(tensor.shape)}, received {received}"
                raise WeightsError(f"the checkpoint's averaged weights, {group}/{name}: {message}")
            parts.append(array.astype(np.float32, copy=False).reshape(-1))
        return paddle.to_tensor(np.concatenate(parts))

    def _live(self) -> paddle.Tensor:
        import paddle

        with paddle.no_grad():
            return paddle.concat([_float32(t.flatten()) for t in self.tensors.values()])


def _copy(sources: Any, targets: Any) -> None:
    """In place and on the device; kernels that know a tensor by its address see it."""
    import paddle

    with paddle.no_grad():
        for source, target in zip(sources, targets, strict=True):
            if source.dtype != target.dtype:
                source = source.astype(target.dtype)
            target.copy_(source.reshape(target.shape), False)


def _float32(tensor: paddle.Tensor) -> paddle.Tensor:
    return tensor if str(tensor.dtype).endswith("float32") else tensor.astype("float32")


def _size(tensor: paddle.Tensor) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64))
