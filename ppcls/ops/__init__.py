"""CPU kernels: what Paddle lacks for training and running mobile networks on a CPU.

``accelerate(net)`` puts them into a built network, ``restore(net)`` takes them out again.
"""

from ppcls.ops.build import BuildError
from ppcls.ops.memory import keep_memory
from ppcls.ops.network import accelerate, restore

__all__ = ["BuildError", "accelerate", "keep_memory", "restore"]
