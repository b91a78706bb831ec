"""Losses between networks against their formulas in NumPy."""

import inspect
import re

import numpy as np
import paddle
import pytest
from closed_forms import assert_agrees, kl, sigmoid, softmax, tensor

from ppcls.config import ConfigError, load_config
from ppcls.config.types import convert
from ppcls.errors import ArgumentError, DataError
from ppcls.losses import CombinedLoss
from ppcls.losses.ce import CELoss
from ppcls.losses.multilabel import MultiLabelLoss
from ppcls.losses.pairs import (
    DistanceLoss,
    DistillationTokenLoss,
    DKDLoss,
    DMLLoss,
    KLDivLoss,
)
from ppcls.registry import LOSSES, Spec

N, C = 5, 4
RNG = np.random.default_rng(3)
STUDENT = RNG.normal(scale=2, size=(N, C))
TEACHER = RNG.normal(scale=2, size=(N, C)).astype("float32").astype("float64")
TOKEN = RNG.normal(scale=2, size=(N, C)).astype("float32").astype("float64")
INDICES = np.array([0, 1, 2, 3, 1])
ONEHOT = np.eye(C)[INDICES]
LABELS = RNG.integers(0, 2, size=(N, C)).astype("float32")
PAIR = [["Student", "Teacher"]]


def kd(x, t):
    return t**2 * kl(softmax(TEACHER / t), softmax(x / t)).mean()


def decoupled(x, t, alpha, beta, classes):
    """Equations 4 to 7 of the paper, image by image."""
    total = 0.0
    for student, teacher, y in zip(softmax(x / t), softmax(TEACHER / t), classes, strict=True):
        b_s, b_t = (np.array([[p[y], 1 - p[y]]]) for p in (student, teacher))
        n_s, n_t = (np.delete(p, y)[None] / (1 - p[y]) for p in (student, teacher))
        total += (alpha * kl(b_t, b_s) + beta * kl(n_t, n_s)).item()
    return t**2 * total / len(classes)


def mutual(p, q):
    return 0.5 * (p - q) * (np.log(p) - np.log(q))


class TestPairs:
    @pytest.mark.parametrize("t", [1.0, 4.0])
    def test_kl(self, t):
        loss = KLDivLoss(t)
        assert_agrees(lambda x: loss(x, tensor(TEACHER)), lambda x: kd(x, t), STUDENT)

    @pytest.mark.parametrize("t", [1.0, 4.0])
    def test_decoupled(self, t):
        loss = DKDLoss(t, 1.0, 8.0)
        assert_agrees(
            lambda x: loss(x, tensor(TEACHER), tensor(INDICES)),
            lambda x: decoupled(x, t, 1.0, 8.0, INDICES),
            STUDENT,
        )

    def test_decoupled_parts_add_up_to_the_whole(self):
        # Equation 6: KD = TCKD + (1 - p_t) * NCKD, here for one image.
        x, teacher, y = (tensor(a[:1]) for a in (STUDENT, TEACHER, INDICES))
        rest = 1 - softmax(TEACHER[:1])[0, INDICES[0]]
        found = DKDLoss(1.0, 1.0, float(rest))(x, teacher, y).item()
        assert found == pytest.approx(KLDivLoss(1.0)(x, teacher).item(), rel=1e-5)

    def test_decoupled_from_the_teachers_choice_or_a_mixture(self):
        x, teacher, y = tensor(STUDENT), tensor(TEACHER), tensor(INDICES)
        choice = decoupled(STUDENT, 1, 1, 1, TEACHER.argmax(axis=1))
        found = DKDLoss(use_target_as_gt=True)(x, teacher, y).item()
        assert found == pytest.approx(choice, rel=1e-5)
        mixture = tensor((0.7 * ONEHOT + 0.3 * ONEHOT[::-1]).astype("float32"))
        assert DKDLoss()(x, teacher, mixture).item() == DKDLoss()(x, teacher, y).item()

    @pytest.mark.parametrize("loss", [KLDivLoss(), DKDLoss()])
    def test_the_teacher_is_a_constant(self, loss):
        x, teacher = (paddle.to_tensor(a, stop_gradient=False) for a in (STUDENT, TEACHER))
        loss(x, teacher).backward()
        assert x.grad is not None
        assert teacher.grad is None

    @pytest.mark.parametrize("act", ["softmax", "sigmoid"])
    @pytest.mark.parametrize("sums", [False, True])
    def test_mutual(self, act, sums):
        f = softmax if act == "softmax" else sigmoid
        loss = DMLLoss(act, sums)

        def formula(x):
            return mutual(f(x), f(TEACHER)).sum(axis=1).mean() * (C if sums else 1)

        assert_agrees(lambda x: loss(x, tensor(TEACHER)), formula, STUDENT)
        assert_agrees(lambda x: loss(tensor(TEACHER), x), formula, STUDENT)  # both learn

    def test_mutual_of_probabilities(self):
        p, q = softmax(STUDENT), softmax(TEACHER)
        found = DMLLoss(None)(tensor(p), tensor(q)).item()
        assert found == pytest.approx(mutual(p, q).sum(axis=1).mean(), rel=1e-5)

    def test_mutual_with_weights_of_rare_classes(self):
        ratio = np.array([0.1, 0.5, 0.9, 0.01])
        factors = np.where(LABELS > 0.5, np.exp(1 - ratio), np.exp(ratio))
        loss = DMLLoss("sigmoid", weight_ratio=True, label_ratio=ratio)
        assert_agrees(
            lambda x: loss(x, tensor(TEACHER), tensor(LABELS)),
            lambda x: (factors * mutual(sigmoid(x), sigmoid(TEACHER))).sum(axis=1).mean(),
            STUDENT,
        )

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    @pytest.mark.parametrize("mode", ["l1", "l2", "smooth_l1"])
    def test_distance(self, mode, reduction):
        def formula(x):
            d = np.abs(x - TEACHER)
            huber = np.where(d < 0.7, d**2 / 2, 0.7 * d - 0.7**2 / 2)
            values = {"l1": d, "l2": d**2, "smooth_l1": huber}[mode]
            return getattr(values, reduction)()

        loss = DistanceLoss(mode, reduction, delta=0.7)
        assert_agrees(lambda x: loss(x, tensor(TEACHER)), formula, STUDENT)

    @pytest.mark.parametrize("loss", [KLDivLoss(), DMLLoss(), DKDLoss(), DistanceLoss()])
    def test_shapes_are_not_broadcast(self, loss):
        message = r"two outputs of one shape, received \[5, 4\] and \[1, 4\]"
        with pytest.raises(DataError, match=message):
            loss(tensor(STUDENT), tensor(TEACHER[:1]))

    def test_sure_answers_have_finite_gradients(self):
        teacher = paddle.to_tensor([[-300.0, 300.0, 0.0]])
        for loss in (KLDivLoss(1.0), DMLLoss(), DMLLoss("sigmoid"), DKDLoss()):
            x = paddle.to_tensor([[300.0, -300.0, 0.0]], stop_gradient=False)
            value = loss(x, teacher)
            value.backward()
            assert np.isfinite(value.item())
            assert np.isfinite(x.grad.numpy()).all()


class TestDistillationToken:
    CHOICE = np.eye(C)[TEACHER.argmax(axis=1)]

    def soft(self, token):
        return 9.0 * kl(softmax(TEACHER / 3), softmax(token / 3)).mean()

    def hard(self, token):
        return -(self.CHOICE * np.log(softmax(token))).sum(axis=1).mean()

    @pytest.mark.parametrize(("mode", "alpha"), [("hard", 0.5), ("soft", 0.1)])
    def test_value_and_gradient_of_both_tokens(self, mode, alpha):
        loss = DistillationTokenLoss(mode, alpha, 3.0, epsilon=0.1)
        teacher, targets = tensor(TEACHER), tensor(INDICES)
        smooth = 0.9 * ONEHOT + 0.1 / C

        def formula(x, token):
            label = -(smooth * np.log(softmax(x))).sum(axis=1).mean()
            return (1 - alpha) * label + alpha * getattr(self, mode)(token)

        assert_agrees(
            lambda x: loss(x, tensor(TOKEN), teacher, targets), lambda x: formula(x, TOKEN), STUDENT
        )
        assert_agrees(
            lambda x: loss(tensor(TOKEN), x, teacher, targets), lambda x: formula(TOKEN, x), STUDENT
        )


def build(kind, **arguments):
    """As a configuration does: every value checked against the signature."""
    known = LOSSES.entry(kind).arguments()
    return LOSSES.build(kind, {k: convert(v, known[k].annotation) for k, v in arguments.items()})


OUTPUTS = {"Student": STUDENT, "Teacher": TEACHER, "Student2": TOKEN}


def outputs(key=None):
    tensors = {name: tensor(array) for name, array in OUTPUTS.items()}
    return tensors if key is None else {name: {key: t} for name, t in tensors.items()}


FORMULAS = {
    "DistillationCELoss": lambda x: -(softmax(TEACHER) * np.log(softmax(x))).sum(axis=1).mean(),
    "DistillationDMLLoss": lambda x: mutual(softmax(x), softmax(TEACHER)).sum(axis=1).mean(),
    "DistillationKLDivLoss": lambda x: kd(x, 4.0),
    "DistillationDKDLoss": lambda x: decoupled(x, 1.0, 1.0, 1.0, INDICES),
    "DistillationDistanceLoss": lambda x: ((x - TEACHER) ** 2).mean(),
}


@pytest.mark.parametrize("key", [None, "logits", "blocks5"])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_published_loss_with_its_defaults(name, key):
    loss = build(name, weight=0.5, model_name_pairs=PAIR, **({"key": key} if key else {}))
    for given in (outputs(key), *([outputs(), outputs("logits")] if key != "blocks5" else [])):
        value = loss(given, tensor(INDICES)).item()
        assert value == pytest.approx(0.5 * FORMULAS[name](STUDENT), rel=1e-5)
    assert loss.models == {"Student", "Teacher"}


@pytest.mark.parametrize("name", FORMULAS)
def test_pairs_add_up(name):
    pairs = [*PAIR, ["Student2", "Teacher"]]
    value = build(name, weight=1.0, model_name_pairs=pairs)(outputs(), tensor(INDICES)).item()
    formula = FORMULAS[name]
    assert value == pytest.approx(formula(STUDENT) + formula(TOKEN), rel=1e-5)


def test_cross_entropy_with_the_targets():
    loss = build("DistillationGTCELoss", weight=2.0, model_names=["Student", "Student2"])
    y = tensor(INDICES)
    wanted = sum(2 * CELoss(1.0)(tensor(x), y).item() for x in (STUDENT, TOKEN))
    assert loss(outputs(), y).item() == pytest.approx(wanted, rel=1e-6)


def test_binary_cross_entropy_with_the_targets_of_multi_label_pictures():
    arguments = {"epsilon": 0.1, "size_sum": True, "weight_ratio": True}
    names = ["Student", "Teacher"]
    ratio = np.array([0.1, 0.5, 0.9, 0.01])
    given = {"weight": 2.0, "model_names": names, **arguments}
    spec = Spec(LOSSES, "DistillationMultiLabelLoss", given)
    loss = spec.build(label_ratio=ratio)  # as the engine has to
    alone = MultiLabelLoss(2.0, **arguments, label_ratio=ratio)
    wanted = sum(alone(tensor(OUTPUTS[name]), tensor(LABELS)).item() for name in names)
    assert loss(outputs(), tensor(LABELS)).item() == pytest.approx(wanted, rel=1e-6)


def test_a_smoothed_teacher():
    # PaddleClas smooths the teacher's logits here, not its probabilities.
    loss = build("DistillationCELoss", weight=1.0, model_name_pairs=PAIR, epsilon=0.2)
    target = 0.8 * softmax(TEACHER) + 0.2 / C
    wanted = -(target * np.log(softmax(STUDENT))).sum(axis=1).mean()
    assert loss(outputs(), tensor(INDICES)).item() == pytest.approx(wanted, rel=1e-5)


def test_distance_of_activated_outputs():
    arguments = {"weight": 1.0, "model_name_pairs": PAIR, "mode": "l1", "act": "softmax"}
    loss = build("DistillationDistanceLoss", **arguments)
    wanted = np.abs(softmax(STUDENT) - softmax(TEACHER)).mean()
    assert loss(outputs(), tensor(INDICES)).item() == pytest.approx(wanted, rel=1e-5)
    assert loss.name == "loss_l1"


def test_deit_from_outputs():
    given = {
        "Student": {"logits": tensor(STUDENT), "distillation": tensor(TOKEN)},
        "Teacher": tensor(TEACHER),
    }
    loss = build("DistillationDeiTLoss", weight=2.0, model_name_pairs=PAIR, mode="soft", alpha=0.1)
    arguments = (tensor(a) for a in (STUDENT, TOKEN, TEACHER, INDICES))
    wanted = 2 * DistillationTokenLoss("soft", 0.1)(*arguments).item()
    assert loss(given, tensor(INDICES)).item() == pytest.approx(wanted, rel=1e-6)


PUBLISHED = """\
Arch: {name: DistillationModel, class_num: 4, models: [Student: &net {name: MobileNeXt_x0_1, \
  return_patterns: [blocks5]}, Student2: *net, Teacher: *net]}
Loss:
  Train:
    - DistillationGTCELoss:
        weight: 1.0
        key: logits
        model_names: ["Student", "Student2"]
    - DistillationDMLLoss:
        weight: 1.0
        key: logits
        model_name_pairs:
        - ["Student", "Student2"]
    - DistillationDistanceLoss:
        weight: 1.0
        key: "blocks5"
        model_name_pairs:
        - ["Student", "Teacher"]
    - DistillationDKDLoss:
        weight: 1.0
        model_name_pairs: [["Student", "Teacher"]]
        temperature: 1
        alpha: 1.0
        beta: 1.0
"""


def test_a_configuration_as_it_is_published(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(PUBLISHED, encoding="utf-8")
    section = load_config(path).Loss
    given = {model: {"logits": t, "blocks5": t + 1} for model, t in outputs().items()}
    found = CombinedLoss([spec.build() for spec in section.Train])(given, tensor(INDICES))
    assert list(found) == ["loss_gt_ce", "loss_dml", "loss_l2", "loss_dkd", "loss"]
    assert found["loss_l2"].item() == pytest.approx(((STUDENT - TEACHER) ** 2).mean(), rel=1e-5)


def test_a_mistake_in_a_configuration_is_reported_at_its_line(tmp_path):
    path = tmp_path / "a.yaml"
    wrong = PUBLISHED.replace('"Student", "Teacher"]\n', '"Student"]\n')
    path.write_text(wrong, encoding="utf-8")
    place = "Loss.Train.2.DistillationDistanceLoss.model_name_pairs.0"
    message = re.escape(f"a.yaml:17: {place}: expected a list of texts")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_log_names_are_unique_and_the_sum_is_of_all():
    loss = CombinedLoss(
        [
            build("DistillationGTCELoss", weight=1.0, model_names=["Student"]),
            build("DistillationKLDivLoss", weight=0.5, model_name_pairs=PAIR),
            build("DistillationKLDivLoss", weight=2.0, model_name_pairs=PAIR, name="loss"),
            build("DistillationKLDivLoss", weight=1.0, model_name_pairs=PAIR, name="loss_2"),
            build("DistillationKLDivLoss", weight=1.0, model_name_pairs=PAIR),
        ]
    )
    found = loss(outputs(), tensor(INDICES))
    names = ["loss_gt_ce", "loss_kl", "loss_2", "loss_2_2", "loss_kl_2", "loss"]
    assert list(found) == loss.names == names
    *parts, total = (value.item() for value in found.values())
    assert total == pytest.approx(sum(parts), rel=1e-6)


class TestMistakes:
    def call(self, given, **arguments):
        build("DistillationKLDivLoss", weight=1.0, **arguments)(given, tensor(INDICES))

    def test_a_model_that_is_not_there(self):
        message = "'Student2'; received 'Techer'; did you mean 'Teacher'?"
        with pytest.raises(ArgumentError, match=message):
            self.call(outputs(), model_name_pairs=[["Student", "Techer"]])

    def test_a_key_that_is_not_there(self):
        message = "expected an output of 'Student', 'blocks5'; received 'block5'; did you mean"
        with pytest.raises(ArgumentError, match=message):
            self.call(outputs("blocks5"), model_name_pairs=PAIR, key="block5")
        with pytest.raises(ArgumentError, match="'Student' gives logits only; received 'blocks5'"):
            self.call(outputs(), model_name_pairs=PAIR, key="blocks5")

    def test_outputs_of_one_network(self):
        message = "expected the outputs of a DistillationModel, received those of one network"
        with pytest.raises(ArgumentError, match=message):
            self.call(tensor(STUDENT), model_name_pairs=PAIR)

    def test_a_model_with_itself(self):
        with pytest.raises(ArgumentError, match="two different models in a pair"):
            build("DistillationDMLLoss", weight=1.0, model_name_pairs=[["Student", "Student"]])

    @pytest.mark.parametrize("pairs", [[], ["Student", "Teacher"], [["Student"]]])
    def test_what_is_no_list_of_pairs(self, pairs):
        with pytest.raises(ValueError, match="expected a list of"):
            build("DistillationDMLLoss", weight=1.0, model_name_pairs=pairs)


def test_every_loss_has_a_weight_without_a_default():
    for name in LOSSES.names():
        assert LOSSES.entry(name).arguments()["weight"].default is inspect.Parameter.empty, name
