"""What ``Global.recompute`` saves and costs: memory and time of training steps, with and without.

python benchmark/recompute.py
python benchmark/recompute.py --model ConvNeXt_tiny --batch 32

Each case is a process of its own. Its memory is the most that it ever held, less what it held
before the first step (Paddle, the weights); the optimizer's state is part of both cases. The CPU
kernels are on, as in a run.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.machine import describe_machine, report

MODELS = ["DeiT_small_patch16_224", "SwinTransformer_tiny_patch4_window7_224", "ConvNeXt_tiny"]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", choices=["with", "without"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        sys.stdout.write("{} {}".format(*steps(options)))
        return
    sys.stdout.write(f"{describe_machine()}\nbatch {options.batch}, {options.size} pixels\n")
    for model in options.model:
        for case in ("without", "with"):
            figures = [in_new_process(options, model, case) for _ in range(options.repeats)]
            report(f"{model}, {case}", [memory for memory, _ in figures], "MiB")
            report("", [seconds for _, seconds in figures], "s/step")


def in_new_process(options: argparse.Namespace, model: str, case: str) -> tuple[float, float]:
    """Memory in MiB, and seconds of a step."""
    given = {"batch": options.batch, "size": options.size, "steps": options.steps, "case": case}
    arguments = [f"--{name}={value}" for name, value in given.items()]
    command = [sys.executable, __file__, "--model", model, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    memory, seconds = done.stdout.split()[-2:]
    return float(memory), float(seconds)


def steps(options: argparse.Namespace) -> tuple[float, float]:
    """Trains; memory in MiB, and seconds of a step."""
    import paddle

    import ppcls
    from ppcls.engine.recompute import use_recompute
    from ppcls.ops import accelerate

    net = ppcls.create_model(options.model[0])
    net.train()
    accelerate(net)
    if options.case == "with":
        use_recompute(net)
    optimizer = paddle.optimizer.Momentum(1e-4, parameters=net.parameters())
    images = paddle.randn([options.batch, 3, options.size, options.size])
    labels = paddle.arange(options.batch)
    before, begun = status("VmRSS"), time.perf_counter()
    for _ in range(options.steps):
        paddle.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
    return status("VmHWM") - before, (time.perf_counter() - begun) / options.steps


def status(field: str) -> float:
    """MiB of this process. Not getrusage: that begins at the memory of the parent."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(rf"{field}:\s+(\d+) kB", text)[0]) / 1024


if __name__ == "__main__":
    main()
