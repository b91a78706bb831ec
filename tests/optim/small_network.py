"""A network and its training, for the tests of the optimizers."""

import numpy as np
import paddle
from paddle import nn

from ppcls.optim.optimizers import Momentum
from ppcls.optim.regularizers import L2
from ppcls.optim.schedules import Constant, Cosine

RUN = {"epochs": 4, "steps_per_epoch": 5}


class Small(nn.Layer):
    """Convolution, batch norm, classifier; each has a weight and a bias."""

    def __init__(self, spared=()):
        super().__init__()
        self.conv = nn.Conv2D(3, 4, 3)
        self.norm = nn.BatchNorm2D(4)
        self.head = nn.Linear(4, 2)
        self.spared = set(spared)

    def forward(self, images):
        maps = nn.functional.relu(self.norm(self.conv(images)))
        return self.head(maps.mean(axis=[2, 3]))

    def no_weight_decay(self):
        return self.spared


NAMES = [f"{layer}.{kind}" for layer in ("conv", "norm", "head") for kind in ("weight", "bias")]


def constant(rate=0.1):
    return Constant(rate, **RUN)


def values(network):
    return {name: p.numpy().copy() for name, p in network.named_parameters()}


def train(network, optimizer, steps):
    for step in steps:
        images = np.random.default_rng(step).normal(size=(8, 3, 8, 8)).astype("float32")
        optimizer.set_step(step)
        network(paddle.to_tensor(images)).square().mean().backward()
        optimizer.step()
        optimizer.clear_grad()


def build(network):
    return Momentum(
        Cosine(0.1, **RUN),
        regularizer=L2(1e-2),
        use_nesterov=True,
        one_dim_param_no_weight_decay=True,
        network=network,
    )
