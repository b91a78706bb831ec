"""Where the network runs, and Paddle itself."""

from __future__ import annotations

import importlib.util
import logging

from ppcls.errors import EnvironmentProblem

MISSING = "PaddlePaddle is not installed: pip install -e '.[cpu]' or pip install -e '.[gpu]'"


def require_paddle() -> None:
    """Raises EnvironmentProblem if there is no Paddle."""
    if importlib.util.find_spec("paddle") is None:
        raise EnvironmentProblem(MISSING)


def set_device(wanted: str, logger: logging.Logger) -> str:
    """Makes ``auto``, ``gpu`` or ``cpu`` the device of this process; returns ``gpu`` or ``cpu``."""
    import paddle

    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    device = "gpu" if has_gpu and wanted != "cpu" else "cpu"
    if wanted == "gpu" and not has_gpu:
        logger.warning("Global.device is gpu, but Paddle sees no GPU: running on the CPU")
    paddle.set_device(device)
    return device
