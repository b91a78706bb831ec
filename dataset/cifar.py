"""Fetches and unpacks CIFAR-10 or CIFAR-100, in their binary version."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from archives import (
    Archive,
    LayoutError,
    add_places,
    is_there,
    obtained,
    opened,
    progress,
    run_script,
    say,
    unpack,
)

SITE = "https://www.cs.toronto.edu/~kriz"
GUIDE = """where it comes from
  https://www.cs.toronto.edu/~kriz/cifar.html, 60,000 colour pictures of 32 x 32 pixels in 10 or 100
  classes (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009). 170 MB.

  An interrupted download goes on where it broke off; the archive's MD5 is compared. Without a
  network, --archives names the archive, or the folder that holds it.

examples
  python dataset/cifar.py cifar10
  python dataset/cifar.py cifar100 --archives downloads/cifar-100-binary.tar.gz
"""


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets.

    Attributes:
        dataset: the class that reads it.
        files: names and sizes of what is in the archive's folder, and needed.
    """

    archive: Archive
    folder: str
    dataset: str
    files: dict[str, int]


# A picture is a byte for each label and 3 x 32 x 32 for red, green and blue.
BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
CIFARS = {
    "cifar10": Cifar(
        Archive(
            "cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            f"{SITE}/cifar-10-binary.tar.gz",
        ),
        "cifar-10-batches-bin",
        "Cifar10",
        dict.fromkeys(BATCHES, 10_000 * 3073),
    ),
    "cifar100": Cifar(
        Archive(
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
            f"{SITE}/cifar-100-binary.tar.gz",
        ),
        "cifar-100-binary",
        "Cifar100",
        {"train.bin": 50_000 * 3074, "test.bin": 10_000 * 3074},
    ),
}


def run(arguments: argparse.Namespace) -> None:
    """Fetches, checks and unpacks; keeps what is there."""
    cifar = CIFARS[arguments.name]
    output = arguments.output or Path("dataset") / arguments.name
    folder = output / cifar.folder
    if not _missing(cifar, folder):
        say(f"{folder} is there")
    else:
        path = obtained(cifar.archive, arguments.archives, output)
        folder.mkdir(parents=True, exist_ok=True)
        total = sum(cifar.files.values())
        with opened(path, str(path)) as archive, progress("unpacking", total) as bar:
            unpack(archive, archive, lambda name: folder / name, bar.update)
        if missing := _missing(cifar, folder):
            raise LayoutError(f"{path} holds no whole {missing[0]}")
        say(f"unpacked to {folder}")
    say(f"in a configuration: dataset: {{name: {cifar.dataset}, data_file: {folder}, mode: train}}")


def _missing(cifar: Cifar, folder: Path) -> list[str]:
    return [name for name, size in cifar.files.items() if not is_there(folder / name, size)]


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Fetch and unpack CIFAR-10 or CIFAR-100.",
        epilog=GUIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=sorted(CIFARS))
    add_places(parser, "dataset/cifar10 or dataset/cifar100")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    arguments = parse_arguments(given)
    return run_script(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
