"""Images per second of a training step, or of inference, beside plain Paddle and PyTorch.

A training step is forward, cross entropy, backward, Momentum with weight decay, on random images
and labels. Each figure comes from a fresh process that measures one contender of one case (the
median of its steps); the contenders take turns, and ratios are taken within a turn, so that a
noisy hour hits all alike.

    stock        the network as plain Paddle layers, run as Paddle runs them by default
    ppcls        the same network with what the engine puts into it on a CPU
    torch        PyTorch, channels-last, all cores
    torch tuned  the same, with glibc told to keep freed memory, as ppcls tells it

python benchmark/train_step.py                           # without PyTorch
python benchmark/train_step.py --peer-python torchenv/bin/python        # benchmark/README.md
python benchmark/train_step.py --models MobileNeXt_x1_0 --repeats 3 --skip-stock
python benchmark/train_step.py --mode eval --json figures.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Nothing here may import Paddle before a contender is chosen: it changes the environment
# (OMP_NUM_THREADS), which the processes that are started would inherit.
from benchmark.machine import describe_machine

PEER = Path(__file__).parent / "peers" / "torch_step.py"
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
CONTENDERS = ("stock", "ppcls", "torch", "torch tuned")
RATIOS = (("ppcls", "stock"), ("ppcls", "torch"), ("ppcls", "torch tuned"))
WARM_UP = 2  # steps that are not counted
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """A network, the images it gets, and where each contender takes it from.

    ``own`` and ``stock`` are ``ppcls:NAME`` or ``paddle:NAME`` (of ``paddle.vision.models``);
    ``stock`` is the same as ``own`` if not given. ``torch`` is what ``peers/torch_step.py`` takes.
    """

    name: str
    batch: int
    size: int
    own: str
    torch: str
    stock: str = ""
    is_target: bool = False

    def __str__(self) -> str:
        return f"{self.name}, {self.batch} of {self.size} px"


CASES = (
    Case("MobileNeXt_x1_0", 32, 224, "ppcls:MobileNeXt_x1_0", "mobilenext:1.0", is_target=True),
    Case("MobileNetV2", 32, 224, "paddle:mobilenet_v2", "torchvision:mobilenet_v2", is_target=True),
    Case("MobileNetV3", 32, 224, "paddle:mobilenet_v3_large", "torchvision:mobilenet_v3_large"),
    Case(
        "MobileNetV3_large_x1_0_paper",  # the published one has other widths than torchvision's
        32,
        224,
        "ppcls:MobileNetV3_large_x1_0_paper",
        "torchvision:mobilenet_v3_large",
    ),
    Case("MobileNetV1", 32, 224, "paddle:mobilenet_v1", "timm:mobilenetv1_100"),
    Case("ShuffleNetV2", 32, 224, "paddle:shufflenet_v2_x1_0", "torchvision:shufflenet_v2_x1_0"),
    Case("EfficientNetB0", 32, 224, "ppcls:EfficientNetB0", "timm:efficientnet_b0"),
    Case("MobileNeXt_x0_35", 64, 32, "ppcls:MobileNeXt_x0_35", "mobilenext:0.35"),
)


def main() -> None:
    """Measures all cases in turn and prints the table."""
    options = parse_options()
    cases = [case for case in CASES if not options.models or case.name in options.models]
    if options.measure:
        (case,) = cases
        figures = measure(options.measure, case, options.mode, options.steps)
        sys.stdout.write(f"{json.dumps(figures)}\n")
        return
    sys.stdout.write(f"{describe_machine()}\n")
    warn_if_busy()
    contenders = list(CONTENDERS)
    if options.skip_stock:
        contenders.remove("stock")
    if options.peer_python is None:
        contenders = [name for name in contenders if not name.startswith("torch")]
        sys.stdout.write("PyTorch is left out: --peer-python names no interpreter that has it\n")
    results: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        turns = [take_turns(case, contenders, turn, options) for turn in range(options.repeats)]
        results[str(case)] = turns
        check_same_network(case, turns)
        if options.json:
            write_json(options, cases, results)
    print_table(cases, contenders, results, options)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [case.name for case in CASES]
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has PyTorch")
    parser.add_argument("--models", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--mode", choices=("train", "eval"), default="train")
    parser.add_argument("--repeats", type=int, default=5, help="processes of each contender")
    parser.add_argument(
        "--steps", type=int, default=5, help=f"counted steps of a process, after {WARM_UP}"
    )
    parser.add_argument("--skip-stock", action="store_true", help="leave plain Paddle out")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--measure", choices=CONTENDERS[:2], help=argparse.SUPPRESS)
    return parser.parse_args()


def warn_if_busy() -> None:
    """Says so if other work ran on this machine in the last minute.

    Threads that wait for one another in a loop, as PyTorch's do, then come out several times
    slower than they are.
    """
    load = os.getloadavg()[0]
    if load > 0.5:
        sys.stdout.write(f"the machine was not idle (load {load:.1f}): these figures are no good\n")


def take_turns(
    case: Case, contenders: Sequence[str], turn: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One process of each contender, one after the other: what each printed."""
    figures = {}
    for name in contenders:
        figures[name] = run(name, case, options)
        process = f"{case}, {name}, {turn + 1}/{options.repeats}"
        sys.stderr.write(f"{process}: {rate(case, figures[name]):.2f} img/s\n")
    return figures


def run(contender: str, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Measures one contender of one case in a process of its own."""
    environment = dict(os.environ)
    shared = ["--mode", options.mode, "--steps", str(options.steps)]
    if contender.startswith("torch"):
        command = [str(options.peer_python), str(PEER), case.torch]
        command += ["--batch", str(case.batch), "--size", str(case.size), *shared]
        if contender == "torch tuned":
            environment |= MALLOC
    else:
        command = [sys.executable, __file__, "--measure", contender, "--models", case.name, *shared]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(f"{case}, {contender}: the process failed\n{finished.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return figures


def check_same_network(case: Case, turns: Sequence[dict[str, Any]]) -> None:
    """Raises SystemExit unless all contenders trained the same number of parameters."""
    counts = {name: figures["parameters"] for turn in turns for name, figures in turn.items()}
    if len(set(counts.values())) != 1:
        raise SystemExit(f"{case}: the networks are not the same, parameters: {counts}")


# What one process does.


def measure(contender: str, case: Case, mode: str, steps: int) -> dict[str, Any]:
    """Seconds of each counted step of ``stock`` or ``ppcls``, and the memory it took."""
    import paddle

    source = case.own if contender == "ppcls" else case.stock or case.own
    workload = Workload(source, case.batch, case.size, accelerated=contender == "ppcls")
    do = workload.train_step if mode == "train" else workload.infer
    if mode == "eval":
        workload.net.eval()
    seconds = []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": seconds[WARM_UP:],
        "peak_rss": peak_rss(),
        "parameters": sum(p.size for p in workload.net.parameters() if not p.stop_gradient),
        "convolutions_by_kernels": workload.convolutions,
        "versions": f"paddlepaddle {paddle.__version__}",
    }


class Workload:
    """A network in training mode, its optimizer, a batch.

    Args:
        source: as in a ``Case``.
        batch: images.
        size: their height and width.
        accelerated: have the CPU kernels do the work, as the engine has them.

    Attributes:
        net: the network.
        convolutions: how many of its convolutions the CPU kernels do.
    """

    def __init__(self, source: str, batch: int, size: int, accelerated: bool):
        import paddle

        paddle.set_device("cpu")
        paddle.seed(0)
        self.net = build(source)
        self.net.train()
        self.images = paddle.randn([batch, 3, size, size])
        self.labels = paddle.randint(0, 1000, [batch])
        self.convolutions = 0
        if not accelerated:
            self.optimizer: Any = paddle.optimizer.Momentum(
                0.01, momentum=0.9, parameters=self.net.parameters(), weight_decay=1e-4
            )
            return

        from ppcls import ops
        from ppcls.optim.optimizers import Momentum
        from ppcls.registry import SCHEDULES

        self.convolutions = ops.accelerate(self.net)
        ops.keep_memory()
        run = {"epochs": 1, "steps_per_epoch": 1}
        schedule = SCHEDULES.build("Constant", {"learning_rate": 0.01}, **run)
        self.optimizer = Momentum(schedule, momentum=0.9, weight_decay=1e-4, network=self.net)
        self.optimizer.use_kernels()
        # The engine's batches come from the reader's pixels in this layout.
        dense = self.images.transpose([0, 2, 3, 1]).contiguous()
        self.images = dense.transpose([0, 3, 1, 2])

    def train_step(self) -> None:
        """Forward, loss, backward, optimizer."""
        loss = self.loss()
        loss.backward()
        self.update()
        loss.item()  # the end of the step, also where the device works behind the host

    def loss(self) -> Any:
        """The loss of the batch."""
        import paddle.nn.functional as F

        return F.cross_entropy(self.net(self.images), self.labels)

    def update(self) -> None:
        """What follows the backward pass."""
        self.optimizer.step()
        self.optimizer.clear_grad()

    def infer(self) -> None:
        """Forward alone, in evaluation mode."""
        import paddle

        with paddle.no_grad():
            self.net(self.images).sum().item()


def build(source: str) -> Any:
    """A network from ``ppcls:NAME`` or ``paddle:NAME``."""
    library, _, name = source.partition(":")
    if library == "ppcls":
        import ppcls

        return ppcls.create_model(name)
    import paddle

    return getattr(paddle.vision.models, name)()


def peak_rss() -> int:
    """The most memory that this process held at any time, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# From figures to the table.


def rate(case: Case, figures: dict[str, Any]) -> float:
    """Images per second of one process: by the median of its steps."""
    return case.batch / statistics.median(figures["seconds"])


def rates(case: Case, contender: str, turns: Sequence[dict[str, Any]]) -> list[float]:
    """Images per second of each process of a contender."""
    return [rate(case, turn[contender]) for turn in turns]


def ratios(case: Case, pair: tuple[str, str], turns: Sequence[dict[str, Any]]) -> list[float]:
    """How many times as fast the first contender was as the second, turn by turn."""
    first, second = (rates(case, name, turns) for name in pair)
    return [a / b for a, b in zip(first, second, strict=True)]


def print_table(
    cases: Sequence[Case],
    contenders: Sequence[str],
    results: dict[str, list[dict[str, Any]]],
    options: argparse.Namespace,
) -> None:
    """Medians and ranges over the turns, then the means over cases."""
    kind = "training" if options.mode == "train" else "inference"
    amount = f"median (range) of {options.repeats} processes of {options.steps} steps"
    sys.stdout.write(f"{kind}: images per second and their ratios, {amount}\n")
    pairs = [pair for pair in RATIOS if set(pair) <= set(contenders)]
    weighed = [name for name in ("ppcls", "stock") if name in contenders]
    header = ["", *contenders, *(" / ".join(pair) for pair in pairs)]
    lines = [[*header, *(f"{name}, MiB" for name in weighed)]]
    for case in cases:
        turns = results[str(case)]
        line = [str(case)]
        line += [f"{statistics.median(rates(case, name, turns)):.2f}" for name in contenders]
        line += [spread(ratios(case, pair, turns)) for pair in pairs]
        for name in weighed:
            line.append(f"{max(turn[name]['peak_rss'] for turn in turns) / MIB:.0f}")
        lines.append(line)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    for title, chosen in {
        "the target cases": [case for case in cases if case.is_target],
        "all cases of 224 px": [case for case in cases if case.size == 224],
    }.items():
        for pair in pairs:
            write_mean(title, pair, chosen, results)
    for name in contenders:
        if name in ("ppcls", "torch"):
            sys.stdout.write(f"{name}: {results[str(cases[0])][0][name]['versions']}\n")


def write_mean(
    title: str,
    pair: tuple[str, str],
    cases: Sequence[Case],
    results: dict[str, list[dict[str, Any]]],
) -> None:
    """The geometric mean of the cases' median ratios."""
    if not cases:
        return
    medians = [statistics.median(ratios(case, pair, results[str(case)])) for case in cases]
    mean = math.exp(statistics.fmean(map(math.log, medians)))
    names = ", ".join(case.name for case in cases)
    sys.stdout.write(f"{' / '.join(pair)}, geometric mean over {title} ({names}): {mean:.2f}\n")


def spread(values: Sequence[float]) -> str:
    """Median and range of ratios."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


def write_json(
    options: argparse.Namespace, cases: Sequence[Case], results: dict[str, list[dict[str, Any]]]
) -> None:
    """All that was measured so far."""
    content = {
        "machine": describe_machine(),
        "mode": options.mode,
        "cases": [
            {**asdict(case), "turns": results[str(case)]} for case in cases if str(case) in results
        ],
    }
    options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
