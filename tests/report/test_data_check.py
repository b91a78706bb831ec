"""What ``ppcls data check`` finds, and what it writes."""

from __future__ import annotations

import errno
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import support
from PIL import Image

from ppcls.errors import DataError, EnvironmentProblem
from ppcls.report.check_page import SHOWN_GROUPS, check_page
from ppcls.report.data_check import check, read_groups
from ppcls.report.findings import KINDS, Limits
from ppcls.report.page import write
from ppcls.report.samples import Samples, Split, samples_of_folder, samples_of_lists

SHARED = support.ROOT.parent / "shared" / "data"
PHOTO = support.ROOT / "deploy" / "images" / "chelsea.jpg"


@pytest.fixture
def folder(tmp_path):
    """``train/`` and ``val/`` of two classes, six clean pictures in each."""
    root = tmp_path / "photos"
    number = 0
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for _ in range(6):
                save(picture(number), root / split / name / f"{number}.png")
                number += 1
    return root


def picture(number: int) -> np.ndarray:
    """Smooth patches: different pictures have different low frequencies."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC))


def save(image: np.ndarray, path: Path, **options) -> None:
    Image.fromarray(image).save(path, **options)


def findings(source, tmp_path, limits=None, workers=0):
    """(the findings of check.json by their kinds, the whole file)."""
    samples = source if isinstance(source, Samples) else samples_of_folder(source)
    found = check(samples, limits or Limits(), workers, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "check.json").read_text())
    assert found == any(report["findings"].values())
    assert list(report["findings"]) == list(KINDS)
    return report["findings"], report


def names(group) -> list[str]:
    return sorted(f"{p['split']}/{Path(p['path']).name}" for p in group["pictures"])


def only(found, *kinds):
    """The findings of these kinds; there are none of other kinds."""
    assert {kind for kind, groups in found.items() if groups} == set(kinds)
    return [found[kind] for kind in kinds]


def test_a_clean_folder_has_no_findings(folder, tmp_path):
    found, report = findings(folder, tmp_path)
    only(found)
    assert [(s["name"], s["pictures"]) for s in report["splits"]] == [("train", 12), ("val", 12)]
    assert report["splits"][0]["class_counts"] == [
        {"label": 0, "name": "cat", "pictures": 6},
        {"label": 1, "name": "dog", "pictures": 6},
    ]
    assert report["splits"][1]["sizes"]["median"] == [48, 48]


def test_pictures_that_cannot_be_read(folder, tmp_path):
    (folder / "train" / "cat" / "empty.jpg").touch()
    data = PHOTO.read_bytes()
    (folder / "val" / "dog" / "half.jpg").write_bytes(data[: len(data) // 2])
    [groups] = only(findings(folder, tmp_path, workers=2)[0], "unreadable")
    assert [names(group) for group in groups] == [["train/empty.jpg"], ["val/half.jpg"]]
    assert groups[0]["note"] == "the file is empty (0 bytes)"


def test_the_same_pixels_in_a_split_count_whatever_the_file(folder, tmp_path):
    save(picture(0), folder / "train" / "cat" / "copy.bmp")
    [groups] = only(findings(folder, tmp_path)[0], "duplicate")
    assert [names(group) for group in groups] == [["train/0.png", "train/copy.bmp"]]


def test_a_copy_in_another_size_is_nearly_the_same(folder, tmp_path):
    save(picture(1).repeat(3, axis=0).repeat(3, axis=1), folder / "train" / "cat" / "big.png")
    found, _ = findings(folder, tmp_path)
    [groups] = only(found, "near_duplicate")
    assert [names(group) for group in groups] == [["train/1.png", "train/big.png"]]
    only(findings(folder, tmp_path, Limits(near=None))[0])


@pytest.mark.parametrize(("quality", "what"), [(None, "the same pixels"), (60, "nearly the same")])
def test_a_picture_in_both_splits_leaks(folder, tmp_path, quality, what):
    options = {"quality": quality} if quality else {}
    name = "leak.jpg" if quality else "leak.png"
    save(picture(2), folder / "val" / "cat" / name, **options)
    [groups] = only(findings(folder, tmp_path)[0], "leakage")
    assert [names(group) for group in groups] == [["train/2.png", f"val/{name}"]]
    assert groups[0]["note"] == f"{what} in train and val"


def test_the_same_picture_with_two_labels_is_a_conflict(folder, tmp_path):
    save(picture(3), folder / "train" / "dog" / "cat.jpg", quality=70)
    conflict, near = only(findings(folder, tmp_path)[0], "conflict", "near_duplicate")
    assert [names(group) for group in conflict] == [["train/3.png", "train/cat.jpg"]]
    assert conflict[0]["note"] == "cat | dog"
    assert [names(group) for group in near] == [["train/3.png", "train/cat.jpg"]]


def test_blank_pictures_are_not_copies_of_each_other(folder, tmp_path):
    for level in range(0, 256, 51):
        save(np.full((40, 40, 3), level, np.uint8), folder / "train" / "dog" / f"{level}.png")
    [groups] = only(findings(folder, tmp_path)[0], "blank")
    assert len(groups) == 6


def test_sizes(folder, tmp_path):
    save(picture(90)[:23], folder / "train" / "cat" / "tiny.png")
    save(np.tile(picture(91), (2, 2, 1)), folder / "train" / "dog" / "huge.png")
    found, _ = findings(folder, tmp_path, Limits(max_pixels=96 * 96 - 1))
    tiny, huge = only(found, "tiny", "huge")
    assert (tiny[0]["note"], huge[0]["note"]) == ("48 x 23", "96 x 96")


def test_names_that_lie_and_files_that_nobody_reads(folder, tmp_path):
    (folder / "train/cat/0.png").rename(folder / "train/cat/0.jpg")
    (folder / "train" / "cat" / "new.avif").write_bytes(b"x")
    save(picture(80), folder / "train" / "outside.png")
    (folder / "train" / ".hidden").touch()
    (folder / "README.md").touch()
    wrong, left_out = only(findings(folder, tmp_path)[0], "wrong_extension", "left_out")
    assert [group["note"] for group in wrong] == ["PNG, named .jpg"]
    assert sorted(Path(group["note"]).name for group in left_out) == ["new.avif", "outside.png"]


def test_classes(folder, tmp_path):
    (folder / "val" / "emu").mkdir()
    for number in range(60, 80):
        save(picture(number), folder / "val" / "emu" / f"{number}.png")
    (folder / "train" / "fox").mkdir()
    [groups] = only(findings(folder, tmp_path, Limits(imbalance=3))[0], "classes")
    assert [group["note"] for group in groups] == [
        "train: no pictures of fox, emu",
        "val: no pictures of fox",
        "val: 20 pictures of emu, 6 of cat, 3.33 times fewer",
    ]


def test_a_folder_too_high_up_is_told(folder, tmp_path):
    [groups] = only(findings(folder / "train" / "cat", tmp_path)[0], "classes")
    assert "all pictures are of one class" in groups[0]["note"]


def test_lists_are_splits(folder, tmp_path):
    for split, paths in {
        "a": ["train/cat/0.png 0", "val/dog/18.png 1"],
        "b": ["train/cat/0.png 1"],
    }.items():
        (folder / f"{split}.txt").write_text("\n".join(paths) + "\n")
    (folder / "names.txt").write_text("0 cat\n1 dog\n")
    lists = [folder / "a.txt", folder / "b.txt"]
    samples = samples_of_lists(lists, None, None, str(folder / "names.txt"))
    leakage, conflict, _ = only(findings(samples, tmp_path)[0], "leakage", "conflict", "classes")
    assert names(leakage[0]) == ["a/0.png", "b/0.png"]
    assert conflict[0]["note"] == "cat | dog"


def test_a_label_beyond_all_counting_is_told(folder):
    (folder / "a.txt").write_text("train/cat/0.png 99999999999\n")
    with pytest.raises(DataError, match=r"a\.txt:1: .* below .* 1000000, received 99999999999"):
        samples_of_lists([folder / "a.txt"], None, None, None)


def test_a_page_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    page = tmp_path / "check.html"
    write(page, "before")

    def full(self, data):
        real(self, data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvironmentProblem, match=r"cannot write .*check\.html: No space left"):
        write(page, "after")
    assert [path.name for path in tmp_path.iterdir()] == ["check.html"]
    assert page.read_text() == "before"


def test_pixels_and_targets_of_several_classes(tmp_path):
    class Pixels:
        labels = np.float32([[1, 1, 0], [0, 1, 0], [1, 1, 0]])
        class_names = None

        def read(self, row):
            return picture([0, 1, 0][row])

        def path(self, row):
            return f"batch/{row}"

        describe = path

    source = Pixels()
    samples = Samples("pixels", [Split("train", source, np.arange(3), source.labels)], list("abc"))
    found, report = findings(samples, tmp_path)
    duplicate, classes = only(found, "duplicate", "classes")
    assert names(duplicate[0]) == ["train/0", "train/2"]
    assert duplicate[0]["pictures"][0]["label_names"] == ["a", "b"]
    assert classes[0]["note"] == "train: no pictures of c"
    assert report["splits"][0]["formats"] == {"pixels": 3}


def test_groups_are_read_back_for_making_lists(folder, tmp_path):
    save(picture(3), folder / "train" / "dog" / "again.png")
    findings(folder, tmp_path)
    groups = read_groups(tmp_path / "out" / "check.json")
    expected = [folder / "train" / "cat" / "3.png", folder / "train" / "dog" / "again.png"]
    assert groups == [[str(path) for path in expected]] * len(groups) != []
    for wrong in ("[]", "{", '{"findings": {}}'):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(DataError, match="has written"):
            read_groups(tmp_path / "wrong.json")


# The page -----------------------------------------------------------------------------------------

VOID = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """Tags, and whether they are closed in order."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        self.links += [value for name, value in attrs if name in ("href", "src")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_needs_nothing_else_and_is_not_steered_by_names(folder, tmp_path):
    evil = "<img src=x onerror=alert(1)>\u202e&amp;\"'.png"
    save(picture(0), folder / "train" / "cat" / evil)
    save(np.zeros((9, 9, 3), np.uint8), folder / "train" / "dog" / os.fsdecode(b"\xff\xfe.png"))
    (folder / "train" / "dog" / "broken\n.png").touch()
    findings(folder, tmp_path)
    html = (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "base"})
    assert {link.partition(":")[0] for link in page.links if link[0] != "#"} == {"data"}
    assert page.images and all(image["alt"] for image in page.images)
    assert "\u202e" not in html and "http" not in html.replace("http-equiv", "")
    assert any("<img src=x onerror=alert(1)>\\u202e&amp;" in text for text in page.texts)
    assert "width=device-width" in html and "prefers-color-scheme: dark" in html


def test_the_page_shows_some_and_says_how_many_more(tmp_path):
    folder = tmp_path / "many" / "class"
    folder.mkdir(parents=True)
    for number in range(SHOWN_GROUPS + 7):
        (folder / f"{number}.png").touch()
    findings(tmp_path / "many", tmp_path)
    html = (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    assert html.count("<figure>") == SHOWN_GROUPS
    assert "and 7 more, in check.json" in html


def test_thumbnails_are_of_what_can_be_read(folder, tmp_path):
    """A picture that killed a reader is not tried again, and one that has gone does no harm."""
    samples = samples_of_folder(folder)
    facts = np.zeros(len(samples), [("state", "u1")])
    assert "<img" not in check_page(samples, facts, [], [])


# Real data ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "flowers12").is_dir(), reason="flowers12 is not here")
def test_flowers_leak(tmp_path):
    """Photos that are in the data set twice: seen by eye, all 23 pairs and the 36 in one split."""
    found, _ = findings(SHARED / "flowers12", tmp_path, workers=2)
    leakage, duplicate, near = only(found, "leakage", "duplicate", "near_duplicate")
    assert (len(leakage), len(duplicate), len(near)) == (23, 1, 36)
    assert names(duplicate[0]) == ["train/image_0422.jpg", "train/image_0469.jpg"]
    assert all(len(group["pictures"]) == 2 for group in leakage + near)


@pytest.mark.skipif(not (SHARED / "sign-digits").is_dir(), reason="sign-digits is not here")
def test_hands_that_resemble_each_other_are_no_copies(tmp_path):
    lists = [SHARED / "sign-digits" / f"{split}_list.txt" for split in ("train", "val")]
    found, report = findings(samples_of_lists(lists, None, None, None), tmp_path, workers=2)
    assert sum(split["pictures"] for split in report["splits"]) == 2062
    [leakage] = only(found, "leakage")
    assert [names(group) for group in leakage] == [
        ["train_list/IMG_1262.JPG", "val_list/IMG_1171.JPG"]
    ]
