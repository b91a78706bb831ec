"""NormalizeImage and ToCHWImage, Normalize and ToTensor: pixels to what a network takes.

At the end of a list they are the batch stage: see :mod:`ppcls.data.pipeline`.
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np

from ppcls.data.transforms.base import Layout, Transform
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@TRANSFORMS.register()
class NormalizeImage(Transform):
    """(image * scale - mean) / std in float32.

    Attributes:
        bytes_only: whether pictures of floats stay as they are, as with ToTensor.

    Args:
        scale: factor that comes first; default 1 / 255.
        mean: one number a channel, after scaling; default ImageNet's [0.485, 0.456, 0.406].
        std: one number a channel, after scaling; default ImageNet's [0.229, 0.224, 0.225].
        order: layout of the picture, ``hwc`` or ``chw``; the empty text means ``hwc``.
        channel_num: 3; the published 4 (a channel of zeros for old GPUs) is refused.
        output_fp16: False; with AMP the engine casts, so that the batch travels as uint8.
    """

    bytes_only = False

    def __init__(
        self,
        scale: float | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        order: Literal["", "hwc", "chw"] = "",
        channel_num: int = 3,
        output_fp16: bool = False,
    ):
        if order not in ("", "hwc", "chw"):
            raise ArgumentError("order", f"expected '', 'hwc' or 'chw', received {order!r}")
        if channel_num != 3:
            raise ArgumentError("channel_num", f"expected 3, received {channel_num!r}")
        if output_fp16:
            raise ArgumentError(
                "output_fp16", "expected false, received true: batches are float32; AMP casts them"
            )
        self.scale = _scale(scale)
        self.mean = _per_channel(IMAGENET_MEAN if mean is None else mean, "mean")
        self.std = _per_channel(IMAGENET_STD if std is None else std, "std")
        if not self.std.all():
            raise ArgumentError("std", f"expected numbers other than 0, received {std!r}")
        self.needs = self.gives = self._layout(order)
        bytes_ = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
        self._table = self._normalised(bytes_, (1, 1, 3))

    @staticmethod
    def _layout(order: str) -> Layout:
        return "chw" if order == "chw" else "hwc"

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """float32 in the layout of the argument."""
        if image.dtype == np.uint8 and self.needs == "hwc":
            return cv2.LUT(image, self._table)  # the same bits in a tenth of the time
        return self._normalised(image, (3, 1, 1) if self.needs == "chw" else (1, 1, 3))

    def _normalised(self, image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        pixels = image.astype(np.float32)
        return (pixels * self.scale - self.mean.reshape(shape)) / self.std.reshape(shape)


@TRANSFORMS.register()
class ToCHWImage(Transform):
    """[height, width, 3] -> [3, height, width]."""

    gives: Layout = "chw"

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A view of the same pixels."""
        return image.transpose(2, 0, 1)


@TRANSFORMS.register()
class Normalize(NormalizeImage):
    """(image - mean) / std in float32, as in paddle.vision: nothing is scaled to [0, 1] here.

    Args:
        mean: one number, or one a channel.
        std: the same.
        data_format: layout of the picture.
        to_rgb: false; DecodeImage's ``to_rgb`` sets the order of the channels.
    """

    def __init__(
        self,
        mean: float | list[float] = 0.0,
        std: float | list[float] = 1.0,
        data_format: Literal["CHW", "HWC"] = "CHW",
        to_rgb: bool = False,
    ):
        if data_format not in ("CHW", "HWC"):
            raise ArgumentError("data_format", f"expected CHW or HWC, received {data_format!r}")
        if to_rgb:
            raise ArgumentError(
                "to_rgb", "expected false, received true: set DecodeImage.to_rgb instead"
            )
        super().__init__(
            scale=1.0,
            mean=[mean] * 3 if isinstance(mean, (int, float)) else mean,
            std=[std] * 3 if isinstance(std, (int, float)) else std,
            order="chw" if data_format == "CHW" else "hwc",
        )


@TRANSFORMS.register()
class ToTensor(NormalizeImage, ToCHWImage):
    """uint8 [height, width, 3] -> float32 [3, height, width] in [0, 1], as in paddle.vision.

    Args:
        data_format: ``CHW``, the only layout that networks take here.
    """

    bytes_only = True

    def __init__(self, data_format: Literal["CHW"] = "CHW"):
        if data_format != "CHW":
            raise ArgumentError("data_format", f"expected CHW, received {data_format!r}")
        super().__init__(scale=1.0, mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0])
        self.gives = "chw"

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """float32 [3, height, width]; a picture of floats changes its layout only."""
        pixels = super().__call__(image, rng) if image.dtype == np.uint8 else image
        return pixels.transpose(2, 0, 1)


def _scale(scale: float | str | None) -> np.float32:
    if isinstance(scale, str):  # a file that no configuration layer has read, such as an export's
        from ppcls.config.arithmetic import evaluate

        try:
            scale = evaluate(scale)
        except ValueError as error:
            raise ArgumentError("scale", str(error)) from error
    value = 1 / 255 if scale is None else float(scale)
    if not math.isfinite(value) or value == 0:
        raise ArgumentError("scale", f"expected a finite number other than 0, received {scale!r}")
    return np.float32(value)


def _per_channel(values: list[float] | tuple[float, ...], argument: str) -> np.ndarray:
    if len(values) != 3 or not all(math.isfinite(value) for value in values):
        raise ArgumentError(argument, f"expected three finite numbers, received {values!r}")
    return np.asarray(values, np.float32)
