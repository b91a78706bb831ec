"""Log loss, calibration error and temperature against scikit-learn, SciPy and closed forms."""

import numpy as np
import paddle
import pytest

from ppcls.errors import DataError
from ppcls.metrics.calibration import ECE, LogLoss, Temperature, fit_temperature

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is the oracle")

N, C = 500, 6


@pytest.fixture
def indices():
    return np.random.default_rng(0).integers(0, C, N)


@pytest.fixture
def logits(indices):
    """Too sure of themselves."""
    noise = np.random.default_rng(1).normal(size=(N, C))
    return (4 * (noise + np.eye(C)[indices])).astype("float32")


def probabilities(logits):
    exps = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def fed(metric, logits, targets, splits=()):
    logits, targets = (np.split(np.asarray(a), splits) for a in (logits, targets))
    for x, y in zip(logits, targets, strict=True):
        metric.update(paddle.to_tensor(x), paddle.to_tensor(y))
    return metric


class TestLogLoss:
    def test_against_scikit_learn(self, logits, indices):
        from sklearn.metrics import log_loss

        expected = log_loss(indices, probabilities(logits))
        value = fed(LogLoss(class_num=C), logits, indices, [7]).value()
        assert value == {"log_loss": pytest.approx(expected, rel=1e-12)}

    def test_probabilities_as_targets(self, logits):
        soft = probabilities(np.roll(logits, 1, axis=0)).astype("float32")
        expected = -(soft * np.log(probabilities(logits))).sum(axis=1).mean()
        value = fed(LogLoss(class_num=C), logits, soft).value()
        assert value == {"log_loss": pytest.approx(expected, rel=1e-12)}

    def test_several_labels_an_image(self, logits):
        from sklearn.metrics import log_loss

        labels = (np.random.default_rng(3).random((N, C)) < 0.3).astype("float32")
        chances = 1 / (1 + np.exp(-logits.astype("float64")))
        expected = np.mean([log_loss(t, p) for t, p in zip(labels.T, chances.T, strict=True)])
        value = fed(LogLoss(multi_label=True, class_num=C), logits, labels).value()
        assert value == {"log_loss": pytest.approx(expected, rel=1e-12)}

    def test_extremes_are_not_clipped(self):
        logits = np.array([[-1000, 1000], [1000, -1000]], "float32")
        assert fed(LogLoss(class_num=2), logits, [0, 0]).value() == {"log_loss": 1000.0}
        logits, labels = np.float32([[-1e4, 1e4]]), np.float32([[1, 1]])
        value = fed(LogLoss(multi_label=True, class_num=2), logits, labels).value()
        assert value == {"log_loss": 5000.0}

    def test_images_without_a_class_are_left_out(self, logits, indices):
        some = np.where(np.arange(N) < 200, -1, indices)
        value = fed(LogLoss(class_num=C), logits, some).value()
        expected = fed(LogLoss(class_num=C), logits[200:], indices[200:]).value()
        assert value == {"log_loss": pytest.approx(expected["log_loss"], rel=1e-12)}

    def test_nan_shows(self):
        value = fed(LogLoss(class_num=2), np.full((2, 2), np.nan, "float32"), [0, 1]).value()
        assert np.isnan(value["log_loss"])


class TestECE:
    @pytest.mark.parametrize("bins", [2, 15])
    def test_the_bins_against_scikit_learn(self, logits, indices, bins):
        from sklearn.calibration import calibration_curve

        chances = probabilities(logits)
        confidence, right = chances.max(axis=1), chances.argmax(axis=1) == indices
        accuracy, mean = calibration_curve(right, confidence, n_bins=bins)
        metric = fed(ECE(bins, class_num=C), logits, indices, [99])
        table = metric.tables()["reliability"]
        counts = table.values[:, 2]
        assert counts.sum() == N and table.columns[2:] == ("count", "confidence", "accuracy")
        full = table.values[counts > 0]
        np.testing.assert_allclose(full[:, 3], mean, rtol=1e-12)
        np.testing.assert_allclose(full[:, 4], accuracy, rtol=1e-12)
        assert np.isnan(table.values[counts == 0, 3:]).all()
        expected = (counts[counts > 0] * abs(accuracy - mean)).sum() / N
        assert metric.value() == {"ECE": pytest.approx(expected, rel=1e-12)}
        assert expected > 0.05

    def test_a_bin_holds_its_upper_edge(self):
        """Two equal logits: confidence 0.5 exactly, which is the upper edge of bin 1 of 4."""
        table = fed(ECE(4, class_num=2), np.zeros((3, 2), "float32"), [0, 1, 1]).tables()
        np.testing.assert_array_equal(table["reliability"].values[:, 2], [0, 3, 0, 0])
        np.testing.assert_allclose(table["reliability"].values[1], [0.25, 0.5, 3, 0.5, 1 / 3])

    def test_states_add_up(self, logits, indices):
        parts = zip(np.split(logits, [33, 400]), np.split(indices, [33, 400]), strict=True)
        total = sum(fed(ECE(class_num=C), x, y).state() for x, y in parts)
        whole = fed(ECE(class_num=C), logits, indices)
        np.testing.assert_array_equal(total[:15], whole.state()[:15])
        value = ECE(class_num=C).value(total)
        assert value == {"ECE": pytest.approx(whole.value()["ECE"], rel=1e-12)}


class TestFitTemperature:
    @pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
    def test_against_scipy(self, logits, indices, scale):
        from scipy.optimize import minimize_scalar
        from scipy.special import log_softmax

        def loss(inverse):
            logs = log_softmax(scale * inverse * logits.astype("float64"), axis=1)
            return -logs[np.arange(N), indices].mean()

        found = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9})
        temperature = fit_temperature(scale * logits.astype("float64"), indices)
        # a minimiser finds the place of the least to about the square root of the precision
        assert temperature == pytest.approx(1 / found.x, rel=1e-5)
        assert loss(1 / temperature) <= found.fun + 1e-15

    @pytest.mark.parametrize("right", [51, 75, 99])
    def test_closed_form_of_two_classes(self, right):
        """All margins d and a share q right: the least is where sigmoid(d / T) = q."""
        logits = np.tile([3.0, 0.0], (100, 1))
        labels = np.arange(100) >= right
        q = right / 100
        expected = 3 / np.log(q / (1 - q))
        assert fit_temperature(logits, labels.astype(int)) == pytest.approx(expected, rel=1e-10)

    def test_the_scale_of_the_logits_is_the_temperature(self, logits, indices):
        one, ten = (fit_temperature(s * logits.astype("float64"), indices) for s in (1, 10))
        assert ten == pytest.approx(10 * one, rel=1e-10)
        assert one > 2

    def test_an_added_constant_changes_nothing(self, logits, indices):
        moved = logits.astype("float64") + np.arange(N)[:, None]
        expected = fit_temperature(logits, indices)
        assert fit_temperature(moved, indices) == pytest.approx(expected, rel=1e-9)

    def test_more_images_than_are_looked_at_together(self, logits, indices):
        many = np.tile(logits, (10, 1)), np.tile(indices, 10)
        assert fit_temperature(*many) == pytest.approx(fit_temperature(logits, indices), rel=1e-10)

    def test_the_bounds(self, indices):
        right = np.eye(C)[indices]
        assert fit_temperature(right, indices) == 0.01
        assert fit_temperature(-right, indices) == 100.0
        assert fit_temperature(np.zeros((N, C)), indices) == 100.0

    @pytest.mark.parametrize(
        ("logits", "labels", "message"),
        [
            (np.zeros((2, 3)), [0, 3], "class indices from 0 to 2, received from 0 to 3"),
            (np.zeros((2, 3)), [0], r"received \[2, 3\] and \[1\]"),
            (np.zeros((0, 3)), [], r"received \[0, 3\] and \[0\]"),
            (np.full((2, 3), np.nan), [0, 1], "expected finite logits"),
        ],
    )
    def test_refusals(self, logits, labels, message):
        with pytest.raises(DataError, match=message):
            fit_temperature(logits, labels)


class TestTemperature:
    def test_values(self, logits, indices):
        value = fed(Temperature(class_num=C), logits, indices, [10]).value()
        temperature = fit_temperature(logits, indices)
        calibrated = logits.astype("float64") / temperature
        expected = {
            "temperature": temperature,
            "calibrated_log_loss": fed(LogLoss(class_num=C), calibrated, indices).value(),
            "calibrated_ECE": fed(ECE(class_num=C), calibrated, indices).value(),
        }
        assert list(value) == list(expected)
        assert value["temperature"] == pytest.approx(temperature, rel=1e-10)
        for name in ("log_loss", "ECE"):
            before = fed({"ECE": ECE, "log_loss": LogLoss}[name](class_num=C), logits, indices)
            after = expected[f"calibrated_{name}"][name]
            assert value[f"calibrated_{name}"] == pytest.approx(after, rel=1e-6)
            assert after < before.value()[name]

    def test_images_without_a_class_and_lost_logits(self, logits, indices):
        some = np.where(np.arange(N) < 200, -1, indices)
        value = fed(Temperature(class_num=C), logits, some).value()
        expected = fit_temperature(logits[200:], indices[200:])
        assert value["temperature"] == pytest.approx(expected, rel=1e-10)
        logits[3] = np.nan
        value = fed(Temperature(class_num=C), logits, indices).value()
        assert np.isnan(list(value.values())).all()
