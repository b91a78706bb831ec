"""Batches of several sizes: the data set, the sampler and the loader together."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from ppcls.data.datasets import ImageNetDataset
from ppcls.data.datasets.multi_scale import MultiScaleDataset
from ppcls.data.loader import DataLoader
from ppcls.data.samplers.multi_scale import MultiScaleSampler
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.registry import DATASETS


@pytest.fixture
def dataset(list_file) -> MultiScaleDataset:
    transforms = [DecodeImage(), RandCropImage(size=48, scale=[1, 1])]
    return MultiScaleDataset(str(list_file.parent), str(list_file), transforms, class_num=5)


def test_the_data_set_is_the_plain_one_under_another_name():
    entry = DATASETS.entry("MultiScaleDataset")
    assert entry.builder is MultiScaleDataset
    assert inspect.signature(MultiScaleDataset) == inspect.signature(ImageNetDataset)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_batch_has_its_size(dataset, num_workers):
    sampler = MultiScaleSampler(
        [48, [64, 32], 32], first_bs=2, divided_factor=16, sample_count=len(dataset), seed=3
    )
    shapes = []
    with DataLoader(dataset, sampler, seed=3, num_workers=num_workers) as loader:
        for epoch in range(2):
            read = list(loader.epoch(epoch, start=1))
            expected = zip(sampler.sizes(epoch)[1:], sampler.batches(epoch)[1:], strict=True)
            for batch, ((width, height), indices) in zip(read, expected, strict=True):
                assert batch.images.shape == (len(indices), height, width, 3)
                np.testing.assert_array_equal(batch.indices, indices)
                np.testing.assert_array_equal(batch.labels, dataset.labels[indices])
                shapes.append(batch.images.shape)
    assert {shape[1:3] for shape in shapes} == {(48, 48), (32, 64), (32, 32)}
    assert {shape[0] for shape in shapes} >= {2, 4}, "48 x 48 x 2 pixels are 4.5 of 32 x 32"


def test_the_other_arguments_of_a_transform_stay(dataset):
    """The crop is the whole picture at either size: ``scale`` is not set back to its default."""
    small, large = (
        dataset.sample(0, np.random.default_rng(1), size)[0] for size in ((16, 16), (64, 64))
    )
    shrunk = large.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - small).mean() < 4
