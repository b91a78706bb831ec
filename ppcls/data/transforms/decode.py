"""DecodeImage: the bytes of a file to pixels."""

from __future__ import annotations

import numpy as np

from ppcls.data.image import decode
from ppcls.data.transforms.base import Backend, Transform
from ppcls.errors import ArgumentError
from ppcls.registry import TRANSFORMS


@TRANSFORMS.register()
class DecodeImage(Transform):
    """Decodes a file, or passes on a picture that is decoded already. Always the first operation.

    Args:
        to_np: accepted because published configurations write it; pixels are always an array here.
        to_rgb: False gives BGR, as OpenCV stores pixels.
        channel_first: gives [3, height, width]; only a normalisation may follow then.
        backend: accepted because published configurations write it; the pixels are the same.
    """

    def __init__(
        self,
        to_np: bool = True,
        to_rgb: bool = True,
        channel_first: bool = False,
        backend: Backend = "cv2",
    ):
        if backend not in ("cv2", "pil"):
            raise ArgumentError("backend", f"expected 'cv2' or 'pil', received {backend!r}")
        self.to_rgb = to_rgb
        self.channel_first = channel_first
        self.gives = "chw" if channel_first else "hwc"

    def __call__(self, image: bytes | np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [height, width, 3], or [3, height, width] if ``channel_first``.

        Args:
            image: a whole file, or uint8 RGB [height, width, 3].

        Raises:
            DecodeError: the bytes are not a picture.
            ArgumentError: an array that is not uint8 [height, width, 3].
        """
        pixels = _checked(image) if isinstance(image, np.ndarray) else decode(image)
        return self.ordered(pixels)

    def ordered(self, pixels: np.ndarray) -> np.ndarray:
        """RGB [height, width, 3] with channels in the order that the arguments say."""
        if not self.to_rgb:
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
        return pixels.transpose(2, 0, 1) if self.channel_first else pixels


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ArgumentError(
            "image",
            "expected bytes or an RGB array uint8 [height, width, 3], received"
            f" {image.dtype} {list(image.shape)}",
        )
    return image
