"""ppcls: image classification on PaddlePaddle, driven by YAML.

    import ppcls

    ppcls.list_models("MobileNeXt*")
    net = ppcls.create_model("MobileNeXt_x1_0", class_num=10)
    config = ppcls.load_config("configs/quick_start/MobileNeXt_mnist.yaml", ["Global.epochs=3"])
    ppcls.Trainer(config).fit()

Names are imported when they are first used: reading a configuration or running transforms
needs no Paddle.
"""

from __future__ import annotations

import importlib
import os
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppcls.config import Config, ConfigError, load_config
    from ppcls.engine.evaluator import Evaluator
    from ppcls.engine.exporter import export_model
    from ppcls.engine.macs import count_macs
    from ppcls.engine.model import create_model, list_models
    from ppcls.engine.predictor import Predictor
    from ppcls.engine.trainer import Trainer
    from ppcls.errors import PPClsError
    from ppcls.weights import WeightReport, load_weights

__version__ = "0.1.0"

__all__ = [
    "Config",
    "ConfigError",
    "Evaluator",
    "PPClsError",
    "Predictor",
    "Trainer",
    "WeightReport",
    "count_macs",
    "create_model",
    "export_model",
    "list_models",
    "load_config",
    "load_weights",
]

_HOMES = {
    "Config": "ppcls.config",
    "ConfigError": "ppcls.config",
    "load_config": "ppcls.config",
    "PPClsError": "ppcls.errors",
    "Evaluator": "ppcls.engine.evaluator",
    "Predictor": "ppcls.engine.predictor",
    "Trainer": "ppcls.engine.trainer",
    "count_macs": "ppcls.engine.macs",
    "create_model": "ppcls.engine.model",
    "list_models": "ppcls.engine.model",
    "export_model": "ppcls.engine.exporter",
    "WeightReport": "ppcls.weights",
    "load_weights": "ppcls.weights",
}

# Of no concern to anybody here: Paddle would compile operators without ccache, and its batch
# normalisation tracks statistics in training.
os.environ.setdefault("GLOG_minloglevel", "2")  # C++ notices
warnings.filterwarnings("ignore", message="No ccache found")
warnings.filterwarnings("ignore", message="When training, we now always track global mean")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ppcls' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
