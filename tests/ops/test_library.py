"""Threads and instruction sets: neither changes the result."""

from __future__ import annotations

import itertools
import os
import threading

import apart
import numpy as np
import paddle
import pytest
from stock import DOUBLE, SINGLE, Stack, differences, normal, step, tensor

from ppcls.ops import build, chain, library, pool

CORES = len(os.sched_getaffinity(0))


def mixed(dtype="float64"):
    """A chain of every kind of unit."""
    stack = Stack().conv(3, 12, 3, 2, 1, act="ReLU6").depthwise(12, 3, act="Hardswish", bias=True)
    stack.squeeze(12, 5).conv(12, 20, act="Silu").depthwise(20, 5, 2, act="ReLU")
    return stack.conv(20, 9, 3).to(dtype)


# Threads -----------------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch):
    """Sets how many threads the kernels may use."""

    def choose(number):
        for module in (chain, pool):
            monkeypatch.setattr(module, "thread_count", lambda: number)

    return choose


def same_bits(threads, make, *numbers):
    """Names of what is not the same for each number of threads as for one."""
    results = []
    for number in (1, *numbers):
        threads(number)
        results.append(make())
    first, *others = results
    return sorted({n for other in others for n in first if not np.array_equal(first[n], other[n])})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("side", [9, 16, 28, 57])
@pytest.mark.parametrize("batch", [1, 3, 17])
@apart.in_a_fork
def test_a_chain_gives_the_same_bits_on_any_number_of_threads(threads, batch, side, dtype):
    stack, x = mixed(dtype), tensor(normal((batch, 3, side, side)), dtype)
    assert same_bits(threads, lambda: step(stack, stack.chain, x), 2, 5, 16) == []


@pytest.mark.parametrize("side", [7, 28, 56])
@pytest.mark.parametrize("batch", [1, 3, 17])
@pytest.mark.parametrize("kind", ["depthwise", "pointwise", "dense", "squeeze"])
@apart.in_a_fork
def test_a_unit_gives_the_same_bits_on_any_number_of_threads(threads, kind, batch, side):
    stack, x = Stack(), tensor(normal((batch, 8, side, side)), "float32")
    if kind == "squeeze":
        stack.squeeze(8, 4)
    elif kind == "depthwise":
        stack.depthwise(8, act="ReLU6")
    else:
        stack.conv(8, 8, 1 if kind == "pointwise" else 3, act="ReLU6")
    stack.to("float32")
    assert same_bits(threads, lambda: step(stack, stack.chain, x), 2, 5, 16) == []
    with paddle.no_grad():
        stack.train(False)
        assert same_bits(threads, lambda: {"out": stack.chain(x).numpy()}, 2, 5, 16) == []


@apart.in_a_fork
def test_the_pooling_gives_the_same_bits_on_any_number_of_threads(threads):
    def make():
        x = tensor(normal((3, 9, 13, 11)), "float32")
        mean = pool.global_average_pool(x)
        mean.square().sum().backward()
        return {"mean": mean.numpy(), "dx": x.grad.numpy()}

    assert same_bits(threads, make, 2, 5) == []


def test_the_pooling_is_the_mean():
    for shape in ((3, 9, 13, 11), (1, 1, 1, 1), (2, 40, 1, 7)):
        for layout in (False, True):
            values = normal(shape)
            x = tensor(values, channels_last=layout)
            mean = pool.global_average_pool(x)
            np.testing.assert_allclose(mean.numpy(), values.mean((2, 3), keepdims=True), atol=1e-12)
            weights = normal(mean.shape, 1)
            (mean * tensor(weights)).sum().backward()
            expected = np.broadcast_to(weights, shape) / (shape[2] * shape[3])
            np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-12)


@apart.in_a_fork
def test_threads_of_python_may_use_a_chain_at_the_same_time(threads):
    """Python's lock is open while the kernels run."""
    threads(2)
    stack, x = mixed().train(False), tensor(normal((2, 3, 33, 33)))
    fast = stack.chain
    with paddle.no_grad():
        expected = fast(x).numpy()
    wrong = []

    def use():
        for _ in range(20):
            with paddle.no_grad():
                if not np.array_equal(fast(x).numpy(), expected):
                    wrong.append(1)

    users = [threading.Thread(target=use) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert wrong == []


def test_a_fork_may_use_the_kernels(threads):
    """The threads of the team stay behind in the process that was forked."""
    threads(3)
    stack, x = mixed(), tensor(normal((2, 3, 33, 33)))
    expected = step(stack, stack.chain, x)

    def check():
        assert differences(step(stack, stack.chain, x), expected, 0) == []

    apart.forked(check)
    check()


@apart.in_a_fork
def test_more_threads_after_fewer(threads):
    stack, x = mixed(), tensor(normal((2, 3, 33, 33)))
    for number in (1, 4, 2, 12, 1, 40):
        threads(number)
        expected = step(stack, stack.stock, x)
        assert differences(step(stack, stack.chain, x), expected, DOUBLE, stack.vanishing(x)) == []


COUNT = """
import paddle
from ppcls.ops.library import thread_count
print(thread_count())
"""
CHOICES = {
    "one": ({"OMP_NUM_THREADS": "1"}, 1),
    "three": ({"OMP_NUM_THREADS": "3"}, 3),
    "unset": ({}, CORES),
    "two processes": ({"PADDLE_LOCAL_SIZE": "2"}, max(1, CORES // 2)),
    "both": ({"OMP_NUM_THREADS": "3", "PADDLE_LOCAL_SIZE": "2"}, 3),
    "garbage": ({"OMP_NUM_THREADS": "many"}, CORES),
}


@pytest.fixture(scope="module")
def counts():
    """What fresh processes say, two at a time; Paddle sets OMP_NUM_THREADS as it is imported."""
    said = {}
    choices = iter(CHOICES.items())
    while some := list(itertools.islice(choices, 2)):
        running = {name: apart.start(COUNT, **variables) for name, (variables, _) in some}
        said |= {name: int(apart.finish(process)) for name, process in running.items()}
    return said


@pytest.mark.parametrize("choice", CHOICES)
def test_the_number_of_threads(choice, counts):
    assert counts[choice] == CHOICES[choice][1]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("4", 4),
        ("4,2", 4),
        ("", 6),
        ("0", 6),
        ("-2", 6),
        ("2.5", 6),
        ("two", 6),
        ("²", 6),
    ],
)
def test_what_is_said_of_threads(said, expected, monkeypatch):
    monkeypatch.setattr(library, "_environment_at_start", lambda: {"OMP_NUM_THREADS": said})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.delenv("PADDLE_LOCAL_SIZE", raising=False)
    assert library.thread_count.__wrapped__() == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [("1", 6), ("2", 3), ("4", 1), ("9", 1), ("0", 6), ("x", 6), ("²", 6), ("", 6)],
)
def test_processes_of_a_launcher_share_the_cores(said, expected, monkeypatch):
    monkeypatch.setattr(library, "_environment_at_start", dict)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", said)
    assert library.thread_count.__wrapped__() == expected


# Instruction sets --------------------------------------------------------------------------------

RUN = """
import numpy, paddle
from stock import normal, step, tensor
from test_library import mixed
for dtype in ("float32", "float64"):
    stack, x = mixed(dtype), tensor(normal((2, 3, 21, 18)), dtype)
    result = step(stack, stack.chain, x)
    with paddle.no_grad():
        result["inferred"] = stack.train(False).chain(x).numpy()
    numpy.savez(f"{FOLDER}/{dtype}.npz", **result)
print(open("/proc/self/maps").read().count("libppcls_ops_{ISA}.so") > 0)
"""


@pytest.mark.parametrize("isa", build.INSTRUCTION_SETS)
def test_every_instruction_set_gives_the_same(isa, tmp_path):
    missing = {*build.INSTRUCTION_SETS[isa][2]} - build.processor_features()
    if missing:
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    code = RUN.replace("{FOLDER}", str(tmp_path)).replace("{ISA}", isa)
    assert apart.finish(apart.start(code, PPCLS_CPU_ISA=isa)) == "True\n"
    stack, x = mixed(), tensor(normal((2, 3, 21, 18)))
    expected, zero = step(stack, stack.stock, x), stack.vanishing(x)
    with paddle.no_grad():
        expected["inferred"] = stack.train(False).stock(x).numpy()
    for dtype, tolerance in (("float32", SINGLE), ("float64", DOUBLE)):
        with np.load(tmp_path / f"{dtype}.npz") as actual:
            assert differences(dict(actual), expected, tolerance, zero) == []


def test_the_best_set_of_a_processor(monkeypatch):
    monkeypatch.delenv("PPCLS_CPU_ISA", raising=False)
    avx2 = {"sse2", "avx", "avx2", "fma"}
    avx512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
    for features, best in (
        (avx2 | avx512, "avx512"),
        (avx2 | {"avx512f"}, "avx2"),
        (avx2, "avx2"),
        (avx2 - {"fma"}, "portable"),
        (set(), "portable"),
    ):
        monkeypatch.setattr(build, "processor_features", lambda features=features: features)
        assert build.instruction_set() == best
