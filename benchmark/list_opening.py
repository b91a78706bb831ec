"""Seconds and peak memory to open a list of pictures as long as ImageNet's, each in a new process.

The files that the list names are made, empty, as their folders are looked at. Memory is that of the
whole process, with Python, NumPy and OpenCV. The peer in the same run opens the list as PaddleClas
does: lists of Python objects, and one question to the system for each file.

python benchmark/list_opening.py                         # 1,281,167 pictures in 1,000 folders
python benchmark/list_opening.py --lines 100000 --runs 3
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.machine import describe_machine, report

ROOT = Path(__file__).resolve().parents[1]
FIRST_LABEL = 1440764  # ImageNet's folders are numbers of WordNet

MEASURE = """
import sys, time
{imports}
start = time.perf_counter()
{call}
seconds = time.perf_counter() - start
if "paddle" in sys.modules:
    raise SystemExit("paddle was imported: the memory would be Paddle's")
# Not getrusage: that begins at the memory of the process which started this one.
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(seconds, int(peak) / 1024)
"""
OWN_IMPORTS = "from ppcls.data.datasets import ImageNetDataset"
OWN_CALL = "data = ImageNetDataset(sys.argv[1], sys.argv[2], class_num=1000, check_files={check})"
PEER_IMPORTS = "import os, numpy, cv2"
PEER_CALL = """
paths, labels = [], []
for line in open(sys.argv[2], encoding="utf-8"):
    path, label = line.split()
    paths.append(os.path.join(sys.argv[1], path))
    labels.append(numpy.int64(label))
    if not os.path.exists(paths[-1]):
        raise SystemExit(paths[-1])
"""


def main() -> None:
    """Makes the list, measures in turn, and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=1_281_167)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--place", type=Path, help="folder for the temporary files")
    options = parser.parse_args()
    sys.stdout.write(f"{describe_machine()}\n")
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        root = Path(folder)
        make_list(root, options.lines, options.folders)
        own = [OWN_CALL.format(check=check) for check in (True, False)]
        cases = [
            ("ppcls, folders listed", OWN_IMPORTS, own[0], "sorted.txt"),
            ("ppcls, folders listed, shuffled list", OWN_IMPORTS, own[0], "shuffled.txt"),
            ("ppcls, the list alone", OWN_IMPORTS, own[1], "sorted.txt"),
            ("Python lists, one question a file", PEER_IMPORTS, PEER_CALL, "sorted.txt"),
        ]
        for name, imports, call, list_name in cases:
            code = MEASURE.format(imports=imports, call=call)
            figures = [measure(code, root, list_name) for _ in range(options.runs)]
            report(name, [seconds for seconds, _ in figures], "s")
            report("", [memory for _, memory in figures], "MiB")


def make_list(root: Path, lines: int, folders: int) -> None:
    """Empty files ``train/n01440764/n01440764_10.JPEG`` and two lists of them."""
    entries = []
    for label in range(folders):
        name = f"n{FIRST_LABEL + 13977 * label:08}"
        (root / "train" / name).mkdir(parents=True)
        for number in range(label, lines, folders):
            path = f"train/{name}/{name}_{number // folders * 17}.JPEG"
            (root / path).touch()
            entries.append(f"{path} {label}\n")
    (root / "sorted.txt").write_text("".join(entries), encoding="utf-8")
    random.Random(0).shuffle(entries)
    (root / "shuffled.txt").write_text("".join(entries), encoding="utf-8")


def measure(code: str, root: Path, list_name: str) -> tuple[float, float]:
    """Seconds and peak MiB of a new process."""
    command = [sys.executable, "-c", code, str(root), str(root / list_name)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


if __name__ == "__main__":
    main()
