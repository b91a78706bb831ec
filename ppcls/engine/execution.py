"""How a step runs the network: its operators, layout, blocks, program, and processes."""

from __future__ import annotations

import logging
from typing import Any

from ppcls.config import Config
from ppcls.engine.device import use_kernels
from ppcls.engine.distributed import World
from ppcls.engine.recompute import use_recompute, why_not_recompute
from ppcls.registry import BACKBONES


def prepare(config: Config, net: Any, group: Any, world: World, logger: logging.Logger) -> bool:
    """Changes how the layers of a built network run, never what they hold; False without kernels.

    Args:
        net: the network that is saved.
        group: the networks that train together, of which ``net`` is one; or None.

    Raises:
        ConfigError: this network, or this device, cannot run as the configuration wants.
    """
    section, trained = config.Global, net if group is None else group
    _refuse(config, net, group, world)
    if config.Arch.extra.get("use_sync_bn"):
        from ppcls.engine.sync_bn import use_sync_bn

        use_sync_bn(trained, world, logger)  # before the kernels look at the layers
    if section.to_static:
        logger.info("Global.to_static: training runs a program of Paddle's own operators")
    kernels = not section.to_static and use_kernels(net, section.cpu_kernels, logger)
    for other in () if group is None else group.networks.values():
        if other is not net:
            use_kernels(other, section.cpu_kernels, logger)
    if section.recompute:
        blocks = use_recompute(trained)
        logger.info(f"Global.recompute: {blocks} blocks are calculated twice to need less memory")
    if section.channels_last and kernels:
        logger.info("Global.channels_last changes nothing: the CPU kernels lay maps out so anyway")
    elif section.channels_last:
        net.adopt(data_format="NHWC")
    return kernels


def step_model(config: Config, trained: Any, world: World) -> Any:
    """``trained`` as a step calls it: compiled if wanted, and together with other processes."""
    if config.Global.to_static:
        from ppcls.engine.compile import Compiled

        trained = Compiled(trained)
    if world.size == 1:
        return trained
    import paddle

    return paddle.DataParallel(trained)


def _refuse(config: Config, net: Any, group: Any, world: World) -> None:
    """Raises ConfigError for the first option that cannot be."""
    section, several = config.Global, group is not None
    reasons = {
        "recompute": section.recompute and why_not_recompute(net),
        "channels_last": section.channels_last and _why_not_channels_last(net, several),
        "to_static": section.to_static and _why_not_to_static(config, several, world),
    }
    for key, reason in reasons.items():
        if reason:
            raise config.problem(f"Global.{key}", f"expected false, received true: {reason}")


def _why_not_channels_last(net: Any, several: bool) -> str | None:
    if several:
        return "the losses of a distillation compare maps of networks in one layout"
    able = {BACKBONES.entry(n).builder for n in BACKBONES if _has_layout(n)}
    if _has_layout(net.arch_name):
        return None
    names = ", ".join(sorted(builder.__name__ for builder in able))
    return f"{net.arch_name} has no argument data_format; {names} have"


def _has_layout(name: str) -> bool:
    return "data_format" in BACKBONES.entry(name).arguments()


def _why_not_to_static(config: Config, several: bool, world: World) -> str | None:
    import paddle

    if several:
        return "the networks of a distillation are not compiled"
    if config.Global.recompute:
        return "a program keeps what its backward pass needs, which Global.recompute does not"
    if config.Global.cpu_kernels == "on" and paddle.get_device() == "cpu":
        return "a program runs Paddle's operators, and Global.cpu_kernels is on"
    if config.Arch.extra.get("use_sync_bn") and world.size > 1 and paddle.get_device() == "cpu":
        return "Paddle has no synchronised batch normalisation for programs on a CPU"
    return None
