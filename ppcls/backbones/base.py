"""The contract that every network fulfils, and what networks made of stages share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import paddle
from paddle import nn

from ppcls.backbones.layers import change_settings
from ppcls.backbones.naming import Naming
from ppcls.backbones.recompute import Recomputable


@dataclass(frozen=True)
class FeatureInfo:
    """A feature map of a network: its stride (input pixels per cell) and its channels."""

    stride: int
    channels: int


class Backbone(nn.Layer):
    """An image classifier.

    A family provides ``forward`` (images [N, C, H, W] -> logits [N, class_num]), ``features``
    and ``reset_classifier``, and sets the attributes below.

    Attributes:
        class_num: number of classes.
        num_features: channels of the vector that enters the classifier.
        feature_info: stride and channels of each map that ``features`` returns.
        settings: what ``adopt`` has set, by name.
        recomputable: the classes of those of its layers that ``Global.recompute`` recomputes.
    """

    class_num: int
    num_features: int
    feature_info: list[FeatureInfo]
    recomputable: ClassVar[tuple[type[Recomputable], ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {}

    def features(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        """The last map of every stride, finest first, for detection and segmentation heads."""
        raise NotImplementedError

    def training_outputs(self, images: paddle.Tensor) -> Any:
        """What losses of distillation get: logits [N, class_num], or a map with several outputs."""
        return self(images)

    def reset_classifier(self, class_num: int) -> None:
        """Replaces the classifier by a freshly initialised one for ``class_num`` classes."""
        raise NotImplementedError

    def classifier_names(self) -> set[str]:
        """State-dict names of the classifier: what fine-tuning to other classes leaves out."""
        raise NotImplementedError

    def recomputed_blocks(self) -> list[Recomputable]:
        """The layers that ``Global.recompute`` recomputes in the backward pass."""
        return [layer for layer in self.sublayers() if isinstance(layer, self.recomputable)]

    def no_weight_decay(self) -> set[str]:
        """State-dict names that the family's recipe never decays, whatever the optimizer says."""
        return set()

    def namings(self) -> list[Naming]:
        """The names under which other libraries publish weights of this network."""
        return []

    def adapt_weights(
        self, weights: dict[str, np.ndarray], naming: Naming | None
    ) -> dict[str, np.ndarray]:
        """Changes what renaming cannot: the last step before weights are compared and loaded.

        Args:
            weights: by our names, in Paddle's layout; names may be missing, shapes differ.
            naming: whose weights they were, None for our own.
        """
        return weights

    def _lay_out(self, images: paddle.Tensor) -> paddle.Tensor:
        """Images [N, C, H, W] as the layers want them: transposed if ``data_format`` is NHWC."""
        return images.transpose([0, 2, 3, 1]) if self._is_channels_last() else images

    def _channels_first(self, x: paddle.Tensor) -> paddle.Tensor:
        """A map of the layers as [N, C, H, W]."""
        return x.transpose([0, 3, 1, 2]) if self._is_channels_last() else x

    def _is_channels_last(self) -> bool:
        return self.settings.get("data_format") == "NHWC"

    def fuse(self) -> None:
        """Merges what only training keeps apart, for export; the answers stay as they are."""

    def adopt(self, **settings: Any) -> dict[str, Any]:
        """Sets what a whole network has in common and no parameter tells; returns what changed.

        Args:
            settings: see ``layers.change_settings``; each is an argument of the constructor too.

        CPU kernels look at the layers once: ``ppcls.ops.accelerate`` has to be called again.
        """
        changed = {
            k: v for k, v in settings.items() if k not in self.settings or self.settings[k] != v
        }
        change_settings(self, **{k: v for k, v in changed.items() if not self.set_own(k, v)})
        self.settings.update(changed)
        return changed

    def set_own(self, name: str, value: Any) -> bool:
        """Sets what only this family has; False for a setting that every network knows."""
        return False


class Stage(NamedTuple):
    """A part of a network, the channels of its map, and how much it shrinks the map before."""

    layer: nn.Layer
    channels: int
    stride: int = 1


class StagedBackbone(Backbone):
    """Stem, stages, head and classifier, called one after the other.

    Attributes:
        stem: the first layers.
        stages: a LayerList; ``features`` gives the map of the last one of every stride.
        head: from the last map [N, C, H, W] to the vector [N, num_features].
        dropout: of that vector.
        classifier: the linear layer.
    """

    def assemble(
        self,
        stem: Stage,
        stages: Sequence[Stage],
        head: nn.Layer,
        num_features: int,
        class_num: int,
        dropout: float,
    ) -> None:
        """Sets all attributes; ``head`` ends in a vector of ``num_features``."""
        self.class_num, self.num_features = class_num, num_features
        self.stem = stem.layer
        self.stages = nn.LayerList([stage.layer for stage in stages])
        self.head = head
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(num_features, class_num)
        self.initialise_classifier()
        self.feature_info: list[FeatureInfo] = []
        self._feature_ends: list[int] = []
        total = 1
        for i, (_, channels, stride) in enumerate((stem, *stages)):
            total *= stride
            if self.feature_info and self.feature_info[-1].stride == total:
                self.feature_info.pop()
                self._feature_ends.pop()
            self.feature_info.append(FeatureInfo(total, channels))
            self._feature_ends.append(i)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Images [N, C, H, W] -> logits [N, class_num]."""
        x = self._lay_out(images)
        for stage in (self.stem, *self.stages):
            x = stage(x)
        return self.classifier(self.dropout(self.head(x)))

    def features(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        """The last map [N, C, H, W] of every stride; ``feature_info`` tells stride and C."""
        x = self._lay_out(images)
        maps = []
        for i, stage in enumerate((self.stem, *self.stages)):
            x = stage(x)
            if i in self._feature_ends:
                maps.append(self._channels_first(x))
        return maps

    def reset_classifier(self, class_num: int) -> None:
        """Replaces the classifier by a freshly initialised one for ``class_num`` classes."""
        self.class_num = class_num
        self.classifier = nn.Linear(self.num_features, class_num)
        self.initialise_classifier()

    def initialise_classifier(self) -> None:
        """Small normal weights; a family whose recipe differs says so."""
        nn.initializer.Normal(0.0, 0.01)(self.classifier.weight)
        nn.initializer.Constant(0.0)(self.classifier.bias)

    def classifier_names(self) -> set[str]:
        """State-dict names of the classifier."""
        return {"classifier.weight", "classifier.bias"}
