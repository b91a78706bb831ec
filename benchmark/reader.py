"""Images per second of the reader: files on disk -> batches of 64 ready for the network.

Training transform: decode, random crop to 224, flip, normalise. The readers are started one after
the other, read an epoch to warm up, and then one each in turn, so that what else the machine does
hits all of them alike. The
peers: what PaddleClas's reader does, step by step; timm's loader, if ``--timm-python`` names a
Python that has it (see README.md); and the JPEG decoder alone, which no reader that decodes whole
pictures can beat.

python benchmark/reader.py                               # 250 generated JPEGs of 500x375
python benchmark/reader.py --pictures FOLDER --timm-python torchenv/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.machine import describe_machine, report

PEERS = Path(__file__).resolve().parent / "peers"


class Reader:
    """A process that reads an epoch whenever it is told to."""

    def __init__(self, name: str, python: str, script: str, arguments: list[str]):
        self.name = name
        self.answers: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [python, str(PEERS / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def read(self) -> None:
        """One epoch."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("a reader has no pipes")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        while line and not line.startswith("{"):  # what libraries print
            line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended; its message stands above")
        self.answers.append(json.loads(line))

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def rates(self) -> list[float]:
        """Pictures a second in each epoch but the first, which warms up."""
        return [answer["rate"] for answer in self.answers[1:]]


def main() -> None:
    """Measures all readers in turn and prints their rates and ratios."""
    options = _parse()
    sys.stdout.write(f"{describe_machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        root = options.pictures or _generate(Path(folder))
        entries = _write_list(root, Path(folder) / "list.txt", options.samples)
        sys.stdout.write(f"{entries}; {options.workers} workers, {options.epochs} epochs each\n")
        readers = _start(root, Path(folder) / "list.txt", options)
        for _ in range(options.epochs):
            for reader in readers:
                reader.read()
        for reader in readers:
            reader.close()
    _print(readers)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, help="a folder of JPEGs; generated if absent")
    parser.add_argument("--samples", type=int, default=2000, help="entries an epoch")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5, help="counted, after one to warm up")
    parser.add_argument("--jitter", action="store_true", help="change colours, too")
    parser.add_argument("--backend", choices=("cv2", "pil"), default="cv2", help="ours resizes by")
    parser.add_argument("--timm-python", metavar="PYTHON", help="a Python with torch and timm")
    return parser.parse_args()


def _start(root: Path, list_file: Path, options: argparse.Namespace) -> list[Reader]:
    common = [str(root), str(list_file), "--workers", str(options.workers)]
    common += ["--jitter"] * options.jitter
    own = [*common, "--backend", options.backend]
    python = sys.executable
    table = [
        ("ppcls", python, "ppcls_reader.py", own),
        ("ppcls, decode: exact", python, "ppcls_reader.py", [*own, "--decode=exact"]),
        ("PaddleClas's steps (cv2)", python, "paddleclas_reader.py", common),
        ("the decoder alone", python, "decoder_alone.py", common),
    ]
    if options.timm_python:
        table.append(("timm (PIL, bicubic)", options.timm_python, "timm_reader.py", common))
    readers = []
    for row in table:
        readers.append(Reader(*row))
        readers[-1].read()
    return readers


def _print(readers: list[Reader]) -> None:
    medians = [report(reader.name, reader.rates()) for reader in readers]
    for reader, median in zip(readers[1:], medians[1:], strict=True):
        # Epoch by epoch: the machine's other work changes from one to the next.
        pairs = zip(readers[0].rates(), reader.rates(), strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        sys.stdout.write(
            f"ppcls / {reader.name}: {medians[0] / median:.2f} (medians),"
            f" {statistics.median(ratios):.2f} (median of {len(ratios)} epochs' ratios)\n"
        )
    for reader in readers:
        cost = statistics.median(answer["processor_ms"] for answer in reader.answers[1:])
        sys.stdout.write(f"{reader.name}: {cost:.2f} ms of processor time a picture\n")
    own = readers[0].answers
    sys.stdout.write(f"first batch of ppcls {own[0]['first_batch']:.2f} s after its imports\n")
    for number, answer in enumerate(own):
        sizes = ", ".join(f"{size:.1f}" for size in answer["workers_mib"])
        sys.stdout.write(f"epoch {number}: its workers hold {sizes} MiB of their own\n")


def _write_list(root: Path, path: Path, samples: int) -> str:
    names = sorted(p.name for p in root.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    lines = [f"{names[i % len(names)]} {i % 10}\n" for i in range(samples)]
    path.write_text("".join(lines), encoding="utf-8")
    size = sum((root / name).stat().st_size for name in names) / len(names) / 1e3
    return f"{samples} entries over {len(names)} JPEGs of {size:.0f} kB on average"


def _generate(folder: Path) -> Path:
    """250 smooth random JPEGs of 500x375, about as large as photographs."""
    import cv2

    root = folder / "pictures"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(250):
        coarse = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / f"{i:03}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 96])
    return root


if __name__ == "__main__":
    main()
