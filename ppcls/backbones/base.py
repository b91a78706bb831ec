"""The contract that every network fulfils."""

from __future__ import annotations

from dataclasses import dataclass

import paddle
from paddle import nn


@dataclass(frozen=True)
class FeatureInfo:
    """A feature map of a network: its stride (input pixels per cell) and its channels."""

    stride: int
    channels: int


class Backbone(nn.Layer):
    """An image classifier.

    A family provides ``forward`` (images [N, 3, H, W] -> logits [N, class_num]), ``features``
    and ``reset_classifier``, and sets the attributes below.

    Attributes:
        class_num: number of classes.
        num_features: channels of the vector that enters the classifier.
        feature_info: stride and channels of each map that ``features`` returns.
    """

    class_num: int
    num_features: int
    feature_info: list[FeatureInfo]

    def features(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        """The last map of every stride, finest first, for detection and segmentation heads."""
        raise NotImplementedError

    def reset_classifier(self, class_num: int) -> None:
        """Replaces the classifier by a freshly initialised one for ``class_num`` classes."""
        raise NotImplementedError

    def classifier_names(self) -> set[str]:
        """State-dict names of the classifier: what fine-tuning to other classes leaves out."""
        raise NotImplementedError

    def no_weight_decay(self) -> set[str]:
        """State-dict names that the family's recipe never decays, whatever the optimizer says."""
        return set()
