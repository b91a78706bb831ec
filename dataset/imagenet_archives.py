"""Unpacks ImageNet-1k from the archives as they are published, and writes its list files."""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
from pathlib import Path

import imagenet
from archives import (
    Archive,
    LayoutError,
    is_there,
    need_space,
    obtained,
    opened,
    progress,
    run_script,
    say,
    unpack,
)
from matfile import MatError, read_mat

GUIDE = """where the archives come from
  https://image-net.org/download-images: free for research, after registration. Three files, from
  "Images" and "Development kit (Task 1 & 2)" of ILSVRC 2012:

    ILSVRC2012_img_train.tar        138 GB
    ILSVRC2012_img_val.tar          6.3 GB
    ILSVRC2012_devkit_t12.tar.gz    2.6 MB   the labels of val

what this gives
    OUTPUT/train/n01440764/n01440764_10026.JPEG ...   1,281,167 in 1,000 folders
    OUTPUT/val/n01440764/ILSVRC2012_val_00000293.JPEG ...      50,000 in 1,000 folders
    OUTPUT/train_list.txt, OUTPUT/val_list.txt

  The MD5 of each archive is compared first (a few minutes, once). A run that was interrupted goes
  on with the same command: no class or picture is unpacked twice, and none is left half written.
  The archives stay; 145 GB are needed beside them.

example
  python dataset/imagenet_archives.py downloads --output dataset/ILSVRC2012
"""
TRAIN = Archive("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e")
VAL = Archive("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622")
DEVKIT = Archive("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf")
META, TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
CLASS_ARCHIVE = re.compile(r"(n\d{8})\.tar")
VAL_PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def unpack_train(path: Path, folder: Path) -> None:
    """``folder``/<wnid>/ from the archive of archives; a class gets its name when it is whole."""
    with opened(path, str(path)) as outer:
        classes = [m for m in outer.getmembers() if CLASS_ARCHIVE.fullmatch(Path(m.name).name)]
        if not classes:
            raise LayoutError(f"{path} holds no archives of classes, such as n01440764.tar")
        todo = [m for m in classes if not (folder / Path(m.name).stem).is_dir()]
        need_space(folder, sum(m.size for m in todo))
        with progress("train", sum(m.size for m in todo)) as bar:
            for member in todo:
                _unpack_class(outer, member, folder)
                bar.update(member.size)
    say(f"train: {len(todo)} classes unpacked, {len(classes) - len(todo)} were there")


def _unpack_class(outer: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    wnid = Path(member.name).stem
    scratch = folder / f".{wnid}.part"
    scratch.mkdir(parents=True, exist_ok=True)
    content = outer.extractfile(member)
    if content is None:
        raise LayoutError(f"{member.name} of the archive is no file")
    with content, opened(content, member.name) as inner:
        unpack(inner, inner, lambda name: scratch / name)
    scratch.replace(folder / wnid)


def unpack_val(path: Path, folder: Path, wnids: list[str]) -> None:
    """``folder``/<wnid>/ from the flat archive.

    Args:
        wnids: of the pictures, in the order of their numbers.
    """
    with opened(path, str(path)) as archive:
        members = archive.getmembers()
        numbers = [VAL_PICTURE.fullmatch(Path(m.name).name) for m in members if m.isfile()]
        count = sum(number is not None for number in numbers)
        if count != len(wnids):
            raise LayoutError(f"{path} holds {count} pictures, and there are {len(wnids)} labels")
        for wnid in set(wnids):
            (folder / wnid).mkdir(parents=True, exist_ok=True)

        def place(name: str) -> Path | None:
            number = VAL_PICTURE.fullmatch(name)
            return folder / wnids[int(number[1]) - 1] / name if number else None

        placed = [(place(Path(m.name).name), m.size) for m in members if m.isfile()]
        need_space(folder, sum(s for p, s in placed if p is not None and not is_there(p, s)))
        with progress("val", len(members), "pictures") as bar:
            written = unpack(archive, members, place, lambda size: bar.update())
    say(f"val: {written} pictures unpacked, {count - written} were there")


def val_wnids(path: Path) -> list[str]:
    """The classes of val/ in the order of the pictures' numbers, from the development kit.

    Its labels count the classes from 1 in an order of their own, which ``meta.mat`` gives.
    """
    found: dict[str, bytes] = {}
    with opened(path, str(path)) as archive:
        for member in archive:
            name = Path(member.name).name
            content = archive.extractfile(member) if name in (META, TRUTH) else None
            if content is not None:
                found[name] = content.read()
    for name in (META, TRUTH):
        if name not in found:
            raise LayoutError(f"{path} holds no {name}")
    try:
        synsets = read_mat(found[META], f"{path}/{META}")["synsets"]
        wnid_of = {
            int(s["ILSVRC2012_ID"].item()): str(s["WNID"])
            for s in synsets
            if s["num_children"].item() == 0
        }
        wnids = [wnid_of[int(line)] for line in found[TRUTH].split()]
    except (MatError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise LayoutError(f"{path}: its labels cannot be read: {error}") from error
    expected = set(imagenet.read_lines(imagenet.WNIDS_FILE))
    if set(wnid_of.values()) != expected:
        raise LayoutError(f"{path}: its classes are not the 1000 of ImageNet-1k")
    return wnids


def run(arguments: argparse.Namespace) -> None:
    """Checks, unpacks, and writes the lists."""
    output = arguments.output
    paths = [obtained(archive, arguments.archives, output) for archive in (TRAIN, VAL, DEVKIT)]
    wnids = val_wnids(paths[2])
    unpack_train(paths[0], output / "train")
    unpack_val(paths[1], output / "val", wnids)
    imagenet.run(argparse.Namespace(root=output, val_labels=None, classes=1000, force=False))


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Unpack ImageNet-1k from its archives and write train_list.txt, val_list.txt.",
        epilog=GUIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "archives", type=Path, metavar="FOLDER", help="the folder that holds the three archives"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("dataset/ILSVRC2012"),
        help="folder to write (default: %(default)s)",
    )
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = parse_arguments(given)
    return run_script(lambda: run(arguments), imagenet.LayoutError)


if __name__ == "__main__":
    sys.exit(main())
