"""Lays out a folder of your own photos: lists of what to train on and what to test, and a run."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archives import BLOCK, LayoutError, progress, run_script, say, warn, written

if TYPE_CHECKING:
    from ppcls.data.lists import Lists

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "quick_start"
CONFIG = "photos.yaml"
FEW = 20
LABEL_MAP = "label_map.txt"
# What phones and cameras write, and this project does not read.
EXPORTED = (".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".jxl")
GUIDE = """what it takes
    photos/cat/001.jpg ...      photos/dog/001.jpg ...      a folder for each class

  or, if you have chosen the photos to test with yourself, photos/train/<class>/ and
  photos/val/<class>/.

what it writes beside them
    train_list.txt, val_list.txt    one in five photos of each class is kept for testing; copies of
                                    a photo (equal to the byte) are never parted
    label_map.txt                   the names of the classes
    photos.yaml                     a configuration to train with; its paths are those of the folder
                                    that this is called in, and results go to output/<PHOTOS>/

  Photos are neither changed nor moved. What is there is kept unless told --force.

examples
  python dataset/photos.py photos
  python dataset/photos.py photos --val 0.3 --from-scratch --force
"""


def copies(files: Iterable[Path]) -> list[list[Path]]:
    """Groups of files that are equal to the byte.

    Only files that share their size are read.
    """
    by_size = defaultdict(list)
    for file in files:
        by_size[file.stat().st_size].append(file)
    candidates = [file for same in by_size.values() if len(same) > 1 for file in same]
    by_digest = defaultdict(list)
    with progress("comparing", len(candidates), "photos") as bar:
        for file in candidates:
            by_digest[_digest(file)].append(file)
            bar.update()
    return [same for same in by_digest.values() if len(same) > 1]


def _digest(file: Path) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
    return digest.digest()


def drawn(root: Path, val: float, seed: int) -> tuple[Lists, list[list[Path]]]:
    """The lists, and the groups of equal photos."""
    from ppcls.data.lists import make_lists  # NumPy, OpenCV and Pillow, which take their time

    every = make_lists(root, val, seed=seed)
    files = [root / entry.path for entries in every.splits.values() for entry in entries]
    same = copies(files)
    together = [[str(file) for file in group] for group in same]
    return make_lists(root, val, seed=seed, together=together), same


def configuration(root: Path, class_num: int, base: str) -> str:
    """A configuration that trains on the lists of ``root``, as YAML."""
    import yaml

    here = Path.cwd()
    shown = root.relative_to(here) if root.is_relative_to(here) else root

    def reader(split: str) -> dict[str, Any]:
        lists = {"cls_label_path": str(shown / f"{split}_list.txt")}
        return {"dataset": {"name": "ImageNetDataset", "image_root": str(shown), **lists}}

    tree = {
        "_base_": os.path.relpath(CONFIGS / base, root),
        "Global": {"output_dir": f"output/{root.name or 'photos'}"},
        "Arch": {"class_num": class_num},
        "DataLoader": {"Train": reader("train"), "Eval": reader("val")},
        "Infer": {"PostProcess": {"class_id_map_file": str(shown / LABEL_MAP)}},
    }
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def run(arguments: argparse.Namespace) -> None:
    """Writes what is not there, and says what to type next."""
    from ppcls.data.lists import write_lists

    root = arguments.photos.resolve()
    if not root.is_dir():
        raise LayoutError(f"{arguments.photos} is no folder; --help shows the layout")
    if (root / "train_list.txt").exists() and not arguments.force:
        say(f"{root / 'train_list.txt'} is there and kept; --force draws anew")
        names = (root / LABEL_MAP).read_text(encoding="utf-8").splitlines()
        class_num = len(names)
    else:
        lists, same = drawn(root, arguments.val, arguments.seed)
        write_lists(lists, root, force=arguments.force)
        class_num = len(lists.class_names)
        report(lists, same)
        report_unread(root, lists)
    config = root / CONFIG
    if not config.exists() or arguments.force:
        base = "photos.yaml" if arguments.from_scratch else "photos_pretrained.yaml"
        written(config, configuration(root, class_num, base))
    shown = shlex.quote(str(arguments.photos / CONFIG))
    say(f"next:\n  ppcls data check {shown}\n  ppcls train -c {shown}")


def report(lists: Lists, same: list[list[Path]]) -> None:
    """Prints the counts, and warns of what spoils a training."""
    for split, entries in lists.splits.items():
        say(f"{split}: {len(entries)} photos of {len({e.label for e in entries})} classes")
    if same:
        count = sum(map(len, same))
        first = " and ".join(file.name for file in same[0][:2])
        say(f"{count} photos are copies of one another, such as {first}; they are kept together")
    entries = [entry for split in lists.splits.values() for entry in split]
    classes = {lists.root / entry.path: lists.class_names[entry.label] for entry in entries}
    for group in same:
        folders = sorted({classes[file] for file in group})
        if len(folders) > 1:
            warn(f"{group[0].name} is in several classes: {', '.join(folders)}")
    labels = [entry.label for entry in lists.splits["train"]]
    for label, name in enumerate(lists.class_names):
        if labels.count(label) < FEW:
            warn(f"class '{name}' has {labels.count(label)} photos to train on; 50 are a start")


def report_unread(root: Path, lists: Lists) -> None:
    """Warns of what lies beside the photos, and is in no list."""
    from ppcls.data.datasets import PICTURE_SUFFIXES
    from ppcls.report.samples import samples_of_folder

    found = [(s.name, Path(file)) for s in samples_of_folder(root).splits for file in s.left_out]
    files = [file for split, file in found if split in lists.splits or split == root.name]
    outside = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    foreign = [file for file in files if file.suffix.lower() not in PICTURE_SUFFIXES]
    foreign.sort(key=lambda file: file.suffix.lower() not in EXPORTED)
    if outside:
        warn(f"{_unread(outside)} (in no folder of a class)")
    if foreign:
        is_photo = foreign[0].suffix.lower() in EXPORTED
        warn(_unread(foreign) + " (let the phone export JPEG)" * is_photo)
    if (root / "train").is_dir():
        for name in ("valid", "validation"):
            if (root / name).is_dir():
                warn(f"{root / name} is not read: call it 'val' if you want to test with it")


def _unread(files: list[Path]) -> str:
    count = "1 file is" if len(files) == 1 else f"{len(files)} files are"
    return f"{count} not read, such as {files[0].name}"


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Write the lists and the configuration to train on your own photos.",
        epilog=GUIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="the folder of class folders")
    parser.add_argument(
        "--val", type=float, default=0.2, metavar="PART", help="kept for testing (default: 0.2)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another one draws other photos")
    parser.add_argument(
        "--from-scratch", action="store_true", help="a network that has seen nothing yet"
    )
    parser.add_argument("--force", action="store_true", help="write over what is there")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = parse_arguments(given)
    return run_script(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
