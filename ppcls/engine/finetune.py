"""Fine-tuning: which part of a network stays as it is, until when, and how fast the rest learns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ppcls.config import Config
from ppcls.engine.handler import Handler
from ppcls.errors import ArgumentError, suggestion

if TYPE_CHECKING:
    from ppcls.config.schema import FinetuneSection
    from ppcls.engine.trainer import Trainer

HEAD = "head"  # everything but the classifier, in every network
CONTAINERS = ("stages", "features", "blocks")  # whose items are the stages of a network
STAGE = re.compile(r"stage_?([1-9]\d*)")


def names_until(net: Any, until: str | int) -> list[str]:
    """The parameters of a network up to a layer and including it, in the network's order.

    Args:
        net: a network of the zoo.
        until: the name of a layer (``stages.3``), also one that another library gives it in its
            weights (``features.10`` of torchvision's MobileNetV2), or of a stage, counted from 1
            (``stage3``); so many stages (``3``); ``head`` is everything but the classifier.

    Raises:
        ArgumentError: (``freeze_until``) there is no such layer, or nothing would be left to train.
    """
    names = [name for name, _ in net.named_parameters()]
    classifier = net.classifier_names()
    if until == HEAD:
        return [name for name in names if name not in classifier]
    found = _named(net, names, until)
    if not found:
        raise ArgumentError("freeze_until", _unknown(net, until))
    last = max(i for i, name in enumerate(names) if name in found)
    trainable = {name for name, p in net.named_parameters() if not p.stop_gradient}
    if not trainable & set(names[last + 1 :]):
        expected = f"expected a layer before the last one, such as '{HEAD}'"
        message = f"{expected}, received {until!r}: nothing would be left to train"
        raise ArgumentError("freeze_until", message)
    return names[: last + 1]


def _named(net: Any, names: list[str], until: str | int) -> set[str]:
    """The parameters of the layer that is meant; none if there is no such layer."""
    if isinstance(until, int):
        return _below(names, _stage(net, until))
    if found := _below(names, until):
        return found
    if match := STAGE.fullmatch(until):
        return _below(names, _stage(net, int(match[1])))
    for naming in net.namings():
        theirs = {name: naming.rename(name) for name in names}
        if found := {name for name in names if _below([theirs[name]], until)}:
            return found
    return set()


def _below(names: list[str], layer: str) -> set[str]:
    return {name for name in names if name == layer or name.startswith(f"{layer}.")}


def _stages(net: Any) -> list[str]:
    """Names of the stages of a network."""
    children = dict(net.named_children())
    container = next((name for name in CONTAINERS if name in children), "")
    return [f"{container}.{i}" for i in range(len(children[container]))] if container else []


def _stage(net: Any, count: int) -> str:
    stages = _stages(net)
    if not 1 <= count <= len(stages):
        expected = f"expected 1 to {len(stages)}, the number of stages of {net.arch_name}"
        raise ArgumentError("freeze_until", f"{expected}, received {count}")
    return stages[count - 1]


def _unknown(net: Any, until: object) -> str:
    known = [name for name, layer in net.named_sublayers() if layer.parameters()]
    stages = _stages(net)
    example = stages[len(stages) // 2] if stages else known[0]
    return (
        f"expected a layer of {net.arch_name} such as '{example}', a number of stages, or "
        f"'{HEAD}', received {until!r}{suggestion(str(until), [*known, HEAD])}"
    )


class FrozenPart:
    """The first layers of a network, kept as they are until ``thaw``.

    Their parameters get no gradient, their batch statistics stay, nothing in them is dropped. What
    they compute does not depend on anything that learns, so Paddle records nothing of it, and the
    backward pass ends where they end: they cost no time and no memory there.

    Args:
        net: the network.
        names: of its parameters, as ``names_until`` gives them.
    """

    def __init__(self, net: Any, names: list[str]):
        named = dict(net.named_parameters())
        self.parameters = [named[name] for name in names if not named[name].stop_gradient]
        self._net, self._names = net, set(names)
        for parameter in self.parameters:
            parameter.stop_gradient = True
        net.train = self.train  # or the next call of it would undo the evaluation mode
        self.settle()

    def settle(self) -> None:
        """Puts the frozen layers into evaluation mode."""
        for layer in self._layers():
            layer.training = False

    def train(self) -> None:
        """Puts all but the frozen layers into training mode."""
        type(self._net).train(self._net)
        self.settle()

    def thaw(self) -> None:
        """Has the layers learn like the others from now on."""
        for parameter in self.parameters:
            parameter.stop_gradient = False
        del self._net.train
        for layer in self._layers():
            layer.training = self._net.training

    def _layers(self) -> Iterator[Any]:
        """As they are now: a normalisation may have been exchanged for one of many processes."""
        named = self._net.named_parameters()
        return _layers(self._net, {id(p) for name, p in named if name in self._names})


def _layers(layer: Any, frozen: set[int]) -> Iterator[Any]:
    """The layers with frozen parameters only, and those without any in front of the last one."""
    waiting: list[Any] = []
    for child in layer.children():
        parameters = child.parameters()
        count = sum(id(parameter) in frozen for parameter in parameters)
        if not parameters:
            waiting.append(child)
            continue
        if count:
            for before in waiting:
                yield from before.sublayers(include_self=True)
        waiting = []
        if count == len(parameters):
            yield from child.sublayers(include_self=True)
        elif count:
            yield from _layers(child, frozen)


class Finetuning(Handler):
    """Does what the section ``Finetune`` says.

    Nothing of it is saved: what is frozen in an epoch follows from the epoch's number.

    Args:
        config: a checked configuration.
        section: its section ``Finetune``.
        net: the network. What stays frozen for good is frozen at once, so that an optimizer that
            is built now keeps no state for it.

    Raises:
        ConfigError: there is no such layer, or nothing would be left to train.
    """

    def __init__(self, config: Config, section: FinetuneSection, net: Any):
        self._section, self._net = section, net
        self._names: list[str] = []
        self._frozen: FrozenPart | None = None
        self._model_before: Any = None
        until = self._section.freeze_until
        if until is None:
            return
        try:
            self._names = names_until(net, until)
        except ArgumentError as error:
            raise config.problem(f"Finetune.{error.argument}", str(error)) from None
        if self._section.unfreeze_epoch is None:
            self._frozen = FrozenPart(net, self._names)

    @classmethod
    def of(cls, config: Config, net: Any) -> Finetuning | None:
        """As the configuration says; None if it says nothing."""
        return None if config.Finetune is None else cls(config, config.Finetune, net)

    def begin(self, optimizer: Any, trained: Any) -> None:
        """Sets the rates of the optimizer of ``trained``; freezes what is to be thawed later.

        Its state for those parameters is there from the start, so that checkpoints from before
        and from after the thaw are alike.
        """
        own = {id(parameter): name for name, parameter in self._net.named_parameters()}
        head, section = self._net.classifier_names(), self._section
        learning = optimizer.rate_factors()
        ratios = {}
        for name, parameter in trained.named_parameters():
            if name in learning and id(parameter) in own:
                is_head = own[id(parameter)] in head
                ratios[name] = section.head_lr_ratio if is_head else section.backbone_lr_ratio
        optimizer.scale_rates(ratios)
        if self._names and self._frozen is None:
            self._frozen = FrozenPart(self._net, self._names)

    def fit_start(self, trainer: Trainer) -> None:
        """Says what is frozen; raises ConfigError if that is what was drawn at random."""
        if self._names and not has_weights(trainer.config):
            expected = "expected weights to start from, Arch.pretrained or Global.pretrained_model"
            message = f"{expected}: without them, the frozen layers would stay random"
            raise trainer.config.problem("Finetune.freeze_until", message)
        if self._frozen is None or self._is_over(trainer.state.epoch):
            return
        count = sum(parameter.size for parameter in self._frozen.parameters)
        epoch = self._section.unfreeze_epoch
        how_long = "" if epoch is None else f" until epoch {epoch}"
        last = self._names[-1].rpartition(".")[0]
        trainer.logger.info(f"the first {count:,} parameters, up to {last}, are frozen{how_long}")

    def epoch_start(self, trainer: Trainer) -> None:
        """Thaws when the time has come; until then, undoes what the whole model's mode has done."""
        if self._frozen is None:
            return
        if not self._is_over(trainer.state.epoch):
            self._frozen.settle()
            return
        self._frozen.thaw()
        self._frozen = None
        trainer.logger.info(f"all layers learn from epoch {trainer.state.epoch} on")
        if trainer.model is not trainer.trained:
            # It was made for the parameters that learned then. It stays: gradients still ask it.
            self._model_before = trainer.model
            trainer.model = trainer._parallel()
            trainer.model.train()

    def _is_over(self, epoch: int) -> bool:
        unfreeze = self._section.unfreeze_epoch
        return unfreeze is not None and epoch >= unfreeze


def has_weights(config: Config) -> bool:
    """Whether a run starts from weights."""
    section = config.Global
    given = section.checkpoints or section.pretrained_model
    return bool(given or config.network.extra["pretrained"])
