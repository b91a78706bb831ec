"""Seconds from the command to the first batch: `tools/train.py` until its first log line of a step.

python dataset/quickstart.py; python benchmark/startup.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.machine import describe_machine, report

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/quick_start/MobileNeXt_mnist.yaml")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    sys.stdout.write(f"{describe_machine()}\n")
    seconds = [first_batch(options.config) for _ in range(options.runs)]
    report("from command to the end of the first step", seconds, "s")


def first_batch(config: str) -> float:
    """Seconds until the line of the first step, whose computation is included."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "tools/train.py", "-c", config]
        command += ["-o", f"Global.output_dir={folder}"]
        start = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            if process.stdout is None:
                raise RuntimeError("the command has no output to read")
            for line in process.stdout:
                if "[Iter: 0/" in line:
                    seconds = time.perf_counter() - start
                    process.kill()
                    return seconds
    raise SystemExit(f"{config}: the command ended before its first step")


if __name__ == "__main__":
    main()
