"""Learning-rate schedules: the rate of an iteration as a function of its number.

Apart from ``ReduceOnPlateau`` they have no state, so resuming a run needs nothing but the number of
the iteration. What all of them share (warm-up, cool-down, noise, scaling with the batch) are the
arguments of ``base.Run``; a schedule's own signature holds what is its own.
"""

from ppcls.optim.schedules.annealing import Cosine, CosineRestarts, Exponential, Linear
from ppcls.optim.schedules.base import Run, Schedule, scheduled
from ppcls.optim.schedules.cycles import Cyclic, OneCycle
from ppcls.optim.schedules.plateau import ReduceOnPlateau
from ppcls.optim.schedules.steps import Constant, MultiStep, Piecewise, Step

__all__ = [
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Piecewise",
    "ReduceOnPlateau",
    "Run",
    "Schedule",
    "Step",
    "scheduled",
]
