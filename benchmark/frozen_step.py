"""What frozen layers save: a training step of one network, more and more of it frozen.

python benchmark/frozen_step.py
python benchmark/frozen_step.py --model ResNet18 --batch 16 --until stages.1 head

Forward, backward and optimizer on made-up images, with the CPU kernels as in a run. A step with
everything but the classifier frozen should take hardly more than the way forward in evaluation
mode, which is printed beside it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import paddle

import ppcls
from benchmark.machine import describe_machine, report
from ppcls.engine.finetune import FrozenPart, names_until
from ppcls.ops import accelerate


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="MobileNetV2")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--until", nargs="+", default=["1", "3", "5", "head"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="Paddle's own kernels")
    options = parser.parse_args()
    sys.stdout.write(f"{describe_machine()}\n{options.model}, batch {options.batch}\n")
    cases: dict[str, Callable[[], Any]] = {"nothing frozen": step_of(options, None)}
    for until in options.until:
        cases[f"frozen until {until}"] = step_of(options, until)
    cases["forward only"] = forward_of(options)
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(options.repeats + 1):  # they take turns, so that a slow moment hits all
        for name, run in cases.items():
            begun = time.perf_counter()
            for _ in range(options.steps):
                run()
            if repeat:  # the first one warms up
                seconds = time.perf_counter() - begun
                rates[name].append(1000 * seconds / options.steps)
    for name, times in rates.items():
        report(name, times, "ms/step")


def build(options: argparse.Namespace) -> tuple[Any, paddle.Tensor]:
    """A network and a batch of images."""
    net = ppcls.create_model(options.model, class_num=12)
    if not options.plain:
        accelerate(net)
    return net, paddle.randn([options.batch, 3, options.size, options.size])


def step_of(options: argparse.Namespace, until: str | None) -> Callable[[], None]:
    """A training step; ``until`` is a layer, or a number of stages."""
    net, images = build(options)
    if until is not None:
        FrozenPart(net, names_until(net, int(until) if until.isdecimal() else until))
    net.train()
    labels = paddle.arange(options.batch) % 12
    learning = [p for p in net.parameters() if not p.stop_gradient]
    optimizer = paddle.optimizer.Momentum(1e-4, parameters=learning)

    def step() -> None:
        paddle.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)

    return step


def forward_of(options: argparse.Namespace) -> Callable[[], None]:
    """The way forward in evaluation mode."""
    net, images = build(options)
    net.eval()

    def run() -> None:
        with paddle.no_grad():
            net(images).numpy()

    return run


if __name__ == "__main__":
    main()
