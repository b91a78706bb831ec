"""Test-time augmentation: the mean answer to several views of each picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ppcls.data.datasets import PictureDataset
from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.crop import CropImage
from ppcls.data.transforms.crops import CenterCrop
from ppcls.errors import ArgumentError

if TYPE_CHECKING:
    import paddle

Kind = Literal["flip", "five", "ten"]
CROPS = 5


class Views:
    """Shows a network several views of each picture and averages its probabilities.

    ``flip`` is the picture and its mirror image; ``five`` the four corners and the centre of what
    the final crop of the evaluation cuts from; ``ten`` these five and their mirror images
    (Krizhevsky et al., NeurIPS 2012, section 4.1). Every view is normalised as that of a plain
    evaluation is, and a picture costs 2, 5 or 10 times as much.

    Args:
        kind: which views.

    Raises:
        ArgumentError: there are no such views.
    """

    def __init__(self, kind: Kind):
        if kind not in get_args(Kind):
            expected = ", ".join(f"'{name}'" for name in get_args(Kind))
            raise ArgumentError("tta", f"expected one of {expected}, received {kind!r}")
        self.kind = kind
        self._crops = 1 if kind == "flip" else CROPS
        self._mirrors = kind != "five"
        self._multi_label = False

    def prepare(self, dataset: PictureDataset) -> None:
        """Makes a data set cut the views from its pictures, before anything is read.

        Raises:
            ArgumentError: (``transform_ops``) there is no crop whose place could be varied.
        """
        self._multi_label = dataset.labels.ndim == 2
        if self._crops == 1:
            return
        transforms = dataset.pipeline.image_transforms
        if not isinstance(transforms[-1], (CropImage, CenterCrop)):
            raise ArgumentError(
                "transform_ops",
                f"expected CropImage or CenterCrop, whose place the views '{self.kind}' vary, as "
                f"the last operation on pixels, received {type(transforms[-1]).__name__}",
            )
        transforms[-1] = _FiveCrops(transforms[-1])

    def __call__(self, net: Callable[[Any], Any], images: paddle.Tensor) -> paddle.Tensor:
        """The logarithms of the mean probabilities, float32 [N, C]: their softmax is the mean.

        With several labels an image, the log odds of the mean probabilities of each label: their
        sigmoid is the mean.

        Args:
            images: normalised, [N, 3, H, W]; of crops one below the other, [N, 3, 5 H, W].
        """
        import paddle

        views = paddle.split(images, self._crops, axis=2) if self._crops > 1 else [images]
        if self._mirrors:
            views = views + [paddle.flip(view, axis=3) for view in views]
        logits = paddle.stack([net(view) for view in views]).astype("float64")
        if self._multi_label:
            mean = _log_mean(_log_sigmoid(logits)) - _log_mean(_log_sigmoid(-logits))
        else:
            mean = _log_mean(_log_softmax(logits))
        return mean.astype("float32")


class _FiveCrops(Transform):
    """The centre and the corners, one below the other: uint8 [5 x height, width, 3].

    In one picture they travel as any other does; what follows works on each pixel alone.
    """

    def __init__(self, crop: Transform):
        self._crop = crop

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        centre = self._crop(image, rng)
        height, width = centre.shape[:2]
        bottom, right = image.shape[0] - height, image.shape[1] - width
        corners = [
            image[top : top + height, left : left + width]
            for top in (0, bottom)
            for left in (0, right)
        ]
        return np.concatenate([centre, *corners])


def _log_mean(logs: paddle.Tensor) -> paddle.Tensor:
    """The logarithm of the mean over the views, [N, C]."""
    import paddle

    return paddle.logsumexp(logs, axis=0) - math.log(logs.shape[0])


def _log_softmax(logits: paddle.Tensor) -> paddle.Tensor:
    import paddle

    # Paddle's own stops at -64 on a CPU.
    return logits - paddle.logsumexp(logits, axis=-1, keepdim=True)


def _log_sigmoid(logits: paddle.Tensor) -> paddle.Tensor:
    import paddle

    return paddle.clip(logits, max=0) - paddle.log1p(paddle.exp(-logits.abs()))
