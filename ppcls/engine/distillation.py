"""Networks that are trained together, or one by another that knows more already."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import paddle
from paddle import nn
from pydantic import Field

from ppcls.backbones.naming import Naming
from ppcls.backbones.sublayers import find_layer, watched
from ppcls.config.schema import NETWORK_KEYS
from ppcls.engine.model import create_model, load_for_run
from ppcls.errors import ArgumentError, WeightsError, suggestion
from ppcls.losses.distillation import LOGITS
from ppcls.registry import BACKBONES, NETWORK_GROUPS, Labelled, One, Spec
from ppcls.weights import find_pretrained, find_weights, load_weights

Outputs = dict[str, Any]  # label -> logits, or a map from a key to a tensor


@NETWORK_GROUPS.register()
class DistillationModel(nn.Layer):
    """Networks that see the same images, of which one is kept: the student (arXiv:1503.02531).

    A frozen network is no part of the layer for anything that goes through its parts or
    parameters: nothing trains it, averages it, saves it, or puts it into training mode. It runs
    without keeping what a backward pass would need.

    The student is built first: it begins with the weights that it would begin with alone.

    Args:
        models: each network under a label, ``- Teacher: {name: ..., pretrained: ...}``. Beside
            their own arguments stand ``pretrained`` (weights to start from) and
            ``return_patterns`` (layers whose outputs a loss wants, see ``find_layer``).
        class_num: number of classes of every network.
        pretrained_list: weights of each network, instead of its own ``pretrained``.
        freeze_params_list: whether each network stays as it is; none does by default.
        infer_model_name: the student: what is evaluated, saved and exported.
        logger: told what is loaded.
        resuming: the networks that are trained will get the weights of a checkpoint.

    Attributes:
        networks: all, by label.
        student: the one that is kept.
        others: the other networks that are trained, by label.
        digests: SHA-256 of the weights of each frozen network.
        optimized: what the optimizer gets.

    Raises:
        WeightsError: weights cannot be read or do not fit; those of a frozen network have to fit
            wholly, classifier included.
        ArgumentError: a network has no such layer.
    """

    def __init__(
        self,
        models: Annotated[list[tuple[str, Spec]], Labelled(One(BACKBONES, also=NETWORK_KEYS))],
        class_num: Annotated[int, Field(ge=1)] = 1000,
        pretrained_list: list[bool | str | None] | None = None,
        freeze_params_list: list[bool] | None = None,
        infer_model_name: str = "Student",
        *,
        logger: logging.Logger,
        resuming: bool = False,
    ):
        super().__init__()
        specs, self._student = dict(models), infer_model_name
        pretrained = dict(zip(specs, pretrained_list or [None] * len(specs), strict=True))
        frozen = dict(zip(specs, freeze_params_list or [False] * len(specs), strict=True))
        nets: dict[str, Any] = {}
        for label in sorted(specs, key=lambda name: name != infer_model_name):
            spec = specs[label]
            nets[label] = create_model(spec.name, class_num=class_num, **spec.arguments)
            source = pretrained[label] or spec.extra["pretrained"]
            if frozen[label] or (source and not resuming):
                _load(nets[label], label, source, frozen[label], logger)
        # A plain map, in which Paddle does not look for parts.
        self.networks: dict[str, Any] = {label: nets[label] for label in specs}
        self._layers = {
            label: _layers(nets[label], spec, f"models.{i}.{label}")
            for i, (label, spec) in enumerate(models)
        }
        self.digests = {label: _freeze(nets[label]) for label in specs if frozen[label]}
        for label in self.networks.keys() - self.digests.keys():
            self.add_sublayer(label, nets[label])

    @staticmethod
    def check_arguments(
        models: list[tuple[str, Spec]],
        pretrained_list: list[bool | str | None] | None,
        freeze_params_list: list[bool] | None,
        infer_model_name: str,
    ) -> None:
        """Raises ArgumentError for lists that do not fit, and for a student that is none."""
        labels = [label for label, _ in models]
        named = ", ".join(repr(label) for label in labels)
        if len(set(labels)) < len(labels) or not all(re.fullmatch(r"\w+", x) for x in labels):
            expected = "expected different labels of letters, digits and '_'"
            raise ArgumentError("models", f"{expected}, received {named}")
        lists = {"pretrained_list": pretrained_list, "freeze_params_list": freeze_params_list}
        for name, values in lists.items():
            if values is not None and len(values) != len(models):
                expected = f"expected {len(models)} values, one for each of models ({named})"
                raise ArgumentError(name, f"{expected}, received {len(values)}")
        if infer_model_name not in labels:
            message = f"expected one of models, {named}; received '{infer_model_name}'"
            raise ArgumentError("infer_model_name", message + suggestion(infer_model_name, labels))
        _check_weights(models, pretrained_list, freeze_params_list, infer_model_name)

    @property
    def student(self) -> Any:
        """The network that is evaluated, saved and exported."""
        return self.networks[self._student]

    @property
    def others(self) -> dict[str, Any]:
        """The trained networks beside the student, by label."""
        left_out = {self._student, *self.digests}
        return {label: net for label, net in self.networks.items() if label not in left_out}

    @property
    def optimized(self) -> Any:
        """What the optimizer gets: the student under its own names, if it is all that trains."""
        return self if self.others else self.student

    def forward(self, images: paddle.Tensor) -> Outputs:
        """Images [N, C, H, W] -> the output of each network, by label.

        It is the logits [N, class_num]; or a map of these under ``logits`` and of what
        ``return_patterns`` and the network itself add in training.
        """
        return {label: self._output(label, images) for label in self.networks}

    def logits(self, outputs: Outputs) -> paddle.Tensor:
        """The student's logits among the outputs of ``forward``; the class token's of a DeiT."""
        output = outputs[self._student]
        return output[LOGITS] if isinstance(output, Mapping) else output

    def _output(self, label: str, images: paddle.Tensor) -> Any:
        net = self.networks[label]
        with watched(net, self._layers[label]) as seen:
            if label in self.digests:
                with paddle.no_grad():
                    output = net(images)
            else:
                output = net.training_outputs(images)
        if not seen:
            return output
        return {**(output if isinstance(output, Mapping) else {LOGITS: output}), **seen}

    # A checkpoint --------------------------------------------------------------------------------

    def arrays(self) -> dict[str, np.ndarray]:
        """The state of ``others``, ``<label>.<name>``; the student has a file of its own."""
        return {
            f"{label}.{name}": tensor.numpy()
            for label, net in self.others.items()
            for name, tensor in net.state_dict().items()
        }

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Gives ``others`` what ``arrays`` said; raises WeightsError if one is missing."""
        for label, net in self.others.items():
            start = f"{label}."
            own = {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
            if not own:
                raise WeightsError(f"the checkpoint has no network '{label}' of Arch.models")
            load_weights(net, own)

    def state(self) -> dict[str, Any]:
        """Which weights teach; a checkpoint does not hold them."""
        return {"frozen": self.digests} if self.digests else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises WeightsError if a frozen network has other weights than the run began with."""
        before = state.get("frozen", {})
        changed = [x for x, digest in self.digests.items() if before.get(x, digest) != digest]
        if changed:
            raise WeightsError(
                f"Arch.models, {changed[0]}: these are not the weights that the run began with; to "
                "go on from what the student has learnt, use Global.pretrained_model"
            )

    # What optimizers ask of a network ------------------------------------------------------------

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the networks' own recipes never decay."""
        return {f"{label}.{n}" for label, net in self._trained() for n in net.no_weight_decay()}

    def classifier_names(self) -> set[str]:
        """State-dict names of all classifiers."""
        return {f"{label}.{n}" for label, net in self._trained() for n in net.classifier_names()}

    def namings(self) -> list[Naming]:
        """The names that PaddleClas gives to the networks' parameters."""
        rules = {
            label: naming
            for label, net in self._trained()
            for naming in net.namings()
            if naming.library == "PaddleClas"
        }

        def published(match: re.Match[str]) -> str:
            label, name = match.groups()
            return rules[label].rename(name) if label in rules else match[0]

        return [Naming("PaddleClas", [(r"^(\w+)\.(.+)$", published)])]

    def _trained(self) -> list[tuple[str, Any]]:
        return [(label, net) for label, net in self.networks.items() if label not in self.digests]


def _check_weights(
    models: list[tuple[str, Spec]],
    pretrained_list: list[bool | str | None] | None,
    freeze_params_list: list[bool] | None,
    student: str,
) -> None:
    for i, (label, spec) in enumerate(models):
        listed = pretrained_list[i] if pretrained_list else None
        if listed and spec.extra["pretrained"]:
            message = f"expected null for '{label}', which has pretrained already, received"
            raise ArgumentError("pretrained_list", f"{message} {listed!r}")
        if not (freeze_params_list and freeze_params_list[i]):
            continue
        if label == student:
            message = f"expected false for '{label}', which is the student (infer_model_name)"
            raise ArgumentError("freeze_params_list", f"{message}, received true")
        if not (listed or spec.extra["pretrained"]):
            message = f"'{label}' is frozen and has no weights to teach with: set its pretrained"
            raise ArgumentError("freeze_params_list", message)


def _load(net: Any, label: str, source: Any, frozen: bool, logger: logging.Logger) -> None:
    """A frozen network may take settings over from its weights: it always begins with them."""
    try:
        if not frozen:
            load_for_run(net, source, logger, adapt_head=True)
            return
        path = find_pretrained(net.arch_name) if source is True else find_weights(str(source))
        report = load_weights(net, path)
    except WeightsError as error:
        raise WeightsError(f"Arch.models, {label}: {error}") from None
    adopted = f", which sets {report.adopted}" if report.adopted else ""
    logger.info(f"{label}: loaded {path}: {report}{adopted}; frozen")


def _freeze(net: Any) -> str:
    """Keeps a network from ever being trained; returns the digest of its weights."""
    for parameter in net.parameters():
        parameter.stop_gradient = True
    for layer in net.sublayers(include_self=True):
        layer.training = False  # not by eval(), which tells Paddle's tracer too
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _layers(net: Any, spec: Spec, place: str) -> dict[str, nn.Layer]:
    try:
        return {name: find_layer(net, name) for name in spec.extra["return_patterns"] or []}
    except ArgumentError as error:
        raise ArgumentError(f"{place}.{error.argument}", f"{spec.name}: {error}") from None
