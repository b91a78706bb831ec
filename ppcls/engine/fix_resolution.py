"""FixRes: adapting a trained network to another size of pictures (arXiv:1906.06423)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ppcls.config import Config
from ppcls.engine.finetune import HEAD
from ppcls.engine.handler import Handler

if TYPE_CHECKING:
    from ppcls.engine.trainer import Trainer


class FixResolution(Handler):
    """Has batch normalisations of a frozen network adapt their statistics, section 4.2.

    ``Finetune.freeze_until: head`` leaves only the classifier to train, and keeps all statistics;
    those of larger pictures are different (section 3.2), before the pooling above all.

    Args:
        config: a checked configuration.
        which: ``FixRes.batch_norm`` of it.

    Raises:
        ConfigError: more than the classifier would be trained.
    """

    def __init__(self, config: Config, which: Literal["last", "all"]):
        section = config.Finetune
        if section is None or section.freeze_until != HEAD or section.unfreeze_epoch is not None:
            message = f"expected 'Finetune: {{freeze_until: {HEAD}}}' with it, for the whole run"
            raise config.problem("FixRes", message)
        self._config = config
        self._which = which

    @classmethod
    def of(cls, config: Config) -> FixResolution | None:
        """As the configuration says; None if it says nothing."""
        return None if config.FixRes is None else cls(config, config.FixRes.batch_norm)

    def fit_start(self, trainer: Trainer) -> None:
        """Finds the normalisations; raises ConfigError if there are none."""
        found = normalisations(trainer.net)
        if not found:
            name = self._config.network.name
            message = f"expected a network with batch normalisation, received {name}"
            raise self._config.problem("FixRes.batch_norm", message)
        self._adapting = found[-1:] if self._which == "last" else found
        count = f"{len(self._adapting)} of {len(found)}"
        trainer.logger.info(f"{count} batch normalisations adapt their statistics")

    def step_start(self, trainer: Trainer) -> None:
        """Puts them into training mode again, which whatever froze the network has undone."""
        for layer in self._adapting:
            layer.training = True


def normalisations(net: Any) -> list[Any]:
    """The batch normalisations of a network; the last one is that before the pooling."""
    from paddle import nn

    kinds = (nn.BatchNorm2D, nn.BatchNorm1D, nn.BatchNorm, nn.SyncBatchNorm)
    return [layer for layer in net.sublayers() if isinstance(layer, kinds)]
