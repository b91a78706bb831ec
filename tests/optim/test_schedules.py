"""Learning rates against closed forms, Paddle's schedulers and the published recipe."""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.errors import ArgumentError
from ppcls.optim.schedules import Constant, Cosine, Linear, MultiStep, Piecewise, Step
from ppcls.registry import SCHEDULES

RUN = {"epochs": 10, "steps_per_epoch": 7}
STEPS = range(70)


def paddle_rates(scheduler, steps=STEPS):
    rates = []
    for _ in steps:
        rates.append(scheduler.last_lr)
        scheduler.step()
    return rates


def rates(schedule, steps=STEPS):
    return [schedule(step) for step in steps]


PUBLISHED = {
    1: "0.0001",
    2: "0.0334",
    3: "0.0667",
    4: "0.1",
    5: "0.09999364",
    100: "0.05199767",
    187: "0.00125084",
    200: "1.635704e-05",
}


class TestPublishedRecipe:
    """MobileNeXt: 200 epochs, 0.1 to 1e-5, three epochs of warm-up from 1e-4, by epoch."""

    @pytest.mark.parametrize("epoch", PUBLISHED)
    @pytest.mark.parametrize("iteration", [0, 1350, 2501])
    def test_every_published_digit(self, epoch, iteration):
        schedule = Cosine(0.1, 1e-5, 3, 1e-4, True, epochs=200, steps_per_epoch=2502)
        published = PUBLISHED[epoch]
        digits = len(published.split("e")[0].replace(".", "").lstrip("0"))
        rate = schedule((epoch - 1) * 2502 + iteration)
        assert float(f"{rate:.{digits - 1}e}") == float(published)
        assert schedule.name == "LinearWarmup"

    def test_cooldown(self):
        schedule = Constant(1e-5, epochs=210, steps_per_epoch=2502)
        assert {schedule(step) for step in range(200 * 2502, 210 * 2502, 999)} == {1e-5}
        assert schedule.name == "Constant"


ORACLES = {
    "Cosine": (
        {"eta_min": 0.01},
        lambda lr, n: lr.CosineAnnealingDecay(0.5, n(10), eta_min=0.01),
    ),
    "Linear": (
        {"end_lr": 0.05, "power": 2.0},
        lambda lr, n: lr.PolynomialDecay(0.5, n(10), end_lr=0.05, power=2.0),
    ),
    "Step": ({"step_size": 3}, lambda lr, n: lr.StepDecay(0.5, n(3))),
    "MultiStep": (
        {"milestones": [2, 5], "gamma": 0.3},
        lambda lr, n: lr.MultiStepDecay(0.5, [n(2), n(5)], gamma=0.3),
    ),
    "Piecewise": (
        {"decay_epochs": [2, 5], "values": [0.5, 0.2, 0.1]},
        lambda lr, n: lr.PiecewiseDecay([n(2), n(5)], [0.5, 0.2, 0.1]),
    ),
}


class TestAgainstPaddle:
    """Paddle's own schedulers, with their warm-up around them, as PaddleClas puts them together."""

    @pytest.mark.parametrize("name", ORACLES)
    def test_without_warmup(self, name):
        from paddle.optimizer import lr

        arguments, paddle_scheduler = ORACLES[name]
        ours = SCHEDULES.build(name, {"learning_rate": 0.5, **arguments}, **RUN)
        oracle = paddle_rates(paddle_scheduler(lr, lambda epochs: 7 * epochs))
        assert rates(ours) == pytest.approx(oracle, rel=1e-9)

    @pytest.mark.parametrize("name", ["Step", "MultiStep", "Piecewise"])
    def test_with_warmup_the_inner_schedule_counts_from_its_end(self, name):
        from paddle.optimizer import lr

        arguments, paddle_scheduler = ORACLES[name]
        arguments = {"learning_rate": 0.5, "warmup_epoch": 2, "warmup_start_lr": 0.1, **arguments}
        ours = SCHEDULES.build(name, arguments, **RUN)
        inner = paddle_scheduler(lr, lambda epochs: 7 * epochs)
        oracle = paddle_rates(lr.LinearWarmup(inner, 14, 0.1, 0.5))
        assert rates(ours) == pytest.approx(oracle, rel=1e-9)

    def test_cosine_after_warmup_ends_with_the_run(self):
        from paddle.optimizer import lr

        ours = Cosine(0.5, 0.01, warmup_epoch=2, warmup_start_lr=0.1, **RUN)
        inner = lr.CosineAnnealingDecay(0.5, 56, eta_min=0.01)
        oracle = paddle_rates(lr.LinearWarmup(inner, 14, 0.1, 0.5))
        assert rates(ours) == pytest.approx(oracle, rel=1e-9)

    def test_linear_by_epoch_warms_up_for_epochs(self):
        # PaddleClas multiplies by the steps of an epoch once more and never ends its warm-up.
        from paddle.optimizer import lr

        ours = Linear(0.5, warmup_epoch=2, by_epoch=True, **RUN)
        inner = lr.PolynomialDecay(0.5, 8, end_lr=0.0)
        oracle = paddle_rates(lr.LinearWarmup(inner, 2, 0.0, 0.5), range(10))
        assert [ours(7 * epoch + 3) for epoch in range(10)] == pytest.approx(oracle, rel=1e-9)

    def test_linear_with_cycle_beyond_the_end(self):
        from paddle.optimizer import lr

        ours = Linear(0.5, end_lr=0.1, cycle=True, epochs=2, steps_per_epoch=5)
        oracle = lr.PolynomialDecay(0.5, 10, end_lr=0.1, cycle=True)
        assert rates(ours, range(35)) == pytest.approx(paddle_rates(oracle, range(35)), rel=1e-9)


class TestClosedForms:
    def test_cosine(self):
        schedule = Cosine(0.4, 0.1, **RUN)
        assert schedule(0) == 0.4
        assert schedule(35) == pytest.approx(0.25)
        assert schedule(69) == pytest.approx(0.1 + 0.15 * (1 + math.cos(math.pi * 69 / 70)))

    @pytest.mark.parametrize("beyond", [70, 71, 700])
    def test_the_last_value_holds_after_the_end(self, beyond):
        assert Cosine(0.4, 0.1, **RUN)(beyond) == 0.1
        assert Linear(0.4, 0.1, **RUN)(beyond) == pytest.approx(0.1)
        assert Piecewise([3], [0.4, 0.1], **RUN)(beyond) == 0.1
        assert MultiStep(0.4, [3], **RUN)(beyond) == pytest.approx(0.04)
        assert Constant(0.4, **RUN)(beyond) == 0.4

    def test_by_epoch_is_constant_inside_an_epoch(self):
        schedule = Cosine(0.4, 0.01, by_epoch=True, warmup_epoch=2, **RUN)
        by_epoch = [{schedule(7 * epoch + i) for i in range(7)} for epoch in range(10)]
        assert all(len(found) == 1 for found in by_epoch)
        assert len(set.union(*by_epoch)) == 10

    def test_a_fraction_of_an_epoch_of_warmup_is_rounded_to_iterations(self):
        schedule = Constant(0.4, warmup_epoch=0.5, **RUN)  # 3.5 iterations, to even
        assert rates(schedule, range(6)) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4])

    def test_warmup_may_last_the_whole_run(self):
        for cls in (Constant, Cosine, Linear):
            schedule = cls(0.7, warmup_epoch=10, **RUN)
            assert schedule(69) == pytest.approx(0.69)
            assert schedule(70) >= 0

    def test_aliases_of_published_configurations(self):
        assert SCHEDULES.entry("ConstLR").builder is Constant
        assert SCHEDULES.entry("MultiStepDecay").builder is MultiStep

    def test_a_step_may_be_a_fraction_of_an_epoch(self):
        schedule = Step(0.256, 2.4, 0.97, epochs=10, steps_per_epoch=5)
        assert [schedule(s) for s in (0, 11, 12, 24)] == [
            0.256,
            0.256,
            0.256 * 0.97,
            0.256 * 0.97**2,
        ]

    def test_published_piecewise_gives_all_three(self):
        schedule = Piecewise([3, 6], [0.1, 0.01, 0.001], 0.1, **RUN)
        assert [schedule(s) for s in (0, 20, 21, 41, 42)] == [0.1, 0.1, 0.01, 0.01, 0.001]


REFUSALS = [
    (
        lambda: Cosine(0.1, warmup_epoch=300.0, epochs=200, steps_per_epoch=5),
        "warmup_epoch",
        "expected at most the 200 epochs of the run (Global.epochs), received 300",
    ),
    (
        lambda: Cosine(0.1, warmup_epoch=2.5, by_epoch=True, **RUN),
        "warmup_epoch",
        "expected whole epochs because by_epoch is on, received 2.5",
    ),
    (
        lambda: Constant(0.1, warmup_epoch=1, warmup_start_lr=0.2, **RUN),
        "warmup_start_lr",
        "expected at most the rate 0.1 that warm-up leads to, received 0.2",
    ),
    (
        lambda: Cosine(0.1, eta_min=1.0, **RUN),
        "eta_min",
        "expected at most the learning_rate 0.1, received 1.0",
    ),
    (
        lambda: Step(0.1, 2.4, by_epoch=True, **RUN),
        "step_size",
        "expected whole epochs because by_epoch is on, received 2.4",
    ),
    (
        lambda: Piecewise([3, 6], [0.1, 0.01], **RUN),
        "values",
        "expected 3 values, one more than decay_epochs, received 2",
    ),
    (
        lambda: Piecewise([6, 6], [0.1, 0.01, 0.001], **RUN),
        "decay_epochs",
        "expected rising epochs, received [6, 6]",
    ),
    (
        lambda: Piecewise([3], [0.1, 0.01], 0.2, **RUN),
        "learning_rate",
        "expected the first of values, 0.1, or nothing, received 0.2",
    ),
    (
        lambda: MultiStep(0.1, [5, 3], **RUN),
        "milestones",
        "expected rising epochs, received [5, 3]",
    ),
]


class TestRefusals:
    @pytest.mark.parametrize(("build", "argument", "message"), REFUSALS)
    def test_message_and_argument(self, build, argument, message):
        with pytest.raises(ArgumentError) as caught:
            build()
        assert (caught.value.argument, str(caught.value)) == (argument, message)


@st.composite
def schedules(draw):
    epochs = draw(st.integers(1, 20))
    base = draw(st.floats(1e-6, 10))
    by_epoch = draw(st.booleans())
    whole = st.integers(0, epochs - 1)
    common = {
        "warmup_epoch": draw(whole if by_epoch else whole | st.floats(0, epochs - 1)),
        "warmup_start_lr": draw(st.floats(0, base)),
        "by_epoch": by_epoch,
    }
    milestones = sorted(draw(st.sets(st.integers(1, 25), max_size=4)))
    values = draw(st.lists(st.floats(0, 10), min_size=len(milestones), max_size=len(milestones)))
    name, own = draw(
        st.sampled_from(
            [
                ("Constant", {}),
                ("Cosine", {"eta_min": base * draw(st.floats(0, 1))}),
                ("Linear", {"end_lr": draw(st.floats(0, 10)), "power": draw(st.floats(0.1, 4))}),
                ("Step", {"step_size": draw(st.integers(1, 25)), "gamma": 0.3}),
                ("MultiStep", {"milestones": milestones}),
                ("Piecewise", {"decay_epochs": milestones, "values": [base, *values]}),
            ]
        )
    )
    run = {"epochs": epochs, "steps_per_epoch": draw(st.integers(1, 30))}
    return SCHEDULES.build(name, {"learning_rate": base, **common, **own}, **run), common, run


@settings(max_examples=300, deadline=None)
@given(schedules())
def test_rates_are_not_negative_deterministic_and_meet_at_the_end_of_warmup(drawn):
    schedule, common, run = drawn
    per_epoch = run["steps_per_epoch"]
    steps = range(run["epochs"] * per_epoch + 5)
    found = rates(schedule, steps)
    assert min(found) >= 0
    assert found == rates(schedule, steps)
    unit = per_epoch if common["by_epoch"] else 1
    units = round(common["warmup_epoch"] * (1 if common["by_epoch"] else per_epoch))
    end = units * unit
    assert found[end] == pytest.approx(schedule.base_lr)
    if units:
        rise = (schedule.base_lr - common["warmup_start_lr"]) / units
        assert found[0] == common["warmup_start_lr"]
        assert found[end] - found[end - 1] == pytest.approx(rise, rel=1e-6, abs=1e-12)


def test_checking_a_configuration_does_not_import_paddle():
    code = """
import sys
from ppcls.registry import LOSSES, METRICS, OPTIMIZERS, REGULARIZERS, SCHEDULES
for registry in (LOSSES, METRICS, OPTIMIZERS, REGULARIZERS, SCHEDULES):
    for name in registry:
        registry.entry(name).arguments()
SCHEDULES.build("Cosine", {"learning_rate": 0.1}, epochs=2, steps_per_epoch=3)
LOSSES.build("CELoss", {"weight": 1.0})
METRICS.build("TopkAcc", {}, class_num=10)
REGULARIZERS.build("L2", {"coeff": 1e-4})
sys.exit("paddle" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
