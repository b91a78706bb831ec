"""Where the time of an accelerated training step goes, beside what the machine can do.

For every chain of layers, forward and backward: the time, the share of the processor's peak and
of the memory's bandwidth, and the bound, the time below which no program can do it, as a share of
the time measured. The bound of a layer is the greater of its multiply-adds at the peak rate and
its bytes at the bandwidth; layers follow one another, so a chain's is their sum.

Counted are the multiply-adds of convolutions and classifier, and the bytes that must move if maps
are larger than the caches: forward, a layer reads the raw output of the one before and writes its
own, and the end of a chain reads it once more; backward, it reads gradient, own raw output and
the one before, and writes the gradient before. Maps that stay in a cache can beat the bound.

python benchmark/roofline.py                             # MobileNeXt_x1_0, batch 32, 224 px
python benchmark/roofline.py --model paddle:mobilenet_v2 --batch 16 --steps 3
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.machine import describe_machine
from benchmark.train_step import WARM_UP, Workload, warn_if_busy
from ppcls.ops.build import INSTRUCTION_SETS, OPTIONS, compiler, instruction_set
from ppcls.ops.library import (
    BATCH_NORM,
    IDENTITY,
    NO_NORM,
    SQUEEZE_EXCITATION,
    ChainStruct,
    LayerStruct,
    kernels,
    thread_count,
)

SCALAR = 4  # bytes
GIGA = 1e9

# Prints peak FLOP/s, bytes read a second, and bytes read and written a second by a copy; the best
# of several tries each, as anything else on the machine can only slow them down.
PROBE = r"""
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>
#include <sys/mman.h>

typedef float V __attribute__((vector_size(VECTOR_BYTES)));
constexpr int64_t L = sizeof(V) / sizeof(float);
constexpr int64_t BYTES = int64_t(1) << 28, COUNT = BYTES / sizeof(V);
constexpr int TRIES = 60;
int threads;

double best(std::function<void(int)> work) {
  double least = 1e30;
  for (int i = 0; i < TRIES; i++) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> all;
    for (int t = 0; t < threads; t++) all.emplace_back(work, t);
    for (auto& thread : all) thread.join();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (taken.count() < least) least = taken.count();
  }
  return least;
}

V* make() {
  V* data = (V*)std::aligned_alloc(1 << 21, BYTES);
  if (!data) std::exit(1);
#if defined(MADV_HUGEPAGE)
  madvise(data, BYTES, MADV_HUGEPAGE);
#endif
  std::memset(data, 0, BYTES);
  return data;
}

int main(int, char** arguments) {
  threads = std::atoi(arguments[1]);
  std::vector<V> results(threads * 8);  // nobody's work may be left out as unused
  const int64_t rounds = 1000000;
  const double multiply = best([&](int t) {
    V sum[12], a = results[t * 8] + 0.5f, b = results[t * 8] + 0.25f;
    for (int j = 0; j < 12; j++) sum[j] = b + float(j);
    for (int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 12
      for (int j = 0; j < 12; j++) sum[j] = sum[j] * a + b;
    for (int j = 1; j < 12; j++) sum[0] += sum[j];
    results[t * 8 + 1] = sum[0];
  });
  V *from = make(), *to = make();
  const double read = best([&](int t) {
    V sum[8] = {};
    const int64_t end = COUNT / threads / 8 * 8;
    const V* x = from + t * end;
    for (int64_t i = 0; i < end; i += 8)
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++) sum[j] += x[i + j];
    for (int j = 0; j < 8; j++) results[t * 8 + 2] += sum[j];
  });
  const double copy = best([&](int t) {
    const int64_t end = COUNT / threads;
    const V *x = from + t * end, offset = results[t * 8];
    V* y = to + t * end;
    for (int64_t i = 0; i < end; i++) y[i] = x[i] + offset;
  });
  const double flops = 24.0 * L * rounds * threads / multiply;
  std::printf("{\"flops\": %g, \"read\": %g, \"copy\": %g}\n", flops, BYTES / read,
              2 * BYTES / copy);
}
"""


@dataclass(frozen=True)
class Machine:
    """What all cores together can do in a second: 32-bit operations, bytes read, bytes copied."""

    flops: float
    read: float
    copy: float

    @property
    def bandwidth(self) -> float:
        """The most bytes a second, in whichever way: a bound must not ask too little."""
        return max(self.read, self.copy)


@dataclass(frozen=True)
class Work:
    """Floating-point operations (two a multiply-add), and bytes read and written."""

    flops: float = 0
    scalars: float = 0

    @property
    def bytes(self) -> float:
        """Of 32-bit scalars."""
        return SCALAR * self.scalars

    def bound(self, machine: Machine) -> float:
        """Seconds that no program can do it in."""
        return max(self.flops / machine.flops, self.bytes / machine.bandwidth)


@dataclass
class Event:
    """One call of a kernel."""

    kind: str  # forward, backward or map
    key: int  # address of the chain's first weight
    size: str  # of the map that comes in
    start: float
    end: float
    work: list[Work]


@dataclass
class Row:
    """A line of the table: what is to be done, and the seconds it took in each step."""

    name: str
    work: list[Work] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Measures the machine, then the network, and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        default="ppcls:MobileNeXt_x1_0",
        help="ppcls:NAME, or paddle:NAME of paddle.vision.models",
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--steps", type=int, default=5, help=f"counted steps, after {WARM_UP}")
    options = parser.parse_args()
    sys.stdout.write(f"{describe_machine()}\n")
    warn_if_busy()
    machine = probe()
    sys.stdout.write(
        f"{thread_count()} threads, {instruction_set()}: {machine.flops / GIGA:.0f} GFLOP/s, "
        f"memory {machine.read / GIGA:.1f} GB/s read, {machine.copy / GIGA:.1f} GB/s copied\n"
    )
    workload = Workload(options.model, options.batch, options.size, accelerated=True)
    if not workload.convolutions:
        raise SystemExit(f"{options.model}: the kernels know too few of its layers")
    recorder = Recorder()
    faults = [recorder.step(workload) for _ in range(WARM_UP + options.steps)][WARM_UP:]
    rows = recorder.rows(workload, range(WARM_UP, WARM_UP + options.steps))
    print_rows(rows, machine)
    seconds = statistics.median(rows[-1].seconds)
    sys.stdout.write(
        f"{options.model}, batch {options.batch}, {options.size} px: "
        f"{options.batch / seconds:.1f} img/s; {statistics.median(faults):.0f} page faults a step\n"
    )


def probe() -> Machine:
    """What this machine can do, measured by a small program with as many threads as the kernels."""
    width, isa_options, _ = INSTRUCTION_SETS[instruction_set()]
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "probe.cc", Path(folder) / "probe"
        source.write_text(PROBE, encoding="utf-8")
        command = [compiler(), *OPTIONS, *isa_options, "-pthread", f"-DVECTOR_BYTES={width}"]
        subprocess.run([*command, str(source), "-o", str(program)], check=True)
        said = subprocess.run(
            [str(program), str(thread_count())], check=True, capture_output=True, text=True
        )
    return Machine(**json.loads(said.stdout))


class Recorder:
    """Watches the kernels at work, step by step."""

    def __init__(self) -> None:
        self.events: list[list[Event]] = []  # of each step
        self.marks: list[dict[str, float]] = []
        self._work: dict[tuple[str, int], list[Work]] = {}
        functions = kernels("float32")
        functions.forward = self._watch_chain("forward", functions.forward, forward_work)
        functions.backward = self._watch_chain("backward", functions.backward, backward_work)
        functions.pool = self._watch_map(functions.pool, 1)
        functions.pool_backward = self._watch_map(functions.pool_backward, 1)
        functions.to_channels_last = self._watch_map(functions.to_channels_last, 2)
        functions.to_channels_first = self._watch_map(functions.to_channels_first, 2)

    def step(self, workload: Workload) -> int:
        """Does a training step; returns the pages that were faulted in."""
        self.events.append([])
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        marks = {"start": time.perf_counter()}
        loss = workload.loss()
        loss.backward()
        marks["gradients"] = time.perf_counter()
        workload.update()
        loss.item()
        marks["end"] = time.perf_counter()
        self.marks.append(marks)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults

    def rows(self, workload: Workload, steps: range) -> list[Row]:
        """The table: every chain forward, every chain backward, then the sums, the last of all."""
        names = {p.data_ptr(): name for name, p in workload.net.named_parameters()}
        chains: dict[tuple[str, int], Row] = {}
        sums = {
            name: Row(name)
            for name in (
                "chains, forward",
                "chains, backward",
                "kernels between chains",
                "pooling, classifier, loss",
                "optimizer",
                "rest",
                "whole step",
            )
        }
        forward, backward, between, head, optimizer, rest, whole = sums.values()
        for step in steps:
            events, marks = self.events[step], self.marks[step]
            for event in events:
                if event.kind in ("forward", "backward"):
                    first = names.get(event.key, "?").rpartition(".")[0]
                    name = f"{event.kind} {first}, {event.size}"
                    row = chains.setdefault((event.kind, event.key), Row(name, event.work))
                    row.seconds.append(event.end - event.start)
            # What follows the last chain and goes before the first one backward.
            top = max(e.end for e in events if e.kind == "forward")
            down = min(e.start for e in events if e.kind == "backward")
            others = [e for e in events if e.kind == "map"]
            apart = [e for e in others if not top <= e.start < down]
            parts = [
                (forward, [e for e in events if e.kind == "forward"]),
                (backward, [e for e in events if e.kind == "backward"]),
                (between, apart),
            ]
            for row, chosen in parts:
                row.seconds.append(sum(e.end - e.start for e in chosen))
                row.work = [work for e in chosen for work in e.work]
            head.seconds.append(down - top)
            head.work = [w for e in others if e not in apart for w in e.work]
            head.work += classifier_work(workload)
            optimizer.seconds.append(marks["end"] - marks["gradients"])
            optimizer.work = [optimizer_work(workload)]
            whole.seconds.append(marks["end"] - marks["start"])
            known = (forward, backward, between, head, optimizer)
            rest.seconds.append(whole.seconds[-1] - sum(row.seconds[-1] for row in known))
            whole.work = [work for row in known for work in row.work]
        if not between.work:
            del sums["kernels between chains"]
        return [*chains.values(), *sums.values()]

    def _watch_chain(
        self,
        kind: str,
        function: Callable[[Any], None],
        count: Callable[[ChainStruct], Iterator[Work]],
    ) -> Callable[[Any], None]:
        def watched(call: ChainStruct) -> None:
            first = call.layers[0]
            size = f"{first.channels_in}x{first.in_h}x{first.in_w}"
            key = kind, first.weight
            start = time.perf_counter()
            function(call)
            end = time.perf_counter()
            if key not in self._work:
                self._work[key] = list(count(call))
            self.events[-1].append(Event(*key, size, start, end, self._work[key]))

        return watched

    def _watch_map(self, function: Callable[..., None], touched: int) -> Callable[..., None]:
        """Of a kernel from one map to another; ``touched`` are the maps of full size."""

        def watched(source: int, target: int, images: int, channels: int, *rest: int) -> None:
            start = time.perf_counter()
            function(source, target, images, channels, *rest)
            work = [Work(0, touched * images * channels * rest[0])]
            self.events[-1].append(Event("map", 0, "", start, time.perf_counter(), work))

        return watched


# What must be done at least.


def forward_work(call: ChainStruct) -> Iterator[Work]:
    """Of each layer of a chain, then of its end."""
    for layer in call.layers[: call.count]:
        maps = call.batch * input_size(layer)
        if layer.kind != SQUEEZE_EXCITATION:
            maps += call.batch * output_size(layer)
        yield Work(2 * multiply_adds(call, layer), maps + weight_size(layer))
    last = call.layers[call.count - 1]
    if call.shortcut or not is_plain(last):
        yield Work(0, 2 * call.batch * output_size(last) + shortcut_size(call))


def backward_work(call: ChainStruct) -> Iterator[Work]:
    """Of a chain's end, then of each layer, the last one first."""
    last = call.layers[call.count - 1]
    if last.norm == BATCH_NORM:  # two sums over gradient and output come before everything else
        yield Work(0, 2 * call.batch * output_size(last))
    for i in reversed(range(call.count)):
        layer = call.layers[i]
        gives_gradient = bool(i > 0 or call.dx)
        scalars = call.batch * output_size(layer)  # the gradient
        if layer.kind == SQUEEZE_EXCITATION:
            scalars += 2 * call.batch * input_size(layer) + 2 * weight_size(layer)
            yield Work(4 * multiply_adds(call, layer), scalars)
            continue
        if not is_plain(layer):
            scalars += call.batch * output_size(layer)
        if layer.dweight:
            scalars += call.batch * input_size(layer) + weight_size(layer)
        if gives_gradient:
            scalars += call.batch * input_size(layer) + weight_size(layer)
        if i == 0 and call.dx and call.shortcut_is_x:
            scalars += shortcut_size(call)
        products = bool(layer.dweight) + gives_gradient
        yield Work(2 * products * multiply_adds(call, layer), scalars)


def multiply_adds(call: ChainStruct, layer: LayerStruct) -> int:
    """Of the forward pass; each of the two gradients needs as many."""
    if layer.kind == SQUEEZE_EXCITATION:
        return call.batch * weight_size(layer)
    return call.batch * layer.out_h * layer.out_w * weight_size(layer)


def weight_size(layer: LayerStruct) -> int:
    """Scalars of the kernels of one layer."""
    if layer.kind == SQUEEZE_EXCITATION:
        return 2 * layer.channels_in * layer.reduced
    return layer.channels_out * layer.channels_in // layer.groups * layer.kernel**2


def input_size(layer: LayerStruct) -> int:
    """Scalars of what one image gives a layer."""
    return layer.in_h * layer.in_w * layer.channels_in


def output_size(layer: LayerStruct) -> int:
    """Scalars of what a layer makes of one image."""
    return layer.out_h * layer.out_w * layer.channels_out


def shortcut_size(call: ChainStruct) -> int:
    """Scalars of what is added to a chain's output."""
    last = call.layers[call.count - 1]
    return call.batch * last.out_h * last.out_w * call.shortcut_channels if call.shortcut else 0


def is_plain(layer: LayerStruct) -> bool:
    """Whether a layer's raw output is its output."""
    bare = layer.norm == NO_NORM and layer.act == IDENTITY and not layer.bias
    return bare and layer.kind != SQUEEZE_EXCITATION


def classifier_work(workload: Workload) -> list[Work]:
    """Of the linear layers, forward and backward."""
    from paddle import nn

    batch = workload.images.shape[0]
    linear = [layer for layer in workload.net.sublayers() if isinstance(layer, nn.Linear)]
    sizes = [layer.weight.size for layer in linear]
    # The weights are read twice, their gradient is written; maps of one pixel are left out.
    return [Work(3 * 2 * batch * size, 3 * size) for size in sizes]


def optimizer_work(workload: Workload) -> Work:
    """Momentum with weight decay: three multiply-adds on five scalars a parameter."""
    size = sum(p.size for p in workload.net.parameters() if not p.stop_gradient)
    return Work(6 * size, 5 * size)


# The table.


def print_rows(rows: list[Row], machine: Machine) -> None:
    """Median times, rates, shares."""
    titles = ("ms", "GFLOP/s", "of peak", "GB/s", "of memory", "bound")
    sys.stdout.write(f"{'':<46}" + "".join(f"{title:>11}" for title in titles) + "\n")
    for row in rows:
        seconds = statistics.median(row.seconds)
        cells = [f"{seconds * 1e3:.2f}"]
        if row.work and seconds > 0:
            flops = sum(work.flops for work in row.work) / seconds
            moved = sum(work.bytes for work in row.work) / seconds
            bound = sum(work.bound(machine) for work in row.work) / seconds
            cells += [f"{flops / GIGA:.1f}", f"{flops / machine.flops:.0%}"]
            cells += [f"{moved / GIGA:.1f}", f"{moved / machine.bandwidth:.0%}", f"{bound:.0%}"]
        sys.stdout.write(f"{row.name:<46}" + "".join(f"{cell:>11}" for cell in cells) + "\n")


if __name__ == "__main__":
    main()
