"""Packing: shards that other tools read, equal bytes, and going on after an interruption."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import support
from PIL import Image

from ppcls.data import packing
from ppcls.data.datasets import ImageFolder, ImageNetDataset
from ppcls.data.datasets.packed import PackedDataset
from ppcls.data.image import decode
from ppcls.data.pack import pack
from ppcls.data.subsets import chosen
from ppcls.errors import ArgumentError, DataError, EnvironmentProblem

SMALL = 0.02  # MB: a few of the pictures below


@pytest.fixture
def folder(tmp_path, photo, encode) -> Path:
    """40 JPEGs and PNGs of 4 classes, the classes of different sizes."""
    for index in range(40):
        picture = np.roll(photo, 5 * index, axis=1)
        kind, suffix = [("JPEG", ".JPEG"), ("PNG", ".png")][index % 4 == 3]
        path = tmp_path / f"source/class {int(index**0.5) // 2}/a.b {index}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture, kind))
    return tmp_path / "source"


def contents(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir())}


def by_content(dataset) -> list[tuple[bytes, int]]:
    read = dataset.source.read
    return [(read(dataset.row(i)), int(dataset.labels[i])) for i in range(len(dataset))]


def test_pictures_keep_their_bytes_and_their_order(folder, tmp_path):
    summary = pack(folder, tmp_path / "out", shard_mb=SMALL, shuffle=False)
    packed, unpacked = PackedDataset(str(tmp_path / "out")), ImageFolder(str(folder))
    assert by_content(packed) == by_content(unpacked)
    assert packed.class_names == unpacked.class_names
    assert (summary.samples, summary.skipped) == (40, [])
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert summary.shards == len(shards) > 5
    assert summary.bytes == sum(path.stat().st_size for path in shards)
    assert max(path.stat().st_size for path in shards) <= 1e6 * SMALL
    assert packed.path(3) == f"{shards[packed.shards[3]]}/000000003.png"
    assert packed.describe(3).endswith("000000003.png (class 0/a.b 3.png)")


def test_shuffled_by_a_seed(folder, tmp_path):
    outs = [tmp_path / name for name in ("one", "two", "three")]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        pack(folder, out, seed=seed, workers=3)
    one, two, three = (by_content(PackedDataset(str(out))) for out in outs)
    assert one == two != three
    plain = by_content(ImageFolder(str(folder)))
    assert plain != one
    assert sorted(plain) == sorted(one) == sorted(three)
    (tmp_path / "again").mkdir()
    pack(folder, tmp_path / "again/one", seed=1, workers=1)
    assert contents(tmp_path / "again/one") == contents(outs[0]), "equal to the last byte"


def test_tar_and_tarfile_read_shards(folder, tmp_path):
    pack(folder, tmp_path / "out", shard_mb=SMALL)
    expected = by_content(PackedDataset(str(tmp_path / "out")))
    (tmp_path / "unpacked").mkdir()
    for shard in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(shard) as archive:
            members = archive.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.type) for m in members} == {(0, 0, 0, tarfile.REGTYPE)}
        done = subprocess.run(
            ["tar", "-xf", shard, "-C", tmp_path / "unpacked"], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
    pictures = sorted(p for p in (tmp_path / "unpacked").iterdir() if p.suffix != ".cls")
    found = [(p.read_bytes(), int(p.with_suffix(".cls").read_text())) for p in pictures]
    assert found == expected
    assert pictures[7].stem == "000000007"


WEBDATASET = """
import hashlib, json, sys
import webdataset
hexdigest = lambda data: hashlib.sha256(data).hexdigest()
raw = webdataset.WebDataset(sys.argv[1], shardshuffle=False)
decoded = raw.decode("rgb8").to_tuple("jpeg;png", "cls")
files = [[hexdigest(s.get("jpeg") or s["png"]), int(s["cls"])] for s in raw]
print(json.dumps([files, [[hexdigest(p.tobytes()), label] for p, label in decoded]]))
"""


@pytest.mark.skipif(not importlib.util.find_spec("webdataset"), reason="pip install webdataset")
def test_webdataset_reads_shards(folder, tmp_path):
    """In a process of its own, where no folder of the tests is taken for a package."""
    pack(folder, tmp_path / "out", shard_mb=SMALL)
    last = len(list((tmp_path / "out").glob("*.tar"))) - 1
    url = f"{tmp_path}/out/shard-{{000000..{last:06d}}}.tar"
    done = support.run(["-c", WEBDATASET, url], tmp_path)
    assert done.returncode == 0, done.stderr
    files, pictures = json.loads(done.stdout)
    expected = PackedDataset(str(tmp_path / "out"))
    digests = [[hashlib.sha256(data).hexdigest(), label] for data, label in by_content(expected)]
    assert files == digests
    samples = [expected.sample(i, np.random.default_rng()) for i in range(40)]
    digests = [[hashlib.sha256(p.tobytes()).hexdigest(), int(label)] for p, label in samples]
    assert pictures == digests


def test_index_tells_sizes_and_checksums(folder, tmp_path):
    pack(folder, tmp_path / "out", shard_mb=SMALL)
    tree = json.loads((tmp_path / "out/index.json").read_text())
    digests = contents(tmp_path / "out")
    assert tree["wids_version"] == 1
    assert sum(shard["nsamples"] for shard in tree["shardlist"]) == tree["samples"] == 40
    for shard in tree["shardlist"]:
        assert shard["sha256"] == digests[shard["url"]]
        assert shard["filesize"] == (tmp_path / "out" / shard["url"]).stat().st_size
    table = np.load(tmp_path / "out/samples.npy", mmap_mode="r")
    assert table.nbytes / len(table) == 32, "41 MB for ImageNet"


def test_train_and_val_are_packed_beside_each_other(folder, tmp_path):
    source = tmp_path / "both"
    shutil.copytree(folder, source / "train")
    shutil.copytree(folder / "class 1", source / "val/class 1")
    summary = pack(source, tmp_path / "out")
    assert summary.samples == 40 + len(list((source / "val/class 1").iterdir()))
    for mode in ("Train", "Eval"):
        expected = ImageFolder(str(source), mode=mode)
        found = PackedDataset(str(tmp_path / "out"), mode=mode)
        assert sorted(by_content(found)) == sorted(by_content(expected))
        assert found.class_names == expected.class_names
    pack(source / "train", tmp_path / "train only/train")
    with pytest.raises(DataError, match=r"expected a file at .*index.json"):
        PackedDataset(str(tmp_path / "train only"))


def test_list_file_and_data_set(list_file, make_dataset, tmp_path):
    pack(list_file.parent, tmp_path / "out", list_file=list_file, shuffle=False)
    dataset = make_dataset()
    assert by_content(PackedDataset(str(tmp_path / "out"))) == by_content(dataset)
    dataset.select(chosen(dataset.labels, few_shot=2, mode="Train", seed=0))
    pack(dataset, tmp_path / "few", shuffle=False)
    assert by_content(PackedDataset(str(tmp_path / "few"))) == by_content(dataset)


def test_several_targets_a_sample(make_dataset, tmp_path):
    class Several:
        def __init__(self, source):
            self.labels = np.eye(5, dtype=np.float32)[source.labels] * np.float32(0.7)
            self.class_names = list("abcde")
            self.read, self.path, self.describe = source.read, source.path, source.describe

    source = Several(make_dataset().source)
    pack(source, tmp_path / "out", shuffle=False)
    found = PackedDataset(str(tmp_path / "out"), class_num=5)
    np.testing.assert_array_equal(found.labels, source.labels)
    assert found.sample(7, np.random.default_rng())[1].dtype == np.float32
    with tarfile.open(tmp_path / "out/shard-000000.tar") as archive:
        assert np.allclose(json.load(archive.extractfile("000000007.json")), source.labels[7])
    with pytest.raises(DataError, match=r"Arch\.class_num 4 targets a sample, received 5"):
        PackedDataset(str(tmp_path / "out"), class_num=4)


def test_pixels_become_png(tmp_path, photo):
    class Pixels:
        labels, class_names = np.zeros(3, np.int64), ["one"]

        def read(self, row):
            return np.roll(photo, row, axis=0)

        def path(self, row):
            return f"batch_1/{row}"

        describe = path

    pack(Pixels(), tmp_path / "out", shuffle=False)
    found = PackedDataset(str(tmp_path / "out"))
    assert found.path(1).endswith(".png")
    for row in range(3):
        pixels, _ = found.sample(row, np.random.default_rng())
        np.testing.assert_array_equal(pixels, Pixels().read(row))


def test_short_side_shrinks_what_is_larger_and_turns_it_upright(tmp_path, photo, encode):
    upright, exif = Image.fromarray(photo), Image.Exif()
    exif[0x0112] = 6  # the picture has to be turned by 90 degrees
    files = {
        "large.png": encode(upright, "PNG"),  # 80 x 60
        "turned.jpg": encode(upright, exif=exif.tobytes()),
        "small.jpg": encode(photo[:30, :70], exif=exif.tobytes()),
        "as asked.jpg": encode(photo[:, :32]),
    }
    for name, data in files.items():
        (tmp_path / "source/a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "source/a" / name).write_bytes(data)
    pack(tmp_path / "source", tmp_path / "out", short_side=32, quality=95)
    found = PackedDataset(str(tmp_path / "out"))
    names = [found.describe(i).rpartition("/")[2].rstrip(")") for i in range(len(found))]
    packed = dict(zip(names, by_content(found), strict=True))
    assert packed["small.jpg"][0] == files["small.jpg"]
    assert packed["as asked.jpg"][0] == files["as asked.jpg"]
    large, turned = (decode(packed[name][0]) for name in ("large.png", "turned.jpg"))
    assert (large.shape, turned.shape) == ((32, 43, 3), (43, 32, 3))
    assert {Image.open(io.BytesIO(packed[n][0])).format for n in packed} == {"JPEG"}
    assert not Image.open(io.BytesIO(packed["turned.jpg"][0])).getexif()
    np.testing.assert_allclose(np.rot90(large, -1).astype(float), turned, atol=12)
    small = np.asarray(upright.resize((43, 32), Image.Resampling.BOX)).astype(float)
    np.testing.assert_allclose(large, small, atol=12)


def test_bad_picture_stops_or_is_left_out(folder, tmp_path):
    bad = folder / "class 1/a.b 5.JPEG"
    bad.write_bytes(b"")
    (folder / "class 2/a.b 20.JPEG").unlink()
    (folder / "class 2/a.b 20.JPEG").symlink_to("nowhere")
    with pytest.raises(DataError) as caught:
        pack(folder, tmp_path / "out", shuffle=False)
    assert str(caught.value) == f"{bad}: the file is empty (0 bytes)"
    summary = pack(folder, tmp_path / "out", shuffle=False, on_error="skip", shard_mb=SMALL / 4)
    assert summary.samples == 38
    assert [text.partition(": ")[0].rpartition("/")[2] for text in summary.skipped] == [
        "a.b 5.JPEG",
        "a.b 20.JPEG",
    ]
    found = PackedDataset(str(tmp_path / "out"))
    assert [found.path(i).rpartition("/")[2] for i in (0, 37)] == [
        "000000000.jpeg",
        "000000037.png",
    ]
    for path in folder.rglob("*.*"):
        path.unlink()
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 40 pictures can be read"):
        pack(folder, tmp_path / "none", on_error="skip")


@pytest.mark.timeout(20)
def test_a_pipe_is_no_picture(folder, tmp_path):
    (folder / "class 1/a.b 5.JPEG").unlink()
    os.mkfifo(folder / "class 1/a.b 5.JPEG")
    with pytest.raises(DataError, match=r"a\.b 5\.JPEG: expected a file, received a pipe"):
        pack(folder, tmp_path / "out")


def test_a_label_that_a_shard_cannot_hold_is_refused(list_file, tmp_path):
    lines = list_file.read_text().splitlines()
    list_file.write_text(f"{lines[0].rpartition(' ')[0]} {2**31}\n")
    with pytest.raises(DataError, match="expected labels up to 2147483647, received 2147483648"):
        pack(list_file.parent, tmp_path / "out", list_file=list_file)


def test_a_full_disk_leaves_no_part_of_a_shard(folder, tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(EnvironmentProblem, match=r"shard-000000\.tar\.part: No space left"):
        pack(folder, tmp_path / "out", shard_mb=SMALL)
    assert not list((tmp_path / "out").glob("shard-*"))
    monkeypatch.undo()
    assert pack(folder, tmp_path / "out", shard_mb=SMALL).samples == 40


def test_who_comes_when_another_process_has_just_finished(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"

    @contextmanager
    def locked(path):
        monkeypatch.undo()
        pack(folder, out)  # it finishes here, and the folder of the lock is gone
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        yield

    monkeypatch.setattr(packing, "locked", locked)
    assert pack(folder, out).samples == 40


def test_decoding_errors_name_the_picture(folder, tmp_path):
    bad = folder / "class 1/a.b 5.JPEG"
    bad.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.b 5\.JPEG: expected a picture"):
        pack(folder, tmp_path / "out", short_side=20)


def test_interrupted_packing_goes_on(folder, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole/out", tmp_path / "out"
    pack(folder, whole, shard_mb=SMALL)
    real, read = packing.prepared, []

    def prepared(source, row, *rest):
        if len(read) == 25:
            raise KeyboardInterrupt
        read.append(row)
        return real(source, row, *rest)

    monkeypatch.setattr(packing, "prepared", prepared)
    with pytest.raises(KeyboardInterrupt):
        pack(folder, out, shard_mb=SMALL, workers=1)
    done = list(out.glob("*.tar"))
    assert 0 < len(done) < len(list(whole.glob("*.tar")))
    assert not (out / "index.json").exists()
    with pytest.raises(DataError, match=r"index\.json.*'ppcls data pack' writes it last"):
        PackedDataset(str(out))
    with pytest.raises(DataError, match="interrupted packing of other pictures or with other"):
        pack(folder, out, shard_mb=SMALL, seed=3)
    times = {path: path.stat().st_mtime_ns for path in done}
    read.clear()
    monkeypatch.setattr(packing, "prepared", lambda *a: read.append(a[1]) or real(*a))
    pack(folder, out, shard_mb=SMALL)
    assert contents(out) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in done} == times
    assert len(read) < 40
    read.clear()
    assert pack(folder, out, shard_mb=SMALL).samples == 40
    assert read == [], "it is done"


def test_killed_packing_goes_on(tmp_path, photo, encode):
    (tmp_path / "source/a").mkdir(parents=True)
    for index in range(300):
        (tmp_path / f"source/a/{index}.png").write_bytes(encode(np.roll(photo, index, 0), "PNG"))
    code = f"from ppcls.data.pack import pack; pack({str(tmp_path / 'source')!r}, 'out',"
    process = support.start(["-c", f"{code} shard_mb=0.02, workers=1)"], tmp_path)
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("out/shard-*.tar"))) < 3 and time.monotonic() < until:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    support.finish(process)
    assert not (tmp_path / "out/index.json").exists()
    pack(tmp_path / "source", tmp_path / "out", shard_mb=0.02)
    (tmp_path / "whole").mkdir()
    pack(tmp_path / "source", tmp_path / "whole/out", shard_mb=0.02)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole/out")


def test_places_that_are_taken(folder, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.txt").write_text("")
    with pytest.raises(DataError, match=r"expected a new folder, received one with 'thesis\.txt'"):
        pack(folder, tmp_path / "taken")
    pack(folder, tmp_path / "out")
    with pytest.raises(DataError, match="expected a new folder, received one of other packed"):
        pack(folder, tmp_path / "out", short_side=10)
    (tmp_path / "out/index.json").write_bytes(b"\xff\xfe, of another program")
    with pytest.raises(DataError, match="expected a new folder, received one of other packed"):
        pack(folder, tmp_path / "out")
    for out in (folder, folder / "packed"):
        with pytest.raises(ArgumentError, match="received"):
            pack(folder, out)
    with pytest.raises(EnvironmentProblem, match=r"cannot write .*: Not a directory"):
        pack(folder, tmp_path / "taken/thesis.txt/out")


@pytest.mark.parametrize("data", [b"no picture", b"\xff\xd8 half a JPEG", b"\x89PNG\r\n"])
@pytest.mark.parametrize("short_side", [None, 1000])
def test_pictures_that_keep_their_bytes_are_looked_at(folder, tmp_path, data, short_side):
    bad = folder / "class 1/a.b 5.JPEG"
    bad.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.b 5\.JPEG: "):
        pack(folder, tmp_path / "out", short_side=short_side)
    summary = pack(folder, tmp_path / "skipped", short_side=short_side, on_error="skip")
    assert summary.samples == 39
    assert [str(bad) in text for text in summary.skipped] == [True]


def test_folders_beside_the_splits_are_told(folder, tmp_path):
    for name in ("train", "test", "validation"):
        shutil.copytree(folder, tmp_path / "both" / name)
    summary = pack(tmp_path / "both", tmp_path / "out")
    assert summary.samples == 40
    assert summary.not_packed == [str(tmp_path / "both" / n) for n in ("validation", "test")]


@pytest.mark.parametrize(
    "arguments",
    [
        {"shard_mb": 0},
        {"seed": -1},
        {"short_side": 0},
        {"quality": 101},
        {"workers": 0},
        {"on_error": "ignore"},
    ],
)
def test_arguments_are_checked(folder, tmp_path, arguments):
    with pytest.raises(ArgumentError) as caught:
        pack(folder, tmp_path / "out", **arguments)
    assert caught.value.argument in arguments
    assert not (tmp_path / "out").exists()


def test_imagenet_list_of_the_samples(tmp_path):
    """Real photographs: the packed set gives the pixels of the unpacked one."""
    root = support.ROOT.parent / "shared" / "data" / "imagenet1k-sample"
    if not root.is_dir():
        pytest.skip(f"no pictures at {root}")
    dataset = ImageNetDataset(str(root), str(root / "val_list.txt"))
    dataset.select(np.arange(min(20, len(dataset))))
    pack(dataset, tmp_path / "out", shuffle=False)
    assert by_content(PackedDataset(str(tmp_path / "out"))) == by_content(dataset)
