"""Batch normalisations without statistics, in weights that come from a network made for use alone.

Such weights had their normalisations folded into the convolutions, or never had some: what takes
their place says mean 0 and the same variance for every channel. In evaluation that is right. In
training a normalisation goes by the batch's own statistics, which are nothing like it: every map
is shifted and scaled, and what the weights knew is lost.
"""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.engine.finetune import has_weights
from ppcls.engine.handler import Handler

if TYPE_CHECKING:
    import paddle

    from ppcls.engine.trainer import Trainer

BATCHES = 4  # each gives one mean and variance of thousands of pixels


class UnfoldNorms(Handler):
    """Gives normalisations without statistics those of the data, before training.

    A channel comes out as ``a * x + b`` in evaluation. With mean m and variance v of what comes
    in, the scale becomes ``a * sqrt(v + epsilon)`` and the bias ``b + a * m``: evaluation stays as
    it was, to rounding, and training begins with what evaluation does.
    """

    def fit_start(self, trainer: Trainer) -> None:
        """Looks for such layers; a run that goes on has what it began with."""
        if trainer.state.epoch or not has_weights(trainer.config):
            return
        found = {name: norm for name, norm in folded(trainer.net).items() if _trains(trainer, norm)}
        if found:
            seen = _unfold(trainer, list(found.values()))
            trainer.logger.info(
                f"{len(found)} batch normalisations had no statistics of pictures (the weights' "
                f"are folded): they have those of {seen} now, and give the same in evaluation"
            )


def folded(net: Any) -> dict[str, Any]:
    """The batch normalisations of a network with weights that never saw a batch, by name."""
    from paddle import nn
    from paddle.nn.layer.norm import _BatchNormBase

    kinds, head = (_BatchNormBase, nn.BatchNorm), net.classifier_names()
    norms = {name: x for name, x in net.named_sublayers() if isinstance(x, kinds)}
    return {
        name: norm
        for name, norm in norms.items()
        if norm.weight is not None
        and norm.bias is not None
        and f"{name}.weight" not in head  # a new classifier's
        and not norm._mean.numpy().any()
        and np.ptp(norm._variance.numpy()) == 0
    }


def _trains(trainer: Trainer, norm: Any) -> bool:
    """Whether it will be in training mode: what is frozen for good stays as it is."""
    finetune = trainer.config.Finetune
    thaws = finetune is not None and finetune.unfreeze_epoch is not None
    return thaws or trainer.config.FixRes is not None or not norm.weight.stop_gradient


def _unfold(trainer: Trainer, norms: list[Any]) -> int:
    """Returns how many pictures the statistics are of."""
    import paddle

    sums: dict[int, list[np.ndarray]] = {id(norm): [] for norm in norms}
    hooks = [norm.register_forward_pre_hook(_recorder(sums[id(norm)])) for norm in norms]
    try:
        seen = _show_pictures(trainer)
    finally:
        for hook in hooks:
            hook.remove()
    for norm in norms:
        total = trainer.world.sum(np.sum(sums[id(norm)], axis=0))
        mean, square = np.split(total[:-1] / total[-1], 2)
        variance = np.maximum(square - mean**2, 0).astype(np.float32).astype(np.float64)
        old = [t.numpy().astype(np.float64) for t in (norm.weight, norm.bias, norm._variance)]
        slope = old[0] / np.sqrt(old[2] + norm._epsilon)
        scale, bias = slope * np.sqrt(variance + norm._epsilon), old[1] + slope * mean
        new = {norm._mean: mean, norm._variance: variance, norm.weight: scale, norm.bias: bias}
        with paddle.no_grad():  # in place: kernels know a tensor by its address
            for tensor, values in new.items():
                tensor.copy_(paddle.to_tensor(values.astype(np.float32)), False)
    return seen


def _show_pictures(trainer: Trainer) -> int:
    """Runs the network, as in evaluation, on the first batches; returns how many pictures."""
    import paddle

    from ppcls.engine.batch import ToTensors

    net, to_tensors, seen = trainer.net, ToTensors(trainer.reader.dataset.pipeline), 0
    modes = [(layer, layer.training) for layer in net.sublayers(include_self=True)]
    net.eval()
    try:
        with paddle.no_grad(), closing(trainer.reader.epoch(1)) as batches:
            for batch in islice(batches, min(BATCHES, trainer.batches_in(1))):
                with trainer.precision.evaluation():
                    net(to_tensors(batch)[0])
                seen += len(batch.labels)
    finally:
        for layer, training in modes:
            layer.training = training
    return int(trainer.world.sum(np.array([float(seen)]))[0])


def _recorder(found: list[np.ndarray]) -> Any:
    """A hook that notes each channel's mean and mean square in a batch, and that it was one."""

    def note(norm: Any, inputs: tuple[paddle.Tensor]) -> None:
        x = inputs[0].astype("float32")
        layout = getattr(norm, "_data_format", None) or norm._data_layout
        channels = x.ndim - 1 if layout.endswith("C") and x.ndim > 2 else 1
        axes = [axis for axis in range(x.ndim) if axis != channels]
        mean = x.mean(axes, keepdim=True)
        variance = (x - mean).square().mean(axes).numpy().astype(np.float64)
        mean = mean.numpy().astype(np.float64).reshape(-1)
        found.append(np.concatenate([mean, variance + mean**2, [1.0]]))

    return note
