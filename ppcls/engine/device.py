"""Where the network runs, and Paddle itself."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

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


def use_kernels(net: Any, wanted: str, logger: logging.Logger) -> bool:
    """Puts the CPU kernels into a network, as ``Global.cpu_kernels`` says; returns whether.

    Where they cannot be had, one line says so and the network stays as it is.

    Raises:
        EnvironmentProblem: they are insisted on and cannot be compiled.
    """
    import paddle

    if wanted == "off" or paddle.get_device() != "cpu":
        return False
    from ppcls import ops

    try:
        convolutions = ops.accelerate(net, logger.info)
    except ops.BuildError as error:
        if wanted == "on":
            raise EnvironmentProblem(f"Global.cpu_kernels is on, but {error}") from None
        logger.warning(f"without the CPU kernels, several times slower: {error}")
        return False
    if not convolutions:
        level = logging.WARNING if wanted == "on" else logging.INFO
        logger.log(level, "the CPU kernels know too few layers of this network, and stay out")
        return False
    ops.keep_memory()
    return True
