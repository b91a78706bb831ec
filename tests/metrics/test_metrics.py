"""Metrics against numpy."""

import numpy as np
import paddle
import pytest

from ppcls.errors import ArgumentError, DataError
from ppcls.metrics.base import CombinedMetric, Mean
from ppcls.metrics.topk import TopkAcc

N, C = 103, 10


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(N, C)).astype("float32")


@pytest.fixture
def indices():
    return np.random.default_rng(1).integers(0, C, N)


def reference(logits, indices, k):
    order = np.argsort(-logits, axis=1)[:, :k]
    return (order == indices[:, None]).any(axis=1).mean()


def fed(metric, logits, targets, sizes=(N,)):
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        metric.update(paddle.to_tensor(logits[part]), paddle.to_tensor(targets[part]))
        start += size
    assert start == len(logits)
    return metric


class TestTopkAcc:
    def test_against_numpy(self, logits, indices):
        value = fed(TopkAcc([1, 3, 10], class_num=C), logits, indices).value()
        assert value == {f"top{k}": reference(logits, indices, k) for k in (1, 3, 10)}
        assert value["top10"] == 1.0

    @pytest.mark.parametrize("form", ["[N, 1]", "int32", "soft"])
    def test_forms_of_targets(self, logits, indices, form):
        soft = np.full((N, C), 0.02, "float32")
        soft[np.arange(N), indices] += 0.8
        given = {"[N, 1]": indices[:, None], "int32": indices.astype("int32"), "soft": soft}[form]
        assert fed(TopkAcc(), logits, given).value() == fed(TopkAcc(), logits, indices).value()

    @pytest.mark.parametrize("sizes", [(1,) * N, (50, 50, 3), (3, 100)])
    def test_the_split_into_batches_does_not_matter(self, logits, indices, sizes):
        whole, split = fed(TopkAcc(), logits, indices), fed(TopkAcc(), logits, indices, sizes)
        assert whole.value() == split.value()
        np.testing.assert_array_equal(whole.state(), split.state())

    def test_states_of_processes_add_up(self, logits, indices):
        one = fed(TopkAcc(), logits[:7], indices[:7], (7,))
        other = fed(TopkAcc(), logits[7:], indices[7:], (N - 7,))
        idle = TopkAcc()
        total = one.state() + other.state() + idle.state()
        assert total.dtype == np.float64 and total[-1] == N
        assert idle.value(total) == fed(TopkAcc(), logits, indices).value()

    def test_ties_do_not_count_in_favour(self):
        logits = np.array([[0, 0, 0], [1, 1, 0], [2, 1, 1]], "float32")
        value = fed(TopkAcc([1, 2]), logits, np.array([0, 1, 0]), (3,)).value()
        assert value == {"top1": 1 / 3, "top2": 2 / 3}

    def test_nan_is_never_right(self):
        logits = np.full((4, 3), np.nan, "float32")
        assert fed(TopkAcc([1, 3]), logits, np.arange(4) % 3, (4,)).value()["top3"] == 0.0

    def test_infinite_logits(self):
        logits = np.array([[np.inf, 0, -np.inf], [np.inf, 0, -np.inf]], "float32")
        assert fed(TopkAcc(1), logits, np.array([0, 2]), (2,)).value() == {"top1": 0.5}

    @pytest.mark.parametrize("wrong", [-1, C, 10**6])
    def test_a_target_that_is_no_class_is_never_right(self, logits, wrong):
        assert fed(TopkAcc([C]), logits, np.full(N, wrong)).value() == {"top10": 0.0}

    def test_16_bits(self, logits, indices):
        half = paddle.to_tensor(logits).astype("bfloat16")
        metric = TopkAcc()
        metric.update(half, paddle.to_tensor(indices))
        assert metric.value() == fed(TopkAcc(), half.astype("float32").numpy(), indices).value()

    def test_keeps_no_graph_and_can_be_reset(self, logits, indices):
        x = paddle.to_tensor(logits, stop_gradient=False)
        metric = TopkAcc(1)
        metric.update(x * 2, paddle.to_tensor(indices))
        assert metric._sums.stop_gradient
        metric.reset()
        assert metric.state().tolist() == [0, 0]

    @pytest.mark.parametrize(
        ("topk", "message"),
        [
            ([1, 5], "expected at most the 2 classes of Arch.class_num, received 5"),
            (0, "expected at least 1, received 0"),
            ([], "expected one or more different numbers, received []"),
            ([1, 1], "expected one or more different numbers, received [1, 1]"),
        ],
    )
    def test_refusals(self, topk, message):
        with pytest.raises(ArgumentError) as caught:
            TopkAcc(topk, class_num=2)
        assert (caught.value.argument, str(caught.value)) == ("topk", message)

    def test_no_samples(self):
        with pytest.raises(DataError, match="expected samples to average top1 over, received none"):
            TopkAcc().value()

    def test_the_default_is_not_shared(self):
        TopkAcc()._topk.append(7)
        assert TopkAcc().names == ["top1", "top5"]


class TestCombinedMetric:
    def test_states_and_values_stand_one_after_the_other(self, logits, indices):
        combined = fed(CombinedMetric([TopkAcc([3, 1]), TopkAcc(5)]), logits, indices)
        assert combined.main_name == "top3"
        assert list(combined.value()) == combined.names == ["top3", "top1", "top5"]
        assert combined.value() == {f"top{k}": reference(logits, indices, k) for k in (3, 1, 5)}
        assert combined.value(2 * combined.state()) == combined.value()
        combined.reset()
        assert combined.state().tolist() == [0] * 5

    def test_two_values_of_a_name(self):
        with pytest.raises(ArgumentError, match=r"different names, received .'top1', 'top1'"):
            CombinedMetric([TopkAcc(1), TopkAcc(1)])

    def test_no_metric(self):
        with pytest.raises(ArgumentError, match="expected at least one metric, received none"):
            CombinedMetric([])


class TestMean:
    def test_is_exact_over_batch_sizes_and_processes(self):
        rng = np.random.default_rng(0)
        losses = rng.exponential(size=N).astype("float32")
        ranks = [Mean(["CELoss", "loss"]) for _ in range(3)]
        parts = np.split(losses, [1, 60])
        for rank, part in zip(ranks, parts, strict=True):
            scalar = paddle.to_tensor(part.mean(dtype="float64"))
            rank.update({"CELoss": scalar, "loss": 2 * scalar}, len(part))
        total = sum(rank.state() for rank in ranks)
        expected = losses.mean(dtype="float64")
        assert ranks[0].value(total) == pytest.approx(
            {"CELoss": expected, "loss": 2 * expected}, rel=1e-13
        )

    def test_a_long_epoch_keeps_small_losses(self):
        mean = Mean(["loss"])
        mean.update({"loss": paddle.to_tensor(1.0)}, 2**26)
        for _ in range(10):
            mean.update({"loss": paddle.to_tensor(1.0)}, 1)
        assert mean.state().tolist() == [2**26 + 10] * 2

    def test_takes_plain_numbers_and_shape_1(self):
        mean = Mean(["a", "b"])
        mean.update({"a": 1.5, "b": paddle.ones([1]), "other": 3.0}, 2)
        assert mean.value() == {"a": 1.5, "b": 1.0}

    def test_nan_shows(self):
        mean = Mean(["loss"])
        mean.update({"loss": paddle.to_tensor(float("nan"))}, 2)
        mean.update({"loss": paddle.to_tensor(1.0)}, 2)
        assert np.isnan(mean.value()["loss"])

    def test_keeps_no_graph(self):
        x = paddle.ones([], dtype="float32")
        x.stop_gradient = False
        mean = Mean(["loss"])
        mean.update({"loss": x * 2}, 1)
        assert mean._sums.stop_gradient
