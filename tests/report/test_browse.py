"""What ``ppcls data browse`` draws is what the network gets."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import support
from PIL import Image

from ppcls.data.pipeline import Pipeline
from ppcls.engine.batch import build_reader
from ppcls.engine.distributed import World
from ppcls.engine.logging import make_logger
from ppcls.registry import TRANSFORMS
from ppcls.report.browse import Drawing, View, restored, target_text
from ppcls.report.grid import Tile, as_png, fitted

pytest.importorskip("paddle")

FLIP = "DataLoader.Train.dataset.transform_ops.1={RandFlipImage: {flip_code: 1}}"
MIX = "DataLoader.Train.dataset.batch_transform_ops=[{MixupOperator: {alpha: 1.0}}]"


def pipeline(*operations):
    return Pipeline([TRANSFORMS.build(name, arguments) for name, arguments in operations])


@pytest.mark.parametrize(
    "operations",
    [
        [("NormalizeImage", {"order": ""}), ("ToCHWImage", {})],
        [
            ("NormalizeImage", {"scale": 1.0, "mean": [127, 127, 127], "std": [1, 2, 3]}),
            ("ToCHWImage", {}),
        ],
        [("ToCHWImage", {}), ("NormalizeImage", {"order": "chw"})],
        [("ToTensor", {})],
        [("ToCHWImage", {})],
    ],
)
@pytest.mark.parametrize("to_rgb", [True, False])
def test_pixels_come_back(operations, to_rgb):
    image = support.picture("red", 0)
    built = pipeline(("DecodeImage", {"to_rgb": to_rgb}), *operations)
    batch = built.batch(built.image(image)[None])
    np.testing.assert_array_equal(restored(batch, built), image[None])


def test_normalisation_before_another_operation_is_undone():
    image = support.picture("red", 0)
    built = pipeline(
        ("DecodeImage", {}), ("NormalizeImage", {}), ("RandFlipImage", {}), ("ToCHWImage", {})
    )
    found = restored(built.batch(built.image(image)[None]), built)[0]
    assert any(np.array_equal(found, expected) for expected in (image, image[:, ::-1]))


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (np.int64(1), "dog"),
        (np.int64(7), "7"),
        (np.float32([0, 1, 0]), "dog"),
        (np.float32([1, 0, 1]), "cat, emu"),
        (np.float32([0, 0, 0]), "none"),
        (np.float32([0.3, 0.7, 0]), "0.70 x dog + 0.30 x cat"),
        (np.float32([0.001, 0.999, 0]), "1.00 x dog"),
        (np.float32([0.1, 0.2, 0.3, 0.4]), "0.40 x 3 + 0.30 x emu + 0.20 x dog + 1 more"),
    ],
)
def test_targets(target, text):
    assert target_text(np.asarray(target), ["cat", "dog", "emu"]) == text


def drawing(config_file, view, *overrides):
    config = support.load(config_file, *overrides)
    reader = build_reader(config, view.mode, World(), make_logger())
    return Drawing(config, reader, view), reader


def test_the_tiles_are_the_batches_of_the_epoch(config_file):
    drawn, reader = drawing(config_file, View(count=11, epoch=3))
    tiles = [tile for row in drawn.rows() for tile in row]
    assert [len(row) for row in drawn.rows()] == [4, 4, 3]
    batches = list(reader.epoch(3))
    images = np.concatenate([batch.images.copy() for batch in batches])[:11]
    for batch_image, tile in zip(images, tiles, strict=True):
        np.testing.assert_array_equal(tile.image, batch_image)
    indices = np.concatenate([batch.indices for batch in batches])[:11]
    names = [Path(reader.dataset.path(int(i))).name for i in indices]
    assert [tile.lines for tile in tiles] == [[name.partition("_")[0], name] for name in names]


def test_mixed_pictures_and_targets_are_those_of_training(config_file):
    from ppcls import Trainer

    drawn, _ = drawing(config_file, View(count=8), MIX)
    tiles = [tile for row in drawn.rows() for tile in row]
    trainer = Trainer(support.load(config_file, MIX))
    seen = {}
    trainer.net.register_forward_pre_hook(lambda net, inputs: seen.setdefault("x", inputs[0]))
    trainer.model.train()
    trainer.state.epoch = 1
    trainer._step(next(iter(trainer.reader.epoch(1))))
    trainer.close()
    expected = restored(seen["x"].numpy(), trainer.reader.dataset.pipeline)
    np.testing.assert_array_equal(np.stack([tile.image for tile in tiles]), expected)
    assert any(re.fullmatch(r"0\.\d\d x \w+ \+ 0\.\d\d x \w+", tile.lines[0]) for tile in tiles)


def test_draws_of_a_picture_are_those_of_its_epochs(config_file):
    drawn, reader = drawing(config_file, View(count=10, repeat=6, original=True), FLIP)
    rows = drawn.rows()
    assert [len(row) for row in rows] == [7] * 10
    indices = np.concatenate([batch.indices for batch in reader.epoch(1)])
    for index, row in zip(indices, rows, strict=False):
        image = np.asarray(Image.open(reader.dataset.path(int(index))).convert("RGB"))
        np.testing.assert_array_equal(row[0].image, image)
        assert row[0].lines[0].startswith("file: ")
        for epoch, tile in enumerate(row[1:], 1):
            [place] = [
                (batch.images[i].copy())
                for batch in reader.epoch(epoch)
                for i in np.flatnonzero(batch.indices == index)
            ]
            np.testing.assert_array_equal(tile.image, place)
    flipped = [not np.array_equal(row[0].image, tile.image) for row in rows for tile in row[1:]]
    assert 0 < sum(flipped) < len(flipped)


def test_the_grid_holds_every_pixel():
    image = support.picture("green", 1, side=120)
    other = support.picture("blue", 2, side=40)[:, :30]
    sheet = np.asarray(
        Image.open(io.BytesIO(as_png([[Tile(image, ["a"]), Tile(other, ["b" * 99])]])))
    )
    np.testing.assert_array_equal(sheet[8:128, 8:128], image)
    np.testing.assert_array_equal(sheet[8:128:3, 136:226:3], other)
    assert (sheet[128:145, 8:128] < 128).any(), "the caption is not drawn"
    assert (sheet[:, -8:] == 255).all(), "a long caption leaves its place"


def test_tiny_pictures_grow_in_whole_steps_and_huge_ones_shrink():
    assert fitted(np.zeros((28, 28, 3), np.uint8)).shape == (112, 112, 3)
    assert fitted(np.zeros((1000, 500, 3), np.uint8)).shape == (320, 160, 3)


def test_the_command_writes_both_files(cli, config_file, tmp_path):
    out = tmp_path / "grid"
    done = cli("data", "browse", "-c", config_file, "--mode", "Eval", "--count", "5", "--out", out)
    assert done.code == 0, done.err
    assert done.out == f"5 pictures: {out / 'browse.png'}, {out / 'browse.html'}\n"
    html = (out / "browse.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="data:image/png;base64,([^"]+)" alt="blue, blue_\d+.png"', html)
    assert len(sources) == 5
    rows = html.split('<div class="pictures row">')[1:]  # which does not wrap
    assert [row.count("<figure") for row in rows] == [3, 2]
    assert ".row { flex-wrap: nowrap;" in html
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0]))))
    expected = fitted(support.picture("blue", 100))
    np.testing.assert_array_equal(image, expected)


def test_without_the_reader_it_says_what_is_missing(cli, config_file):
    done = cli("data", "browse", "-c", config_file, "-o", "DataLoader.Train=null")
    assert done.code == 2
    assert "DataLoader.Train: is missing; browsing needs it" in done.err
