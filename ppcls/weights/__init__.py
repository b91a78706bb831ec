"""Where weights come from: reading files safely, finding them, loading them into a network."""

from ppcls.weights.load import WeightReport, load_weights
from ppcls.weights.pretrained import find_pretrained
from ppcls.weights.read import read_weights
from ppcls.weights.source import find_weights

__all__ = ["WeightReport", "find_pretrained", "find_weights", "load_weights", "read_weights"]
