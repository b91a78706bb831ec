"""Pictures as they are read to what a network takes, in one pass."""

from __future__ import annotations

import numpy as np
import paddle

from ppcls.ops.chain import TO_CHANNELS_FIRST
from ppcls.ops.library import kernels, thread_count


def look_up_pixels(images: np.ndarray, table: np.ndarray) -> paddle.Tensor:
    """Replaces each byte by what a table says.

    Any operation on single pixels can be written as such a table, so that the result is the
    operation's to the last bit.

    Args:
        images: uint8 [N, H, W, 3].
        table: float32 [256, 3].

    Returns:
        float32 [N, 3, H, W], in channels-last memory.
    """
    images = np.ascontiguousarray(images)
    table = np.ascontiguousarray(table, np.float32)
    batch, height, width, channels = images.shape
    result = paddle.empty([batch, height, width, channels], "float32")
    kernels("float32").look_up(
        images.ctypes.data,
        table.ctypes.data,
        result.data_ptr(),
        batch * height * width,
        thread_count(),
    )
    return result.transpose(TO_CHANNELS_FIRST)
