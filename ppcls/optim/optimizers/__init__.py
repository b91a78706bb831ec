"""The optimizers that a configuration may name."""

from ppcls.optim.optimizers.adam import Adam, AdamW, AdamWDL, Lamb
from ppcls.optim.optimizers.lars import LARS
from ppcls.optim.optimizers.lion import Lion
from ppcls.optim.optimizers.momentum import SGD, Momentum
from ppcls.optim.optimizers.rmsprop import RMSProp

__all__ = ["LARS", "SGD", "Adam", "AdamW", "AdamWDL", "Lamb", "Lion", "Momentum", "RMSProp"]
