"""The proof of fine-tuning: ``ppcls finetune`` on 12 species of flowers, as a user types it.

python benchmark/flowers12.py --data FOLDER --weights MobileNetV2_imagenet.pdparams

Prints the command, the seed, top-1 on the 240 photos of test_list.txt, and the time of the whole
command. 23 of these photos look like one of train_list.txt (the same motif, seconds apart, or the
same photo cut otherwise), so the figure without them stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.machine import describe_machine

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


def main() -> None:
    """Runs the command once for each seed and prints what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SHARED / "flowers12", metavar="FOLDER")
    parser.add_argument(
        "--weights",
        type=Path,
        default=SHARED / "weights" / "MobileNetV2_imagenet.pdparams",
        metavar="FILE",
        help="of MobileNetV2, trained on ImageNet-1k",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="instead of the command's own choice")
    options = parser.parse_args()
    sys.stdout.write(f"{describe_machine()}\n")
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            run(options, seed, Path(folder) / "flowers12")


def run(options: argparse.Namespace, seed: int, out: Path) -> None:
    """One run of the command, in a process of its own."""
    arguments = ["finetune", "--data", str(options.data), "--model", "MobileNetV2"]
    arguments += ["--pretrained", str(options.weights), "--seed", str(seed), "--yes"]
    arguments += ["--epochs", str(options.epochs)] if options.epochs else []
    sys.stdout.write(f"\nppcls {shlex.join(arguments)}\n")
    sys.stdout.flush()
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "ppcls.cli", *arguments, "--out", str(out)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    seconds = time.perf_counter() - begun
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    count, alike = found["photos"], found["lookalikes"]
    rest = found["right_without_lookalikes"]
    sys.stdout.write(
        f"seed {seed}, {found['epochs']} epochs: top-1 {found['top1']:.4f} ({found['right']} of "
        f"{count}); without the {alike} photos that look like one to learn from "
        f"{found['top1_without_lookalikes']:.4f} ({rest} of {count - alike}); "
        f"{seconds:.0f} s for the whole command\n"
    )


if __name__ == "__main__":
    main()
