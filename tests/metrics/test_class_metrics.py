"""Metrics of classes and labels against scikit-learn."""

import numpy as np
import paddle
import pytest

from ppcls.errors import ArgumentError, DataError
from ppcls.metrics.base import CombinedMetric
from ppcls.metrics.classes import BalancedAccuracy, ConfusionMatrix, F1Score
from ppcls.metrics.multilabel import AccuracyScore, HammingDistance
from ppcls.metrics.topk import DistillationTopkAcc, TopkAcc
from ppcls.registry import METRICS

sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle")

N, C = 211, 7
AVERAGES = ["macro", "weighted", "micro"]


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(N, C)).astype("float32")


@pytest.fixture
def indices():
    """Unbalanced; class 6 has no image, but predictions."""
    return np.random.default_rng(1).choice(C, N, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05, 0])


@pytest.fixture
def labels():
    """Several to an image; class 6 applies to none."""
    share = [0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0]
    return (np.random.default_rng(2).random((N, C)) < share).astype("float32")


def fed(metric, logits, targets, splits=()):
    logits, targets = (np.split(np.asarray(a), splits) for a in (logits, targets))
    for x, y in zip(logits, targets, strict=True):
        metric.update(paddle.to_tensor(x), paddle.to_tensor(y))
    return metric


class TestF1Score:
    @pytest.mark.parametrize("average", AVERAGES)
    def test_one_class_an_image(self, logits, indices, average):
        value = fed(F1Score(average, class_num=C), logits, indices).value()
        p, r, f, _ = sklearn.precision_recall_fscore_support(
            indices, logits.argmax(1), average=average, zero_division=0
        )
        names = [f"{average}_{name}" for name in ("f1", "precision", "recall")]
        assert list(value) == names
        assert list(value.values()) == pytest.approx([f, p, r], rel=1e-13)

    @pytest.mark.parametrize("average", AVERAGES)
    @pytest.mark.parametrize("threshold", [0.5, 0.8])
    def test_several_labels_an_image(self, logits, labels, average, threshold):
        metric = F1Score(average, multi_label=True, threshold=threshold, class_num=C)
        predicted = 1 / (1 + np.exp(-logits.astype("float64"))) > threshold
        p, r, f, _ = sklearn.precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        value = fed(metric, logits, labels).value()
        assert list(value.values()) == pytest.approx([f, p, r], rel=1e-13)

    def test_a_class_that_never_occurs_is_not_in_the_mean(self):
        value = fed(F1Score(class_num=9), np.eye(9)[[0, 1]], [0, 1]).value()
        assert value["macro_f1"] == 1.0

    def test_the_table_is_per_class(self, logits, indices):
        table = fed(F1Score(class_num=C), logits, indices).tables()["per_class"]
        expected = sklearn.precision_recall_fscore_support(
            indices, logits.argmax(1), labels=range(C), zero_division=0
        )
        assert (table.rows, table.columns) == ("class", ("precision", "recall", "f1", "support"))
        np.testing.assert_allclose(table.values, np.transpose(expected), rtol=1e-13)
        assert table.to_dict()["values"][6] == [0.0, 0.0, 0.0, 0.0]

    def test_logits_that_are_not_numbers_are_no_prediction(self):
        logits = np.array([[np.nan, 0, 1], [1, 0, 0]], "float32")
        table = fed(F1Score(class_num=3), logits, [2, 0]).tables()["per_class"]
        np.testing.assert_array_equal(table.values[:, 3], [1, 0, 1])
        np.testing.assert_array_equal(table.values[:, 1], [1, 0, 0])

    def test_a_target_that_is_no_class_is_no_image_of_any(self):
        table = fed(F1Score(class_num=3), np.eye(3), [0, -1, 7]).tables()["per_class"]
        np.testing.assert_array_equal(table.values[:, 3], [1, 0, 0])
        np.testing.assert_array_equal(table.values[:, 0], [1, 0, 0])


class TestBalancedAccuracy:
    @pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
    def test_against_scikit_learn(self, logits, indices):
        expected = sklearn.balanced_accuracy_score(indices, logits.argmax(1))
        value = fed(BalancedAccuracy(class_num=C), logits, indices[:, None]).value()
        assert value == {"balanced_accuracy": pytest.approx(expected, rel=1e-13)}

    def test_the_commonest_class_alone_is_chance(self, indices):
        logits = np.tile(np.eye(C, dtype="float32")[0], (N, 1))
        value = fed(BalancedAccuracy(class_num=C), logits, indices).value()
        assert value["balanced_accuracy"] == pytest.approx(1 / 6)


class TestConfusionMatrix:
    def test_against_scikit_learn(self, logits, indices):
        metric = fed(ConfusionMatrix(class_num=C), logits, indices, [1, 100])
        table = metric.tables()["confusion_matrix"]
        expected = sklearn.confusion_matrix(indices, logits.argmax(1), labels=range(C))
        np.testing.assert_array_equal(table.values, expected)
        assert (table.rows, table.columns) == ("true class", "predicted class")
        assert metric.value() == {"accuracy": (indices == logits.argmax(1)).mean()}

    def test_a_mixture_counts_as_its_likeliest_class(self, logits, indices):
        soft = 0.8 * np.eye(C, dtype="float32")[indices] + 0.2 / C
        metrics = [fed(ConfusionMatrix(class_num=C), logits, t) for t in (soft, indices)]
        np.testing.assert_array_equal(*(metric.state() for metric in metrics))

    def test_too_many_classes(self):
        with pytest.raises(ArgumentError, match=r"at most 5000 classes .* received 21841"):
            ConfusionMatrix(class_num=21841)


class TestAccuracyScoreAndHammingDistance:
    def test_against_scikit_learn(self, logits, labels):
        answers = logits > 0
        samples = sklearn.accuracy_score(labels, answers)
        wrong = sklearn.hamming_loss(labels, answers)
        assert 0 < samples < 0.1 and 0.3 < wrong < 0.7
        value = fed(AccuracyScore("sample", class_num=C), logits, labels).value()
        assert value == {"AccuracyScore": pytest.approx(samples, rel=1e-13)}
        value = fed(AccuracyScore(class_num=C), logits, labels).value()
        assert value == {"AccuracyScore": pytest.approx(1 - wrong, rel=1e-13)}
        value = fed(HammingDistance(class_num=C), logits, labels).value()
        assert value == {"HammingDistance": pytest.approx(wrong, rel=1e-13)}

    def test_the_threshold_is_exact(self):
        """In 32 bits sigmoid(1e-9) is 0.5; the probability is above it."""
        logits = np.array([[1e-9, 0, -1e-9]], "float32")
        assert fed(HammingDistance(class_num=3), logits, np.float32([[1, 0, 0]])).value() == {
            "HammingDistance": 0
        }

    def test_targets_that_are_half_sure_are_yes(self):
        logits, targets = np.float32([[1, 1, -1]]), np.float32([[0.5, 1, 0.49]])
        assert fed(HammingDistance(class_num=3), logits, targets).value() == {"HammingDistance": 0}

    def test_nan_is_never_right(self):
        logits, labels = np.full((2, 3), np.nan, "float32"), np.float32([[0, 1, 0], [0, 0, 1]])
        assert fed(HammingDistance(class_num=3), logits, labels).value()["HammingDistance"] == 1
        assert fed(AccuracyScore(class_num=3), logits, labels).value()["AccuracyScore"] == 0

    @pytest.mark.parametrize("targets", [np.zeros(2, "int64"), np.zeros((2, 2), "float32")])
    def test_targets_of_another_kind(self, targets):
        with pytest.raises(DataError, match=r"a target for each class, \[2, 3\] of float32"):
            fed(HammingDistance(class_num=3), np.zeros((2, 3), "float32"), targets)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (F1Score, {}),
        (F1Score, {"multi_label": True}),
        (BalancedAccuracy, {}),
        (ConfusionMatrix, {}),
        (HammingDistance, {}),
        (AccuracyScore, {"base": "sample"}),
    ],
)
def test_states_add_up_to_the_same_bits(logits, indices, labels, kind, arguments):
    multi = kind in (HammingDistance, AccuracyScore) or bool(arguments.get("multi_label"))
    targets = labels if multi else indices
    whole = fed(kind(**arguments, class_num=C), logits, targets)
    parts = [
        fed(kind(**arguments, class_num=C), x, y, [5])
        for x, y in zip(np.split(logits, [30]), np.split(targets, [30]), strict=True)
    ]
    idle = kind(**arguments, class_num=C)
    total = sum(part.state() for part in [*parts, idle])
    np.testing.assert_array_equal(total, whole.state())
    assert idle.value(total) == whole.value()


class TestDistillationTopkAcc:
    def test_scores_the_network_it_names(self, logits, indices):
        metric = DistillationTopkAcc("Student", "logits", [1, 3], class_num=C)
        outputs = {"Teacher": {"logits": -logits}, "Student": {"logits": logits, "map": None}}
        outputs["Student"]["logits"] = paddle.to_tensor(logits)
        metric.update(outputs, paddle.to_tensor(indices))
        assert metric.value() == fed(TopkAcc([1, 3]), logits, indices).value()

    def test_plain_logits_are_those_of_the_student_alone(self, logits, indices):
        metric = fed(DistillationTopkAcc("Student"), logits, indices)
        assert metric.value() == fed(TopkAcc(), logits, indices).value()

    def test_there_is_no_such_network(self, logits, indices):
        with pytest.raises(DataError, match=r"expected 'Studnet' among .*, received 'Student'"):
            DistillationTopkAcc("Studnet").update({"Student": None}, paddle.to_tensor(indices))


@pytest.mark.parametrize("name", METRICS.names())
def test_is_built_before_the_number_of_classes_is_known_to_be_right(name):
    """A configuration with a faulty class_num is checked with this one."""
    arguments = {"model_key": "Student"} if name == "DistillationTopkAcc" else {}
    assert METRICS.build(name, arguments, class_num=10**9).names


class TestCombined:
    def test_states_of_different_lengths(self, logits, indices):
        metrics = [TopkAcc(1), ConfusionMatrix(class_num=C), F1Score(class_num=C)]
        combined = fed(CombinedMetric(metrics), logits, indices)
        single = [fed(m, logits, indices) for m in (TopkAcc(1), F1Score(class_num=C))]
        value = combined.value(2 * combined.state())
        assert value == {**single[0].value(), "accuracy": value["top1"], **single[1].value()}
        assert list(combined.tables(combined.state())) == ["confusion_matrix", "per_class"]
        assert combined.interim() == combined.value()

    def test_the_first_metric_says_which_is_better(self):
        metrics = [TopkAcc(1), HammingDistance(class_num=C)]
        assert CombinedMetric(metrics).higher_is_better
        assert not CombinedMetric(metrics[::-1]).higher_is_better


@pytest.mark.parametrize("metric", ["TopkAcc", "BalancedAccuracy", "ConfusionMatrix"])
def test_targets_of_several_labels_are_refused_where_one_class_is_expected(metric):
    arguments = {"topk": [1]} if metric == "TopkAcc" else {}
    built = METRICS.build(metric, arguments, class_num=3)
    with pytest.raises(DataError, match="expected one class a picture"):
        built.update(paddle.zeros([2, 3]), paddle.to_tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
