"""Losses of classification against their formulas in NumPy."""

import numpy as np
import paddle
import pytest
from closed_forms import assert_agrees, kl, sigmoid, softmax, tensor

from ppcls.errors import ArgumentError, DataError
from ppcls.losses.bce import BCELoss
from ppcls.losses.ce import CELoss
from ppcls.losses.focal import FocalLoss
from ppcls.losses.jsd import JSDLoss
from ppcls.losses.multilabel import MultiLabelAsymmetricLoss, MultiLabelLoss
from ppcls.losses.soft_target import SoftTargetCrossEntropy

N, C = 6, 4
INDICES = np.array([0, 1, 2, 3, 1, 0])
ONEHOT = np.eye(C)[INDICES]
MIXTURE = 0.7 * ONEHOT + 0.3 * ONEHOT[::-1]
CLASS_WEIGHTS = [0.5, 2.0, 0.0, 1.5]
X = np.random.default_rng(7).normal(scale=2, size=(N, C))
LABELS = np.random.default_rng(8).integers(0, 2, size=(N, C)).astype("float32")


def weighted(x, target, epsilon, counted=1.0):
    """PyTorch's cross entropy with class weights and smoothing, for any target."""
    w = np.array(CLASS_WEIGHTS)
    smooth = (1 - epsilon) * target + epsilon / C
    losses = -(w * smooth * np.log(softmax(x))).sum(axis=1) * counted
    return losses.sum() / ((w * target).sum(axis=1) * counted).sum()


class TestCELoss:
    @pytest.mark.parametrize("epsilon", [0.0, 0.1])
    @pytest.mark.parametrize("targets", [INDICES, INDICES[:, None], MIXTURE.astype("float32")])
    def test_class_weights(self, targets, epsilon):
        loss = CELoss(3.0, epsilon, class_weights=CLASS_WEIGHTS)
        target = MIXTURE if targets.dtype == "float32" else ONEHOT
        assert_agrees(
            lambda x: loss(x, tensor(targets)), lambda x: 3 * weighted(x, target, epsilon), X
        )

    def test_class_weights_of_one_change_nothing(self):
        x, y = tensor(X.astype("float32")), tensor(INDICES)
        plain = CELoss(1.0, 0.1)(x, y).item()
        assert CELoss(1.0, 0.1, class_weights=[1] * C)(x, y).item() == pytest.approx(
            plain, rel=1e-6
        )

    @pytest.mark.parametrize("ignored", [-1, 255, 1])
    @pytest.mark.parametrize("epsilon", [0.0, 0.1])
    def test_ignored_images_are_as_if_they_were_not_there(self, ignored, epsilon):
        given = np.where(INDICES == 1, ignored, INDICES)
        kept = INDICES != 1
        loss = CELoss(1.0, epsilon, ignore_index=ignored)
        smooth = (1 - epsilon) * ONEHOT + epsilon / C
        assert_agrees(
            lambda x: loss(x, tensor(given)),
            lambda x: -(smooth * np.log(softmax(x))).sum(axis=1)[kept].mean(),
            X,
        )

    def test_ignored_images_and_class_weights(self):
        given = np.where(INDICES == 1, -1, INDICES)
        loss = CELoss(1.0, 0.1, class_weights=CLASS_WEIGHTS, ignore_index=-1)
        kept = (INDICES != 1).astype(float)
        assert_agrees(lambda x: loss(x, tensor(given)), lambda x: weighted(x, ONEHOT, 0.1, kept), X)

    def test_a_batch_of_ignored_images_has_no_loss_and_no_gradient(self):
        x = paddle.to_tensor(X.astype("float32"), stop_gradient=False)
        loss = CELoss(1.0, 0.1, ignore_index=-1)(x, tensor(np.full(N, -1)))
        loss.backward()
        assert loss.item() == 0
        assert not x.grad.numpy().any()

    def test_an_index_that_is_no_class_is_not_hidden_by_one_that_is_ignored(self):
        message = "expected class indices from 0 to 3, received indices from 0 to 4"
        targets = tensor([0, -1, 4, 0, 0, 0])
        with pytest.raises(DataError, match=message):
            CELoss(1.0, ignore_index=-1)(tensor(X), targets)

    def test_class_weights_of_another_number_of_classes(self):
        message = "expected 5 numbers, one a class, received 4"
        with pytest.raises(ArgumentError, match=message):
            CELoss(1.0, class_weights=CLASS_WEIGHTS, class_num=5)
        with pytest.raises(ArgumentError, match="expected 4 numbers, one a class, received 1"):
            CELoss(1.0, class_weights=[1.0])(tensor(X), tensor(INDICES))
        with pytest.raises(ArgumentError, match="expected a weight above 0, received zeros"):
            CELoss(1.0, class_weights=[0.0] * C)


def test_soft_target():
    loss = SoftTargetCrossEntropy(2.0)
    assert_agrees(
        lambda x: loss(x, tensor(MIXTURE)),
        lambda x: -2 * (MIXTURE * np.log(softmax(x))).sum(axis=1).mean(),
        X,
    )
    with pytest.raises(DataError, match="received class indices: without mixup or cutmix, CELoss"):
        loss(tensor(X), tensor(INDICES))


def binary(x, target, pos_weight=1.0):
    p = sigmoid(x)
    return -(pos_weight * target * np.log(p) + (1 - target) * np.log(1 - p))


class TestBCELoss:
    def test_a_mixture_above_the_threshold_is_both(self):
        both = (MIXTURE > 0.2).astype(float)
        assert both.sum() > N
        loss = BCELoss(2.0)
        assert_agrees(lambda x: loss(x, tensor(MIXTURE)), lambda x: 2 * binary(x, both).mean(), X)

    @pytest.mark.parametrize("pos_weight", [3.0, [1.0, 2.0, 3.0, 4.0]])
    def test_smoothing_and_positive_weights_without_a_threshold(self, pos_weight):
        target = 0.9 * ONEHOT + 0.1 / C
        loss = BCELoss(1.0, 0.1, target_threshold=None, reduction="sum", pos_weight=pos_weight)
        assert_agrees(
            lambda x: loss(x, tensor(INDICES)),
            lambda x: binary(x, target, np.array(pos_weight)).sum(),
            X,
        )

    def test_mistakes(self):
        with pytest.raises(DataError, match="from 0 to 3, received indices from 0 to 4"):
            BCELoss(1.0)(tensor(X), tensor([0, 1, 2, 3, 4, 0]))
        with pytest.raises(ArgumentError, match="expected 4 numbers, one a class, received 2"):
            BCELoss(1.0, pos_weight=[1.0, 2.0])(tensor(X), tensor(INDICES))


class TestMultiLabelLoss:
    @pytest.mark.parametrize("size_sum", [False, True])
    @pytest.mark.parametrize("epsilon", [None, 0.1])
    def test_value_and_gradient(self, size_sum, epsilon):
        target = (1 - (epsilon or 0)) * LABELS.astype("float64") + (epsilon or 0) / C
        loss = MultiLabelLoss(0.5, epsilon, size_sum)
        assert_agrees(
            lambda x: loss(x, tensor(LABELS)),
            lambda x: 0.5 * binary(x, target).mean() * (C if size_sum else 1),
            X,
        )

    def test_weights_of_rare_classes(self):
        ratio = np.array([0.1, 0.5, 0.9, 0.01])
        factors = np.where(LABELS > 0.5, np.exp(1 - ratio), np.exp(ratio))
        loss = MultiLabelLoss(1.0, size_sum=True, weight_ratio=True, label_ratio=ratio)
        assert_agrees(
            lambda x: loss(x, tensor(LABELS)),
            lambda x: (factors * binary(x, LABELS)).sum(axis=1).mean(),
            X,
        )

    def test_mistakes(self):
        with pytest.raises(DataError, match=r"one target a class, shape \[6, 4\], received \[6\]"):
            MultiLabelLoss(1.0)(tensor(X), tensor(INDICES))
        with pytest.raises(DataError, match=r"weight_ratio: expected the ratio .* received none"):
            MultiLabelLoss(1.0, weight_ratio=True)(tensor(X), tensor(LABELS))


class TestMultiLabelAsymmetricLoss:
    @pytest.mark.parametrize("constant", [True, False])
    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    @pytest.mark.parametrize("gammas", [(1, 4), (0, 0), (2, 1)])
    def test_value_and_gradient(self, gammas, reduction, constant):
        def focus(x):
            shifted = np.maximum(sigmoid(x) - 0.05, 0)
            return (1 - sigmoid(x)) ** gammas[0], shifted ** gammas[1]

        def terms(x, factors):
            log_no = np.log(np.minimum(1 - sigmoid(x) + 0.05, 1))
            yes, no = factors
            values = -(LABELS * yes * np.log(sigmoid(x)) + (1 - LABELS) * no * log_no)
            return getattr(values, reduction)()

        fixed = focus(X.astype("float32").astype("float64"))
        loss = MultiLabelAsymmetricLoss(
            1.0, *gammas, disable_focal_loss_grad=constant, reduction=reduction
        )
        assert_agrees(
            lambda x: loss(x, tensor(LABELS)),
            lambda x: terms(x, focus(x)),
            X,
            constant=(lambda x: terms(x, fixed)) if constant else None,
        )

    def test_without_focus_and_clip_it_is_binary_cross_entropy(self):
        loss = MultiLabelAsymmetricLoss(1.0, 0, 0, clip=None)
        assert_agrees(lambda x: loss(x, tensor(LABELS)), lambda x: binary(x, LABELS).sum(), X)

    def test_sure_answers_have_finite_losses_and_gradients(self):
        for clip in (0.05, None):
            x = paddle.to_tensor([[200.0, -200.0, 200.0, -200.0]], stop_gradient=False)
            loss = MultiLabelAsymmetricLoss(1.0, 0.5, 0, clip, disable_focal_loss_grad=False)
            value = loss(x, paddle.to_tensor([[1.0, 0.0, 0.0, 1.0]]))
            value.backward()
            assert np.isfinite(value.item())
            assert np.isfinite(x.grad.numpy()).all()


class TestFocalLoss:
    @pytest.mark.parametrize("gamma", [0, 0.5, 2])
    @pytest.mark.parametrize("alpha", [None, CLASS_WEIGHTS])
    @pytest.mark.parametrize("targets", [INDICES, MIXTURE.astype("float32")])
    def test_softmax(self, gamma, alpha, targets):
        target = (MIXTURE if targets.ndim == 2 else ONEHOT) * np.array(alpha or [1.0] * C)
        loss = FocalLoss(2.0, gamma, alpha)

        def formula(x):
            p = softmax(x)
            return -2 * (target * (1 - p) ** gamma * np.log(p)).sum(axis=1).mean()

        assert_agrees(lambda x: loss(x, tensor(targets)), formula, X)

    @pytest.mark.parametrize("targets", [INDICES, LABELS])
    def test_sigmoid_is_the_papers(self, targets):
        yes = (ONEHOT if targets.ndim == 1 else LABELS) > 0
        loss = FocalLoss(1.0, 2.0, 0.25, "sigmoid")

        def formula(x):  # equation 5, with p_t and alpha_t as the paper has them
            p_t = np.where(yes, sigmoid(x), 1 - sigmoid(x))
            alpha_t = np.where(yes, 0.25, 0.75)
            return -(alpha_t * (1 - p_t) ** 2 * np.log(p_t)).sum(axis=1).mean()

        assert_agrees(lambda x: loss(x, tensor(targets)), formula, X)

    def test_what_is_right_already_counts_less(self):
        # Section 3.2: with gamma 2, p_t = 0.9 counts 100 times less than with cross entropy.
        x = paddle.to_tensor([[np.log(9.0), 0.0]])
        plain, focal = (FocalLoss(1.0, gamma)(x, tensor([0])).item() for gamma in (0, 2))
        assert plain / focal == pytest.approx(100, rel=1e-4)

    @pytest.mark.parametrize("gamma", [0, 0.5, 2])
    def test_an_answer_as_sure_as_32_bits_can_be(self, gamma):
        x = paddle.to_tensor([[200.0, 0.0]], stop_gradient=False)
        FocalLoss(1.0, gamma)(x, tensor([0])).backward()
        np.testing.assert_allclose(x.grad.numpy(), 0, atol=1e-20)

    @pytest.mark.parametrize(
        ("alpha", "activation", "expected"),
        [(0.25, "softmax", "a list, one number a class,"), ([1.0], "sigmoid", "one number")],
    )
    def test_an_alpha_of_the_other_activation(self, alpha, activation, expected):
        with pytest.raises(ArgumentError, match=f"expected {expected} for {activation}"):
            FocalLoss(1.0, alpha=alpha, activation=activation)


class TestJSDLoss:
    VIEWS = np.random.default_rng(9).normal(scale=2, size=(3 * N, C))

    @pytest.mark.parametrize("targets", [np.tile(INDICES, 3), np.tile(MIXTURE, (3, 1))])
    def test_value_and_gradient(self, targets):
        target = ONEHOT if targets.ndim == 1 else MIXTURE
        smooth = 0.9 * target + 0.1 / C
        loss = JSDLoss(2.0, epsilon=0.1)

        def formula(x):
            views = softmax(x).reshape(3, N, C)
            clean = -(smooth * np.log(views[0])).sum(axis=1).mean()
            mean = views.mean(axis=0)
            return 2 * (clean + 12 * np.mean([kl(view, mean) for view in views]))

        assert_agrees(lambda x: loss(x, tensor(targets)), formula, self.VIEWS)

    def test_views_that_agree_cost_nothing(self):
        x, y = tensor(X.astype("float32")), tensor(INDICES)
        found = JSDLoss(1.0, views=2)(paddle.concat([x, x]), paddle.concat([y, y])).item()
        assert found == pytest.approx(CELoss(1.0)(x, y).item(), rel=1e-5)

    def test_rows_that_are_not_all_views(self):
        with pytest.raises(DataError, match="3 views of every picture, received 18 rows of logits"):
            JSDLoss(1.0)(tensor(self.VIEWS), tensor(INDICES))
