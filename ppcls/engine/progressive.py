"""Progressive learning: what changes in the engine from stage to stage.

The reader follows the stages by itself (picture size, magnitude of the augmentation, batch size);
here are mixup, CutMix, dropout, and the place in the learning-rate schedule.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ppcls.config import Config
from ppcls.config.progressive import Stages
from ppcls.config.stages import stages_of
from ppcls.data.loader import DataLoader
from ppcls.data.samplers.staged import StagedSampler
from ppcls.engine.handler import Handler
from ppcls.errors import ArgumentError, TrainingError
from ppcls.registry import Spec

if TYPE_CHECKING:
    from paddle import nn

    from ppcls.engine.trainer import Trainer


class Progressive(Handler):
    """Grows mixup, CutMix and dropout in stages (EfficientNetV2, arXiv:2104.00298, section 4).

    Nothing of it is saved: an epoch's stage follows from its number.
    """

    def __init__(self, stages: Stages):
        self._stages = stages
        self._said: int | None = None

    @classmethod
    def of(cls, config: Config) -> Progressive | None:
        """As the configuration says; None if it has no stages."""
        stages = stages_of(config)
        return None if stages is None else cls(stages)

    def fit_start(self, trainer: Trainer) -> None:
        """Finds what is to change."""
        self._mixing = trainer.mixing
        self._dropout = classifier_dropout(trainer.net) if self._stages.sets("dropout") else None

    def epoch_start(self, trainer: Trainer) -> None:
        """Goes to the stage of the epoch; says so if it is another one."""
        epoch = trainer.state.epoch
        stage = self._stages.at(epoch)
        alphas = {"mixup": stage.mixup, "cutmix": stage.cutmix}
        given = {name: alpha for name, alpha in alphas.items() if alpha is not None}
        trainer.mixing = self._mixing.of_alphas(given)
        if self._dropout is not None:
            self._dropout.p = stage.dropout
        number = self._stages.number(epoch)
        if number != self._said:
            self._said = number
            place = f"stage {number + 1} of {len(self._stages)}, to epoch {stage.until}"
            trainer.logger.info(f"{place}: {stage.words()}")


def classifier_dropout(net: Any) -> nn.Dropout:
    """The dropout of the vector that enters a network's classifier.

    Raises:
        TrainingError: there is none.
    """
    from paddle import nn

    places = [getattr(net, "dropout", None), *net.classifier.sublayers(include_self=True)]
    for layer in places:
        if isinstance(layer, nn.Dropout):
            return layer
    raise TrainingError("expected a network with dropout before its classifier, found none")


def staged_sampler(
    nominal: Any, spec: Spec, facts: dict[str, Any], stages: Stages, config: Config
) -> StagedSampler:
    """The sampler ``nominal``, with the batch sizes of the stages.

    Args:
        spec: what it was built from, together with ``facts``.

    Raises:
        ConfigError: a stage's batch size does not suit the data set.
    """

    def build(batch_size: int) -> Any:
        try:
            arguments = {**spec.arguments, "batch_size": batch_size}
            return replace(spec, arguments=arguments).build(**facts)
        except ArgumentError as error:
            number = next(i for i, stage in enumerate(stages) if stage.batch_size == batch_size)
            path = f"Progressive.stages.{number}.batch_size"
            raise config.problem(path, str(error)) from None

    return StagedSampler(nominal, build, stages)


def schedule_step(reader: DataLoader, epoch: int, batch: int, every: int) -> int:
    """The step of the learning-rate schedule that a batch is at.

    A schedule counts steps of the reader's nominal batch size. In an epoch of more or fewer of
    them, a step is as far into the schedule's epoch as it is into the real one.

    Args:
        epoch: from 1.
        batch: number of the batch in its epoch, from 0; as many as there are for the epoch's end.
        every: batches of an optimizer step.
    """
    nominal, steps = (-(-count // every) for count in (len(reader), reader.batches_in(epoch)))
    done = steps if batch == reader.batches_in(epoch) else batch // every
    return (epoch - 1) * nominal + done * nominal // steps
