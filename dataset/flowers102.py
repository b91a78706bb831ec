"""Fetches Oxford Flowers-102 and writes its list files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from archives import (
    Archive,
    LayoutError,
    add_places,
    obtained,
    opened,
    progress,
    run_script,
    say,
    unpack,
    written,
)
from matfile import MatError, read_mat

SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
GUIDE = """where it comes from
  https://www.robots.ox.ac.uk/~vgg/data/flowers/102/, 8,189 photos of 102 flowers (Nilsback and
  Zisserman, "Automated Flower Classification over a Large Number of Classes", 2008). 345 MB:

    102flowers.tgz, imagelabels.mat, setid.mat

  An interrupted download or unpacking goes on where it broke off; the MD5 of each file is compared.
  Without a network, --archives names a folder that holds the three.

what this gives
    OUTPUT/jpg/image_00001.jpg ...
    OUTPUT/train_list.txt   1,020 pictures, ten of each class
    OUTPUT/val_list.txt     1,020, ten of each class
    OUTPUT/test_list.txt    6,149

  with lines such as "jpg/image_06765.jpg 0": the classes as published, counted from 0.

example
  python dataset/flowers102.py
"""
PICTURES = Archive("102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", f"{SITE}/102flowers.tgz")
LABELS = Archive("imagelabels.mat", "e0620be6f572b9609742df49c70aed4d", f"{SITE}/imagelabels.mat")
SPLITS = Archive("setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c", f"{SITE}/setid.mat")
SPLIT_NAMES = {"train": "trnid", "val": "valid", "test": "tstid"}


def read_variables(path: Path, *names: str) -> list[np.ndarray]:
    """Some variables of a MAT-file, each int64 [n].

    Raises:
        LayoutError: they are not there.
    """
    try:
        variables = read_mat(path.read_bytes(), str(path))
        return [np.asarray(variables[name]).reshape(-1).astype(np.int64) for name in names]
    except (MatError, KeyError, ValueError, TypeError) as error:
        raise LayoutError(f"{path}: expected the variables {', '.join(names)}: {error}") from error


def unpack_pictures(path: Path, folder: Path, count: int) -> None:
    """``folder``/image_00001.jpg and so on; pictures that are there stay."""
    with opened(path, str(path)) as archive, progress("unpacking", count, "pictures") as bar:
        folder.mkdir(parents=True, exist_ok=True)

        def place(name: str) -> Path | None:
            return folder / name if name.endswith(".jpg") else None

        new = unpack(archive, archive, place, lambda size: bar.update())
    say(f"{new} pictures unpacked to {folder}")


def write_lists(output: Path, labels: np.ndarray, splits: list[np.ndarray]) -> None:
    """The list files; every picture has to be there.

    Args:
        labels: from 1, in the order of the pictures' numbers.
        splits: numbers of the pictures of each split, from 1.
    """
    for split, numbers in zip(SPLIT_NAMES, splits, strict=True):
        if numbers.min(initial=1) < 1 or numbers.max(initial=0) > len(labels):
            raise LayoutError(f"{SPLITS.name}: expected numbers from 1 to {len(labels)}")
        lines = []
        for number in numbers.tolist():
            name = f"jpg/image_{number:05d}.jpg"
            if not (output / name).is_file():
                raise LayoutError(f"{output / name} is missing; remove {output / 'jpg'} and repeat")
            lines.append(f"{name} {labels[number - 1] - 1}\n")
        path = output / f"{split}_list.txt"
        written(path, "".join(lines))
        say(f"{split}: {len(lines)} pictures of {len(set(labels[numbers - 1]))} classes, {path}")


def run(arguments: argparse.Namespace) -> None:
    """Fetches, checks and unpacks; keeps what is there."""
    output = arguments.output or Path("dataset/flowers102")
    if arguments.archives and not arguments.archives.is_dir():
        raise LayoutError(f"{arguments.archives} is no folder")
    paths = [obtained(a, arguments.archives, output) for a in (LABELS, SPLITS, PICTURES)]
    [labels] = read_variables(paths[0], "labels")
    splits = read_variables(paths[1], *SPLIT_NAMES.values())
    unpack_pictures(paths[2], output / "jpg", len(labels))
    write_lists(output, labels, splits)


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Fetch Oxford Flowers-102 and write the list files of train, val and test.",
        epilog=GUIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_places(parser, "dataset/flowers102")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = parse_arguments(given)
    return run_script(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
