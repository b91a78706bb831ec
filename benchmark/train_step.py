"""Images per second of a training step: forward, loss, backward, optimizer.

python benchmark/train_step.py                           # MobileNeXt_x1_0, batch 32, 224 px
python benchmark/train_step.py --model MobileNeXt_x0_35 --batch 64 --size 32
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ppcls
from benchmark.machine import describe_machine, report


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="MobileNeXt_x1_0")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--steps", type=int, default=5, help="counted steps, after one not counted")
    options = parser.parse_args()
    sys.stdout.write(f"{describe_machine()}\n")
    rates = [options.batch / seconds for seconds in measure(options)]
    report(f"{options.model}, batch {options.batch}, {options.size} px", rates)


def measure(options: argparse.Namespace) -> list[float]:
    """Seconds of each counted step."""
    import paddle

    from ppcls.losses.ce import CELoss

    paddle.seed(0)
    net = ppcls.create_model(options.model)
    net.train()
    loss = CELoss(weight=1.0)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=net.parameters(), weight_decay=1e-4)
    images = paddle.randn([options.batch, 3, options.size, options.size])
    targets = paddle.randint(0, 1000, [options.batch])
    seconds = []
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        value = loss(net(images), targets)
        value.backward()
        optimizer.step()
        optimizer.clear_grad()
        value.item()  # the end of the step, also where the device works behind the host
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


if __name__ == "__main__":
    main()
