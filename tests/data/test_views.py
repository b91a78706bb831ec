"""Several views of a picture: their pixels, their order in a batch, and the same bits always."""

from __future__ import annotations

import numpy as np
import pytest

from ppcls.data.loader import DataLoader
from ppcls.data.samplers import DistributedBatchSampler
from ppcls.data.transforms.augmix import AugMix
from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.erase import RandomErasing
from ppcls.data.transforms.flip import RandFlipImage
from ppcls.data.transforms.timm_autoaugment import TimmAutoAugment

pytestmark = pytest.mark.timeout(60)

VIEWS, BATCH = 3, 4
BEFORE = [DecodeImage(), RandCropImage(size=32), RandFlipImage()]
AUGMIX = AugMix(prob=1.0, aug_prob_coeff=1.0, mixture_depth=-1, aug_severity=3)
HOLE = [RandomErasing(EPSILON=1.0, sl=0.1, sh=0.2)]


class Marking(Transform):
    """An AugMix whose draw can be seen: all pixels are the same random number."""

    per_view = True

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.full_like(image, rng.integers(1, 255))


class Counting(DecodeImage):
    """Counts pictures."""

    count = 0

    def __call__(self, data, rng):
        self.count += 1
        return super().__call__(data, rng)


@pytest.fixture
def read(make_dataset):
    """The batches of an epoch."""

    def batches(transform_ops, views=VIEWS, workers=0, epoch=1, start=0, **arguments):
        dataset = make_dataset(transform_ops=transform_ops, **arguments)
        dataset.views = views
        sampler = DistributedBatchSampler(BATCH, True, sample_count=len(dataset), seed=3)
        with DataLoader(dataset, sampler, seed=3, num_workers=workers) as reader:
            return [
                (batch.images.copy(), batch.labels, batch.indices)
                for batch in reader.epoch(epoch, start)
            ]

    return batches


@pytest.mark.parametrize("augmix", [AUGMIX, TimmAutoAugment(config_str="augmix-m5-w4-d2")])
@pytest.mark.parametrize("after", [[], HOLE])
def test_the_first_view_is_the_pipeline_without_augmix(read, augmix, after):
    several, alone = read([*BEFORE, augmix, *after]), read([*BEFORE, *after], views=1)
    assert len(several) == len(alone) == 6  # the last one holds 3 pictures
    for (images, labels, indices), (clean, expected, same) in zip(several, alone, strict=True):
        count = len(clean)
        assert images.shape == (VIEWS * count, 32, 32, 3)
        np.testing.assert_array_equal(images[:count], clean)
        np.testing.assert_array_equal(indices, same)
        np.testing.assert_array_equal(labels, np.tile(expected, VIEWS))
        views = images.reshape(VIEWS, count, *clean.shape[1:]).astype(int)
        for one, other in ((0, 1), (0, 2), (1, 2)):
            changed = np.abs(views[one] - views[other]).mean(axis=(1, 2, 3))
            assert (changed > 0).any(), (one, other)  # of one picture it may round to nothing


def test_crop_and_hole_are_the_same_in_all_views_wherever_augmix_stands(read):
    """Without strength AugMix leaves the picture, so that views differ in other draws only."""
    idle = AugMix(prob=0.0)
    for transforms in ([*BEFORE, idle, *HOLE], [BEFORE[0], idle, *BEFORE[1:], *HOLE]):
        for images, labels, _ in read(transforms):
            views = images.reshape(VIEWS, len(labels) // VIEWS, 32, 32, 3)
            np.testing.assert_array_equal(views, views[:1].repeat(VIEWS, axis=0))


def test_row_v_n_plus_i_is_view_v_of_picture_i(read):
    """Each view has the draw of a child of its sample's generator, in the order of the views."""
    from ppcls.data.worker import sample_generator

    for images, labels, indices in read([*BEFORE, Marking()], epoch=2):
        count = len(indices)
        assert len(images) == len(labels) == VIEWS * count
        for i, index in enumerate(indices.tolist()):
            children = sample_generator(3, 2, index).spawn(VIEWS - 1)
            for view, child in enumerate(children, 1):
                assert (images[view * count + i] == child.integers(1, 255)).all()


def test_a_picture_is_decoded_once(make_dataset):
    decoding = Counting()
    dataset = make_dataset(transform_ops=[decoding, *BEFORE[1:], AUGMIX])
    dataset.views = VIEWS
    views, _ = dataset.sample(0, np.random.default_rng(0))
    assert views.shape == (VIEWS, 32, 32, 3)
    assert decoding.count == 1


def bits(batches):
    return [tuple(array.tobytes() for array in batch) for batch in batches]


def test_the_same_bits_with_any_number_of_workers_and_from_the_middle(read):
    transforms = [*BEFORE, AUGMIX, *HOLE]
    alone = bits(read(transforms))
    assert bits(read(transforms, workers=2)) == alone
    assert bits(read(transforms, workers=1, start=2)) == alone[2:]
    assert bits(read(transforms, epoch=2)) != alone


def test_a_batch_fits_into_shared_memory(make_dataset):
    dataset = make_dataset(transform_ops=[*BEFORE, AUGMIX])
    dataset.views = VIEWS
    sampler = DistributedBatchSampler(BATCH, True, sample_count=len(dataset), seed=3)
    with DataLoader(dataset, sampler, seed=3, num_workers=1) as reader:
        assert reader._batch_bytes == VIEWS * BATCH * 32 * 32 * 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_picture_leaves_no_row(read, list_file, workers):
    bad = list_file.parent / "folder 0/ü #4.jpg"
    bad.write_bytes(b"no picture")
    options = {"on_error": "skip", "max_bad_ratio": 1.0, "workers": workers}
    several, alone = (
        read(transforms, views, **options)
        for transforms, views in (([*BEFORE, Marking()], VIEWS), (BEFORE, 1))
    )
    sizes = [len(clean) for clean, *_ in alone]
    assert sum(sizes) == 22
    for (images, labels, indices), (clean, _, same) in zip(several, alone, strict=True):
        count = len(clean)
        assert len(images) == len(labels) == VIEWS * count
        np.testing.assert_array_equal(images[:count], clean)
        np.testing.assert_array_equal(indices, same)
        flat = images[count:].reshape((VIEWS - 1) * count, -1)
        assert (flat == flat[:, :1]).all()  # each is one marked picture
        assert len(np.unique(flat[:, 0])) > count


def test_some_pictures_of_a_batch_are_taken_with_their_views(make_dataset):
    dataset = make_dataset(transform_ops=[*BEFORE, Marking()])
    dataset.views = VIEWS
    sampler = DistributedBatchSampler(BATCH, False, sample_count=len(dataset), seed=3)
    with DataLoader(dataset, sampler, seed=3) as reader:
        batch = next(reader.epoch(1))
    taken = batch.taken(np.array([2, 0, 2]))
    assert (batch.pictures, taken.pictures) == (4, 3)
    rows = [2, 0, 2, 6, 4, 6, 10, 8, 10]
    np.testing.assert_array_equal(taken.images, batch.images[rows])
    np.testing.assert_array_equal(taken.labels, batch.labels[rows])
    assert taken.indices.tolist() == [2, 0, 2]
