"""A list of transforms, split into what runs per picture and what runs once per batch.

Pictures travel between processes as uint8, four times smaller than float32; the normalisation at
the end of the list runs on the whole batch, with results equal to the last bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.normalize import NormalizeImage, ToCHWImage
from ppcls.errors import ArgumentError


class Pipeline:
    """From the bytes of a file to a batch for the network.

    Args:
        transforms: DecodeImage first; the last result is [3, height, width].

    Attributes:
        transforms: the whole list.
        image_transforms: what :meth:`image` runs.
        batch_transforms: what :meth:`batch` runs: the longest tail of NormalizeImage and
            ToCHWImage.
        decodes_parts: whether a random crop right behind DecodeImage decodes only what it keeps.
            The result is the same to the bit where the crop is less than twice as large as what
            it is resized to; a larger one is decoded at 1/2, 1/4 or 1/8 and differs a little.

    Raises:
        ArgumentError: (``transform_ops``) the list does not start with DecodeImage, does not end
            in [3, height, width], or an operation does not fit the layout before it.
    """

    def __init__(self, transforms: Sequence[Transform]):
        self.transforms = list(transforms)
        if layout(self.transforms) != "chw":
            raise ArgumentError(
                "transform_ops",
                "expected a list that ends in [3, height, width], received [height, width, 3];"
                " add ToCHWImage",
            )
        head = len(self.transforms)
        while isinstance(self.transforms[head - 1], (NormalizeImage, ToCHWImage)):
            head -= 1
        self.image_transforms = self.transforms[:head]
        self.batch_transforms = self.transforms[head:]
        self.decodes_parts = False
        self._moment: tuple[float, float | None] = (0.0, None)
        self._versions: dict[tuple[int, int] | None, list[Transform]] = {}

    def image(
        self,
        data: bytes | np.ndarray,
        rng: np.random.Generator | None = None,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """The part that runs per picture.

        Args:
            data: a file's bytes, or uint8 RGB [height, width, 3].
            rng: source of the augmentation; without one a fixed seed, for lists without any.
            size: (width, height) of the result instead of what the transforms name.

        Returns:
            [height, width, 3], uint8 unless a normalisation is followed by another operation
            ([3, height, width] after ``DecodeImage.channel_first``).

        Raises:
            DataError: the picture cannot be decoded or transformed.
        """
        rng = np.random.default_rng(0) if rng is None else rng
        return _applied(*self._begun(data, rng, size), rng)

    def views(
        self,
        data: bytes | np.ndarray,
        rng: np.random.Generator,
        count: int,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Views of one picture, for AugMix (arXiv:1912.02781); it is decoded once.

        The first is what :meth:`image` gives without the AugMix transform. The others have gone
        through it, each with random numbers of its own; everything else that is random, such as
        a crop, is the same in all.

        Args:
            data, size: as of :meth:`image`.
            rng: as of :meth:`image`; no generator has been spawned from it yet.
            count: of views, at least 2.

        Returns:
            [count, height, width, 3], see :meth:`image`.

        Raises:
            DataError: the picture cannot be decoded or transformed.
        """
        image, transforms = self._begun(data, rng, size)
        place = next(i for i, transform in enumerate(transforms) if transform.per_view)
        image = _applied(image, transforms[:place], rng)
        own = rng.spawn(count - 1)
        images = [image, *(transforms[place](image, generator) for generator in own)]
        rest = transforms[place + 1 :]
        return np.stack([_applied(view, rest, copy.deepcopy(rng)) for view in images])

    def _begun(
        self, data: bytes | np.ndarray, rng: np.random.Generator, size: tuple[int, int] | None
    ) -> tuple[Any, list[Transform]]:
        """The picture as far as decoding brings it, and what is left to do."""
        transforms = self._version(size)
        if self.decodes_parts and isinstance(data, bytes):
            return _decoded_part(data, transforms, rng)
        return data, transforms

    def advance(self, progress: float, magnitude: float | None = None) -> None:
        """Goes to a point of the run, from 0 (first epoch) to 1 (last); it starts at 0.

        Args:
            magnitude: of the transforms that have one, instead of their own.
        """
        if (progress, magnitude) != self._moment:
            self._moment = progress, magnitude
            self._versions.clear()

    def _version(self, size: tuple[int, int] | None) -> list[Transform]:
        """The per-picture transforms of now, for results of this size."""
        if size not in self._versions:
            progress, magnitude = self._moment
            now = [transform.at(progress) for transform in self.image_transforms]
            if magnitude is not None:
                now = [transform.of_magnitude(magnitude) for transform in now]
            self._versions[size] = [t.of_size(size) for t in now] if size else now
        return self._versions[size]

    def batch(self, images: Any, asarray: Callable[[np.ndarray], Any] = np.asarray) -> Any:
        """The part that runs once per batch, in operations that NumPy and Paddle share.

        Args:
            images: results of :meth:`image`, stacked: a NumPy array or a Paddle tensor.
            asarray: turns the float32 constants [3, 1, 1] into the kind of array that ``images``
                is, such as ``paddle.to_tensor``.

        Returns:
            float32 [N, 3, height, width] of the same kind.
        """
        if any(isinstance(transform, ToCHWImage) for transform in self.batch_transforms):
            # First of all, whatever the order in the list: it moves bytes, not floats.
            images = images.transpose([0, 3, 1, 2])
        if isinstance(images, np.ndarray):
            images = np.ascontiguousarray(images)
        floats = "uint8" not in str(images.dtype)
        images = images.astype("float32")
        for transform in self.batch_transforms:
            if isinstance(transform, NormalizeImage) and not (floats and transform.bytes_only):
                floats = True
                scale, mean, std = (
                    asarray(np.broadcast_to(value, 3).reshape(3, 1, 1).copy())
                    for value in (transform.scale, transform.mean, transform.std)
                )
                images *= scale  # in place where the array can; it is a copy since astype()
                images -= mean
                images /= std
        return images


def _applied(image: Any, transforms: Sequence[Transform], rng: np.random.Generator) -> Any:
    for transform in transforms:
        image = transform(image, rng)
    return image


def _decoded_part(
    data: bytes, transforms: list[Transform], rng: np.random.Generator
) -> tuple[Any, list[Transform]]:
    """The random crop of a file, if that comes first, and what is left to do."""
    decoding, *others = transforms
    if others and isinstance(decoding, DecodeImage) and isinstance(others[0], RandCropImage):
        return decoding.ordered(others[0].from_file(data, rng)), others[1:]
    return data, transforms


def layout(transforms: Sequence[Transform]) -> str:
    """``hwc`` or ``chw``: the layout after the last transform.

    Raises:
        ArgumentError: (``transform_ops``) the order of the transforms cannot work.
    """
    names = [type(transform).__name__ for transform in transforms]
    if not transforms or not isinstance(transforms[0], DecodeImage):
        received = repr(names[0]) if names else "an empty list"
        raise ArgumentError(
            "transform_ops", f"expected 'DecodeImage' as the first operation, received {received}"
        )
    current: str = transforms[0].gives or "hwc"
    for number, (name, transform) in enumerate(zip(names[1:], transforms[1:], strict=True), 2):
        if isinstance(transform, DecodeImage):
            raise ArgumentError(
                "transform_ops", f"expected one 'DecodeImage', received another as number {number}"
            )
        if transform.needs not in (None, current):
            raise ArgumentError(
                "transform_ops",
                f"expected pictures in the layout '{transform.needs}' at '{name}' (number"
                f" {number}), received '{current}'; see its 'order', ToCHWImage and channel_first",
            )
        current = transform.gives or current
    return current
