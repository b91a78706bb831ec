"""What a configuration may say to the optimizers, and how mistakes are reported."""

import pytest

from ppcls.errors import ArgumentError
from ppcls.optim.shared import Shared
from ppcls.registry import OPTIMIZERS, Spec

NAMES = ["SGD", "Momentum", "Adam", "AdamW", "AdamWDL", "RMSProp", "Lamb", "LARS", "Lion"]


def test_these_there_are():
    assert set(NAMES) <= set(OPTIMIZERS.names())


@pytest.mark.parametrize("name", NAMES)
def test_every_one_takes_what_all_share_and_nothing_else_of_the_run(name):
    entry = OPTIMIZERS.entry(name)
    shared = set(Shared.__dataclass_fields__)
    assert {"lr", "weight_decay", *shared} <= entry.arguments().keys()
    assert "shared" not in entry.arguments()
    assert entry.context() == {"network"}


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # PaddleClas ppcls/optimizer/optimizer.py: its constructors' defaults
        ("Adam", {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "lazy_mode": False}),
        ("AdamW", {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": None}),
        ("AdamWDL", {"layerwise_decay": None, "filter_bias_and_bn": True, "epsilon": 1e-8}),
        ("RMSProp", {"momentum": 0.0, "rho": 0.95, "epsilon": 1e-6}),
        ("Lamb", {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6}),
    ],
)
def test_published_arguments_have_their_published_defaults(name, published):
    arguments = OPTIMIZERS.entry(name).arguments()
    assert {key: arguments[key].default for key in published} == published


@pytest.mark.parametrize(
    ("name", "arguments", "argument"),
    [
        ("AdamW", {"clip_norm": 5.0, "clip_grad": 1.0}, "clip_grad"),
        ("SGD", {"clip_value": 5.0, "clip_adaptive": 0.01}, "clip_adaptive"),
        ("RMSProp", {"weight_decay": 0.1, "regularizer": object()}, "weight_decay"),
        ("AdamWDL", {"layerwise_decay": 0.7, "layer_decay": 0.7}, "layer_decay"),
    ],
)
def test_what_excludes_each_other_is_found_when_a_configuration_is_checked(
    name, arguments, argument
):
    known = {key: a.default for key, a in OPTIMIZERS.entry(name).arguments().items()}
    with pytest.raises(ArgumentError) as caught:
        Spec(OPTIMIZERS, name, known | arguments).probe()
    assert caught.value.argument == argument
