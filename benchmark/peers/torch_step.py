"""One process of PyTorch for ``benchmark/train_step.py``, which starts it; imports no ppcls.

Channels-last, 32 bits, all cores; prints a line of JSON: seconds of each counted step, the most
memory held, the number of parameters.

torchenv/bin/python benchmark/peers/torch_step.py mobilenext:1.0 --batch 32 --size 224
torchenv/bin/python benchmark/peers/torch_step.py torchvision:mobilenet_v2 --mode eval
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import time
from typing import Any

import torch
from torch import nn

WARM_UP = 2  # steps that are not counted


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "network", help="timm:NAME, torchvision:NAME or mobilenext:WIDTH", metavar="SOURCE:NAME"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--steps", type=int, default=5, help=f"counted steps, after {WARM_UP}")
    parser.add_argument("--mode", choices=("train", "eval"), default="train")
    options = parser.parse_args()
    sys.stdout.write(f"{json.dumps(measure(options))}\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each counted step, and the memory the process took."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    net = build(options.network).to(memory_format=torch.channels_last)
    net.train(options.mode == "train")
    images = torch.randn(options.batch, 3, options.size, options.size)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (options.batch,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def train_step() -> None:
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    def infer() -> None:
        with torch.no_grad():
            net(images).sum().item()

    do = train_step if options.mode == "train" else infer
    seconds = []
    for _ in range(WARM_UP + options.steps):
        start = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - start)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": seconds[WARM_UP:],
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "parameters": sum(p.numel() for p in net.parameters()),
        "versions": f"torch {torch.__version__}, {torch.get_num_threads()} threads",
    }


def build(source: str) -> Any:
    """A network from ``timm:NAME``, ``torchvision:NAME`` or ``mobilenext:WIDTH``."""
    library, _, name = source.partition(":")
    if library == "mobilenext":
        return MobileNeXt(float(name))
    torchvision = import_torchvision()  # timm imports it, too
    if library == "torchvision":
        return getattr(torchvision.models, name)()
    import timm

    return timm.create_model(name)


_stand_ins: list[Any] = []  # PyTorch forgets the operators with the object that defines them


def import_torchvision() -> Any:
    """torchvision, also where its compiled operators do not load: no network here needs them.

    It says what shape two of them give as it is imported, and fails where they do not exist.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _stand_ins.append(library)
        import torchvision
    return torchvision


# MobileNeXt, layer by layer what ppcls/backbones/mobilenext.py builds; timm has none.

# t: reduction of the bottleneck, c: width, n: blocks, s: stride of the first
STAGES = (
    (2, 96, 1, 2),
    (6, 144, 1, 1),
    (6, 192, 3, 2),
    (6, 288, 3, 2),
    (6, 384, 4, 1),
    (6, 576, 4, 2),
    (6, 960, 3, 1),
    (6, 1280, 1, 1),
)


def make_divisible(width: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``width``, at least ``divisor`` and 0.9 ``width``."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * width else rounded + divisor


def depthwise(channels: int, stride: int = 1) -> list[Any]:
    """3x3 depthwise convolution and normalisation."""
    conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def pointwise(channels_in: int, channels_out: int) -> list[Any]:
    """1x1 convolution and normalisation."""
    return [nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)]


class SandglassBlock(nn.Module):
    """Depthwise - reduce (linear) - expand - depthwise (linear)."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, reduction: int, keep_depthwise: bool
    ):
        super().__init__()
        hidden = channels_in // reduction
        if hidden < channels_out / 6:
            hidden = make_divisible(math.ceil(channels_out / 6), 16)
        same_width = channels_in == channels_out
        layers = [*pointwise(channels_in, hidden), *pointwise(hidden, channels_out)]
        layers.append(nn.ReLU6(inplace=True))
        if same_width or keep_depthwise:
            layers = [*depthwise(channels_in), nn.ReLU6(inplace=True), *layers]
        if same_width or keep_depthwise or stride == 2:
            layers += depthwise(channels_out, stride)
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = same_width and stride == 1

    def forward(self, x: Any) -> Any:
        """Maps [N, channels_in, H, W] -> [N, channels_out, H/stride, W/stride]."""
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class MobileNeXt(nn.Module):
    """MobileNeXt of any width from 0.35."""

    def __init__(self, width: float):
        super().__init__()
        channels = make_divisible(32 * width)
        stem = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        blocks: list[Any] = [nn.Sequential(stem, nn.BatchNorm2d(channels), nn.ReLU6(inplace=True))]
        for t, c, n, s in STAGES:
            out = c if c == 1280 and width < 1 else make_divisible(c * width)
            for i in range(n):
                stride = s if i == 0 else 1
                keep = t == 2 or n == s == 1
                blocks.append(SandglassBlock(channels, out, stride, t, keep))
                channels = out
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, 1000))

    def forward(self, images: Any) -> Any:
        """Images [N, 3, H, W] -> logits [N, 1000]."""
        return self.classifier(self.pool(self.features(images)).flatten(1))


if __name__ == "__main__":
    main()
