"""Blocks that forget their inner values on the way forward and make them anew on the way back.

"Training Deep Nets with Sublinear Memory Cost", Chen, Xu, Zhang, Guestrin, 2016,
https://arxiv.org/abs/1604.06174, Section 4: what a block holds for its backward pass is its input
alone, for the price of a second forward pass. Of Paddle's own ``recompute`` this one differs where
training needs it: a block gets its gradients even if nothing before it trains (fine-tuning with a
frozen stem), and they come through the ordinary graph, which ``DataParallel`` watches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import paddle
from paddle import nn
from paddle.autograd import PyLayer


class Recomputable(nn.Layer):
    """A block from one tensor to one tensor, without batch statistics (they would count twice).

    Attributes:
        recomputes: whether it does, in training.
    """

    recomputes = False

    def __call__(self, x: paddle.Tensor, *others: Any) -> paddle.Tensor:
        """As any layer's; ``others`` are no tensors."""
        if not self._forgets():
            return super().__call__(x, *others)
        trained = [p for p in self.parameters() if not p.stop_gradient]
        if x.stop_gradient and not trained:
            return super().__call__(x, *others)
        forward = super().__call__
        return _Recomputed.apply(lambda given: forward(given, *others), x, *trained)

    def _forgets(self) -> bool:
        """Whether to recompute now. What a hook looks at has to belong to the graph: it is kept."""
        return (
            self.recomputes
            and self.training
            and paddle.in_dynamic_mode()
            and paddle.is_grad_enabled()
            and not any(x._forward_post_hooks for x in self.sublayers(include_self=True))
        )


class _Recomputed(PyLayer):
    """Parameters are among the inputs, so that the graph leads on to each of them."""

    @staticmethod
    def forward(
        ctx: Any, run: Callable[[Any], Any], x: paddle.Tensor, *parameters: paddle.Tensor
    ) -> paddle.Tensor:
        ctx.run, ctx.parameters = run, parameters
        ctx.random, ctx.precision = paddle.get_rng_state(), _precision()
        ctx.save_for_backward(x)
        with paddle.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        [x] = ctx.saved_tensor()
        entry = x.detach()
        entry.stop_gradient = x.stop_gradient
        with paddle.enable_grad(), _random(ctx.random), paddle.amp.auto_cast(**ctx.precision):
            out = ctx.run(entry)
        wanted = [t for t in (entry, *ctx.parameters) if not t.stop_gradient]
        gradients = paddle.grad([out], wanted, [upstream], allow_unused=True)
        return tuple(gradients) if not entry.stop_gradient else (None, *gradients)


@contextlib.contextmanager
def _random(state: Any) -> Iterator[None]:
    """Draws again what was drawn from this state: dropout and drop path are the same ones."""
    now = paddle.get_rng_state()
    paddle.set_rng_state(state)
    try:
        yield
    finally:
        paddle.set_rng_state(now)


def _precision() -> dict[str, Any]:
    """The arguments of the ``auto_cast`` that holds now: the way back runs outside of it."""
    tracer = paddle.base.framework._dygraph_tracer()
    levels = paddle.base.core.AmpLevel
    if tracer._amp_level not in (levels.O1, levels.O2):
        return {"enable": False}
    white, black = tracer._get_amp_op_list()
    return {
        "level": "O2" if tracer._amp_level == levels.O2 else "O1",
        "dtype": tracer._amp_dtype,
        "custom_white_list": white,
        "custom_black_list": black,
        "use_promote": tracer._use_promote,
    }
