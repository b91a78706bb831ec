"""The split into a per-picture and a per-batch stage changes no bit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ppcls.data.pipeline import Pipeline
from ppcls.data.transforms.base import Transform
from ppcls.data.transforms.crop import CropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.normalize import NormalizeImage, ToCHWImage
from ppcls.data.transforms.resize import ResizeImage
from ppcls.errors import ArgumentError


class Invert(Transform):
    """Something behind the normalisation, as random erasing would be."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return -image


SIZED = [DecodeImage(), ResizeImage(size=[20, 16])]
LISTS = {
    "hwc": [*SIZED, NormalizeImage(order=""), ToCHWImage()],
    "chw": [*SIZED, ToCHWImage(), NormalizeImage(order="chw")],
    "twice": [*SIZED, NormalizeImage(), ToCHWImage(), NormalizeImage(0.3, order="chw")],
    "early": [*SIZED, NormalizeImage(), Invert(), ToCHWImage()],
    "early and late": [*SIZED, NormalizeImage(), Invert(), NormalizeImage(0.7), ToCHWImage()],
    "channel first": [DecodeImage(channel_first=True), NormalizeImage(order="chw")],
    "no normalisation": [*SIZED, ToCHWImage()],
}


@pytest.mark.parametrize("name", LISTS)
def test_batch_equals_one_picture_at_a_time(name, photo, rng):
    pictures = [np.roll(photo, shift, axis=0) for shift in range(4)]
    pipeline = Pipeline(LISTS[name])
    batch = pipeline.batch(np.stack([pipeline.image(picture, rng) for picture in pictures]))
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    for picture, got in zip(pictures, batch, strict=True):
        image = picture
        for transform in LISTS[name]:
            image = transform(image, rng)
        np.testing.assert_array_equal(got, image)


def test_pictures_travel_as_bytes(photo):
    image = Pipeline(LISTS["hwc"]).image(photo)
    assert image.dtype == np.uint8
    assert image.shape == (16, 20, 3)
    assert Pipeline(LISTS["early"]).image(photo).dtype == np.float32


def test_batch_leaves_its_argument_alone(photo):
    for name in ("hwc", "early and late"):
        pipeline = Pipeline(LISTS[name])
        images = pipeline.image(photo)[None]
        before = images.copy()
        pipeline.batch(images)
        np.testing.assert_array_equal(images, before)


def test_constants_go_through_the_converter(photo):
    seen = []
    pipeline = Pipeline(LISTS["hwc"])
    pipeline.batch(pipeline.image(photo)[None], lambda a: seen.append(a) or a)
    assert [(a.dtype, a.shape) for a in seen] == [(np.float32, (3, 1, 1))] * 3


def test_paddle_tensors_give_the_same_bits(photo):
    paddle = pytest.importorskip("paddle")
    pipeline = Pipeline(LISTS["hwc"])
    images = pipeline.image(photo)[None]
    tensor = pipeline.batch(paddle.to_tensor(images), paddle.to_tensor)
    np.testing.assert_array_equal(tensor.numpy(), pipeline.batch(images))


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([], "DecodeImage"),
        ([CropImage(size=8), ToCHWImage()], "received 'CropImage'"),
        ([DecodeImage(), CropImage(size=8)], "add ToCHWImage"),
        ([DecodeImage(), DecodeImage(), ToCHWImage()], "number 2"),
        ([DecodeImage(), ToCHWImage(), CropImage(size=8)], "at 'CropImage'"),
        ([DecodeImage(), ToCHWImage(), ToCHWImage()], "at 'ToCHWImage'"),
        ([DecodeImage(), NormalizeImage(order="chw"), ToCHWImage()], "'order'"),
        ([DecodeImage(), ToCHWImage(), NormalizeImage(order="hwc")], "received 'chw'"),
        ([DecodeImage(channel_first=True), ResizeImage(size=8)], "at 'ResizeImage'"),
    ],
)
def test_lists_that_cannot_work(transforms, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        Pipeline(transforms)
    assert caught.value.argument == "transform_ops"


def test_data_does_not_import_paddle():
    code = (
        "import sys, ppcls.data.loader, ppcls.data.datasets, ppcls.data.postprocess,"
        " ppcls.data.samplers\n"
        "from ppcls.registry import TRANSFORMS\n"
        "TRANSFORMS.names()\n"
        "sys.exit('paddle' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
