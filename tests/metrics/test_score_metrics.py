"""AUC and mean average precision against scikit-learn, in one process and in several."""

import threading

import numpy as np
import paddle
import pytest

from ppcls.engine.distributed import World
from ppcls.errors import DataError
from ppcls.metrics import scores
from ppcls.metrics.base import CombinedMetric
from ppcls.metrics.calibration import Temperature
from ppcls.metrics.scores import AUC, MultiLabelMAP, average_precision_11, log_odds
from ppcls.metrics.topk import TopkAcc

sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle")

N, C = 157, 5


@pytest.fixture
def logits():
    """Rounded, so that some are equal."""
    return np.random.default_rng(0).normal(size=(N, C)).round(1).astype("float32")


@pytest.fixture
def indices():
    return np.random.default_rng(1).choice(C, N, p=[0.4, 0.3, 0.1, 0.1, 0.1])


@pytest.fixture
def labels(logits):
    noise = np.random.default_rng(2).normal(size=(N, C))
    return (logits + noise > [0, 0.5, 1, 1.5, 2]).astype("float32")


def fed(metric, logits, targets, splits=()):
    logits, targets = (np.split(np.asarray(a), splits) for a in (logits, targets))
    for x, y in zip(logits, targets, strict=True):
        metric.update(paddle.to_tensor(x), paddle.to_tensor(y))
    return metric


class Store:
    """The job's key-value store, for threads."""

    def __init__(self):
        self._values, self._changed = {}, threading.Condition()

    def add(self, key, amount):
        return amount

    def set(self, key, value):
        with self._changed:
            self._values[key] = value
            self._changed.notify_all()

    def wait(self, key):
        with self._changed:
            self._changed.wait_for(lambda: key in self._values, timeout=30)

    def get(self, key):
        return self._values[key]


def evaluated_by_processes(metrics):
    """What each of several processes ends up with, exchanging as an evaluation does."""
    store, results = Store(), [None] * len(metrics)

    def run(rank):
        world = World(rank, len(metrics))
        world.attach(store)
        metrics[rank].share(world.gather)
        total = world.sum(metrics[rank].state())
        results[rank] = metrics[rank].value(total), metrics[rank].tables(total)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(metrics))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


class TestAUC:
    @pytest.mark.parametrize("average", ["macro", "weighted"])
    def test_several_labels_an_image(self, logits, labels, average):
        metric = fed(AUC(average, multi_label=True, class_num=C), logits, labels, [3, 50])
        expected = sklearn.roc_auc_score(labels, logits, average=average)
        assert metric.value() == {"AUC": pytest.approx(expected, rel=1e-12)}
        assert 0.7 < expected < 0.99

    @pytest.mark.parametrize("average", ["macro", "weighted"])
    def test_one_class_against_the_rest(self, indices, average):
        logits = np.random.default_rng(5).normal(size=(N, C)).astype("float32")
        exps = np.exp(logits.astype("float64"))
        chances = exps / exps.sum(axis=1, keepdims=True)
        expected = sklearn.roc_auc_score(indices, chances, multi_class="ovr", average=average)
        value = fed(AUC(average, class_num=C), logits, indices).value()
        assert value == {"AUC": pytest.approx(expected, rel=1e-12)}

    def test_certain_answers_are_told_apart(self):
        """Softmax probabilities are 1 for all of them in 64 bits."""
        logits = np.array([[900, 0, 0], [70, 0, 0], [60, 0, 0]], "float32")
        np.testing.assert_allclose(log_odds(logits)[:, 0], [900, 70, 60] - np.log(2))
        assert fed(AUC(class_num=3), logits, [0, 0, 1]).value()["AUC"] == 1.0

    def test_log_odds_are_those_of_the_probabilities(self, logits):
        exps = np.exp(logits.astype("float64"))
        chances = exps / exps.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(log_odds(logits), np.log(chances / (1 - chances)), rtol=1e-9)

    def test_classes_without_images_or_of_all_are_left_out(self, logits, labels):
        labels[:, 0], labels[:, 3] = 1, 0
        rest = [1, 2, 4]
        metric = fed(AUC(multi_label=True, class_num=C), logits, labels)
        expected = sklearn.roc_auc_score(labels[:, rest], logits[:, rest])
        assert metric.value()["AUC"] == pytest.approx(expected, rel=1e-12)
        table = metric.tables()["AUC"]
        np.testing.assert_array_equal(np.isnan(table.values[:, 0]), [True, False, False, True, 0])
        np.testing.assert_array_equal(table.values[:, 1], labels.sum(axis=0))
        assert table.to_dict()["values"][3] == [None, 0.0]

    def test_nothing_is_defined(self, logits):
        none = np.zeros((N, C), "float32")
        assert np.isnan(fed(AUC(multi_label=True, class_num=C), logits, none).value()["AUC"])

    def test_nan_is_worse_than_any_other(self):
        logits = np.array([[np.nan], [1], [0]], "float32")
        labels = np.array([[1], [1], [0]], "float32")
        assert fed(AUC(multi_label=True, class_num=1), logits, labels).value() == {"AUC": 0.5}
        value = fed(AUC(multi_label=True, class_num=1), logits, 1 - labels).value()
        assert value == {"AUC": 0.0}


class TestMultiLabelMAP:
    def test_integral_against_scikit_learn(self, logits, labels):
        metric = fed(MultiLabelMAP(class_num=C), logits, labels, [100])
        expected = sklearn.average_precision_score(labels, logits, average=None)
        assert metric.value() == {"MultiLabelMAP(integral)": pytest.approx(expected.mean())}
        table = metric.tables()["MultiLabelMAP(integral)"]
        np.testing.assert_allclose(table.values[:, 0], expected, rtol=1e-12)
        np.testing.assert_array_equal(table.values[:, 1], labels.sum(axis=0))

    def test_11_points_against_the_precision_recall_curve(self, logits, labels):
        metric = fed(MultiLabelMAP("11point", class_num=C), logits, labels)
        expected = []
        for column, truth in zip(logits.T, labels.T, strict=True):
            precision, recall, _ = sklearn.precision_recall_curve(truth, column)
            # the curve ends in a point of precision 1 at recall 0, which no image stands for
            points = precision[:-1], recall[:-1]
            highest = [points[0][points[1] >= tenth / 10].max() for tenth in range(11)]
            expected.append(np.mean(highest))
        assert metric.value() == {"MultiLabelMAP(11point)": pytest.approx(np.mean(expected))}

    def test_11_points_by_hand(self):
        """Ranks 1 and 3 of 4 are right: precision 1 up to recall 0.5 (6 points), then 2/3 (5)."""
        value = average_precision_11(np.array([4.0, 3, 2, 1]), np.array([1, 0, 1, 0], bool))
        assert value == pytest.approx((6 + 5 * 2 / 3) / 11)

    def test_the_order_of_equal_scores_does_not_count(self, labels):
        logits = np.zeros((N, C), "float32")
        values = [
            fed(MultiLabelMAP(class_num=C), logits, part).value() for part in (labels, labels[::-1])
        ]
        assert values[0] == values[1]
        assert values[0]["MultiLabelMAP(integral)"] == pytest.approx(labels.mean())

    def test_a_class_without_images_is_left_out(self, logits, labels):
        labels[:, 2] = 0
        rest = [0, 1, 3, 4]
        expected = sklearn.average_precision_score(labels[:, rest], logits[:, rest])
        value = fed(MultiLabelMAP(class_num=C), logits, labels).value()
        assert value["MultiLabelMAP(integral)"] == pytest.approx(expected, rel=1e-12)


class TestSeveralProcesses:
    @pytest.mark.parametrize("make", [AUC, Temperature])
    def test_one_class_an_image(self, logits, indices, make):
        self._compare(lambda: make(class_num=C), logits, indices)

    @pytest.mark.parametrize("kind", ["integral", "11point"])
    def test_several_labels_an_image(self, logits, labels, kind):
        self._compare(lambda: MultiLabelMAP(kind, class_num=C), logits, labels)

    def _compare(self, make, logits, targets):
        whole = fed(make(), logits, targets)
        # the third of four processes has no samples
        parts = [fed(make(), *(np.split(a, [20, 90, 90])[r] for a in (logits, targets)))
                 if r != 2 else make() for r in range(4)]  # fmt: skip
        for value, tables in evaluated_by_processes([CombinedMetric([p]) for p in parts]):
            # float64 sums over samples may differ in their last bits
            assert value == {n: pytest.approx(v, rel=1e-12) for n, v in whole.value().items()}
            for name, table in whole.tables().items():
                np.testing.assert_array_equal(tables[name].values, table.values)

    def test_more_than_a_message_holds(self, logits, labels, monkeypatch):
        monkeypatch.setattr(scores, "NUMBERS_AT_ONCE", 7 * 2 * C)
        self._compare(lambda: MultiLabelMAP(class_num=C), logits, labels)

    def test_what_is_not_shared_is_not_evaluated(self, logits, labels):
        metric = fed(MultiLabelMAP(class_num=C), logits, labels)
        with pytest.raises(ValueError, match=f"{N} of {2 * N} samples are here: call share first"):
            metric.value(2 * metric.state())

    def test_combined_with_sums(self, logits, indices):
        combined = CombinedMetric([TopkAcc(1), AUC(class_num=C)])
        assert combined.keeps_scores and not CombinedMetric([TopkAcc(1)]).keeps_scores
        fed(combined, logits, indices)
        assert list(combined.interim()) == ["top1"]
        assert list(combined.value(combined.state())) == ["top1", "AUC"]

    def test_samples_after_sharing_and_reset(self, logits, labels):
        metric = fed(MultiLabelMAP(class_num=C), logits[:50], labels[:50])
        metric.share(World().gather)
        fed(metric, logits[50:], labels[50:])
        assert metric.value() == fed(MultiLabelMAP(class_num=C), logits, labels).value()
        metric.reset()
        with pytest.raises(DataError, match="received none"):
            metric.value()
