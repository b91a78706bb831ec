"""MultiScaleDataset: pictures in batches of several sizes."""

from __future__ import annotations

from ppcls.data.datasets.imagenet import ImageNetDataset
from ppcls.registry import DATASETS


@DATASETS.register()
class MultiScaleDataset(ImageNetDataset):
    """:class:`ImageNetDataset` under the name that published files use with MultiScaleSampler.

    Every data set here reads pictures of the size that a sampler asks for, in place of the sizes
    that its transforms name. The other arguments of the transforms stay, such as the
    interpolation of ``RandCropImage`` (the published data set falls back to their defaults).
    """
