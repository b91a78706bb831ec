"""bfloat16, which numpy lacks: its bits are the upper half of those of a float32."""

from __future__ import annotations

import numpy as np


def to_float32(bits: np.ndarray) -> np.ndarray:
    """Bits as uint16 -> the numbers as float32."""
    return np.asarray(bits.astype(np.uint32) << 16).view(np.float32)
