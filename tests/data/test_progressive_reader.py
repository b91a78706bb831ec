"""The reader in stages: size, magnitude and batch size of each epoch, for any number of workers."""

from __future__ import annotations

import numpy as np
import pytest

from ppcls.config.progressive import Stage, Stages
from ppcls.data.loader import DataLoader
from ppcls.data.mixing.cutmix import CutmixOperator
from ppcls.data.mixing.hybrid import MixupCutmixHybrid
from ppcls.data.mixing.mixup import MixupOperator
from ppcls.data.mixing.sampler import OpSampler
from ppcls.data.pipeline import Pipeline
from ppcls.data.samplers.distributed import DistributedBatchSampler
from ppcls.data.samplers.staged import StagedSampler
from ppcls.data.transforms.apply import RandomApply
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.normalize import ToCHWImage
from ppcls.data.transforms.randaugment import RandAugmentV2

STAGES = Stages(
    [
        Stage(size=16, magnitude=0.0, batch_size=3),
        Stage(size=[40, 24], magnitude=5.0, batch_size=8),
        Stage(size=32, magnitude=9.0, batch_size=5),
    ],
    epochs=6,
)
SIDES = [(16, 16), (16, 16), (24, 40), (24, 40), (32, 32), (32, 32)]  # height, width
BATCHES = [3, 3, 8, 8, 5, 5]
COUNT = 23


def sampler(stages=STAGES, batch_size=4):
    def build(size):
        return DistributedBatchSampler(size, shuffle=True, sample_count=COUNT, seed=3)

    return StagedSampler(build(batch_size), build, stages)


@pytest.fixture
def dataset(make_dataset):
    transforms = [DecodeImage(), RandCropImage(size=20), RandAugmentV2(2), ToCHWImage()]
    dataset = make_dataset(transform_ops=transforms)
    dataset.stages, dataset.epochs = STAGES, 6
    return dataset


def epochs_of(loader, start=0, first=1):
    return [
        [(b.number, b.images.copy(), b.indices.copy()) for b in loader.epoch(epoch, start)]
        for epoch in range(first, 7)
    ]


def test_each_epoch_has_the_sizes_of_its_stage_for_any_number_of_workers(dataset):
    with DataLoader(dataset, sampler(), seed=3) as loader:
        alone = epochs_of(loader)
        assert len(loader) == -(-COUNT // 4)
        assert loader.varies
    for epoch, side, batch_size, read in zip(range(1, 7), SIDES, BATCHES, alone, strict=True):
        assert {images.shape[1:3] for _, images, _ in read} == {side}
        assert len(read) == loader.batches_in(epoch) == -(-COUNT // batch_size)
        assert max(len(indices) for *_, indices in read) == batch_size
        assert sorted(np.concatenate([indices for *_, indices in read])) == list(range(COUNT))
    with DataLoader(dataset, sampler(), seed=3, num_workers=2) as loader:
        # Resumed within an epoch, in another order of the stages.
        for first, start in ((5, 2), (1, 1), (3, 0)):
            for expected, read in zip(
                alone[first - 1 :], epochs_of(loader, start, first), strict=True
            ):
                for one, other in zip(expected[start:], read, strict=True):
                    assert one[0] == other[0]
                    np.testing.assert_array_equal(one[1], other[1])


def test_batches_of_every_stage_travel_through_shared_memory(dataset):
    with DataLoader(dataset, sampler(), seed=3, num_workers=1) as loader:
        pool = loader._readers()
        assert pool._shared.pixel_bytes == 8 * 40 * 24 * 3  # more than 3 x 16 x 16 and 5 x 32 x 32
        assert len(pool._shared.draws(0, 8)) == 8


def test_stages_end_where_those_of_paddleclas_do():
    """``int(epochs * (i + 1) / 4)``, and an epoch is in the stage whose end it has not passed."""
    stages = Stages([Stage(size=size) for size in (171, 214, 257, 300)], epochs=350)
    assert [stage.until for stage in stages] == [87, 175, 262, 350]
    assert [stages.at(e).size for e in (1, 87, 88, 175, 176, 262, 263, 350)] == [
        *(171, 171, 214, 214),
        *(257, 257, 300, 300),
    ]


def test_stages_end_where_they_say():
    stages = Stages([Stage(until=2, size=8), Stage(until=3, size=9), Stage(size=10)], epochs=9)
    assert [stages.at(epoch).size for epoch in range(1, 10)] == [8, 8, 9, *[10] * 6]


def test_batches_alike_do_not_vary(dataset):
    stages = Stages([Stage(size=16), Stage(size=24)], epochs=6)
    with DataLoader(dataset, sampler(stages), seed=3) as loader:
        assert not loader.varies
        assert loader.batches_in(1) == len(loader) == 6


def test_a_magnitude_reaches_the_augmentation_and_nothing_else(rng):
    augment = RandAugmentV2(2, magnitude=7, progress_magnitude=[1, 2])
    pipeline = Pipeline([DecodeImage(), RandomApply(1.0, [augment]), ToCHWImage()])
    picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    read = []
    for magnitude in (7.0, 1.0, None):
        pipeline.advance(0.5, magnitude)
        read.append(pipeline.image(picture, np.random.default_rng(4)))
    np.testing.assert_array_equal(read[0], read[2])
    assert (read[0] != read[1]).any()
    assert augment.magnitude == 7


@pytest.mark.parametrize(
    ("operation", "alphas"),
    [
        (MixupOperator(5.0), {"mixup": 0.0}),
        (CutmixOperator(5.0), {"cutmix": 0.0}),
        (MixupCutmixHybrid(5.0, 5.0, label_smoothing=0.0), {"mixup": 0.0, "cutmix": 0.0}),
        (OpSampler([(MixupOperator(5.0), 1.0)]), {"mixup": 0.0}),
    ],
)
def test_an_alpha_of_0_leaves_a_batch_as_it_is(operation, alphas, rng):
    assert operation.mixes == set(alphas)
    images = rng.random((4, 3, 8, 8)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)
    off = operation.of_alphas(alphas)(images, targets, np.random.default_rng(2))
    np.testing.assert_array_equal(off[0], images)
    np.testing.assert_array_equal(off[1], targets)
    mixed = operation(images, targets, np.random.default_rng(2))
    assert (mixed[0] != images).any(), "the operation itself is as it was"


def test_an_alpha_is_that_of_the_operation_itself(rng):
    images = rng.random((4, 3, 8, 8)).astype(np.float32)
    targets = np.eye(4, dtype=np.float32)
    both = [
        operation(images, targets, np.random.default_rng(2))[0]
        for operation in (MixupOperator(0.7), MixupOperator(0.2).of_alphas({"mixup": 0.7}))
    ]
    np.testing.assert_array_equal(*both)
