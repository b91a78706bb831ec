"""Cycles, restarts, plateaus, and what all schedules share: against PyTorch and closed forms.

The rows of rates were computed with PyTorch 2.13 (``torch.optim.lr_scheduler``), 12 digits.
"""

import json
import math
import statistics

import pytest

from ppcls.errors import ArgumentError
from ppcls.optim.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Linear,
    MultiStep,
    OneCycle,
    ReduceOnPlateau,
    Run,
    Step,
)
from ppcls.registry import SCHEDULES

RUN = {"epochs": 10, "steps_per_epoch": 7}
LONG = {"epochs": 4, "steps_per_epoch": 5}  # 20 steps


def rates(schedule, count=20):
    return [schedule(step) for step in range(count)]


ONE_CYCLE = {  # OneCycleLR(0.5, total_steps=20, pct_start=0.3, div_factor=25, final_div_factor=100)
    ("cos", False): [
        0.02, 0.06583592135, 0.18583592135, 0.33416407865, 0.45416407865, 0.5, 0.493734485254,
        0.475252120089, 0.445479687469, 0.405910101484, 0.358527546405, 0.305707981396, 0.2501,
        0.194492018604, 0.141672453595, 0.0942898985155, 0.0547203125312, 0.0249478799112,
        0.00646551474576, 0.0002,
    ],
    ("cos", True): [
        0.02, 0.06583592135, 0.18583592135, 0.33416407865, 0.45416407865, 0.5, 0.45416407865,
        0.33416407865, 0.18583592135, 0.06583592135, 0.02, 0.0194029569458, 0.0176838399869,
        0.01505, 0.0118191169589, 0.0083808830411, 0.00515, 0.00251616001312, 0.00079704305422,
        0.0002,
    ],
    ("linear", False): [
        0.02, 0.116, 0.212, 0.308, 0.404, 0.5, 0.4643, 0.4286, 0.3929, 0.3572, 0.3215, 0.2858,
        0.2501, 0.2144, 0.1787, 0.143, 0.1073, 0.0716, 0.0359, 0.0002,
    ],
    ("linear", True): [
        0.02, 0.116, 0.212, 0.308, 0.404, 0.5, 0.404, 0.308, 0.212, 0.116, 0.02, 0.0178, 0.0156,
        0.0134, 0.0112, 0.009, 0.0068, 0.0046, 0.0024, 0.0002,
    ],
}  # fmt: skip
CYCLIC = {  # CyclicLR(0.1, 0.5, step_size_up=4, step_size_down=2, gamma=0.9)
    "triangular": [
        0.1, 0.2, 0.3, 0.4, 0.5, 0.3, 0.1, 0.2, 0.3, 0.4, 0.5, 0.3, 0.1, 0.2, 0.3, 0.4,
    ],
    "triangular2": [
        0.1, 0.2, 0.3, 0.4, 0.5, 0.3, 0.1, 0.15, 0.2, 0.25, 0.3, 0.2, 0.1, 0.125, 0.15, 0.175,
    ],
    "exp_range": [
        0.1, 0.19, 0.262, 0.3187, 0.36244, 0.218098, 0.1, 0.14782969, 0.186093442, 0.2162261467,
        0.23947137604, 0.162762119218, 0.1, 0.125418658283, 0.14575358491, 0.161767339628,
    ],
}  # fmt: skip
RESTARTS = {  # CosineAnnealingWarmRestarts(0.5, 3, T_mult, eta_min=0.01)
    1: [0.5, 0.3775, 0.1325] * 4,
    2: [
        0.5, 0.3775, 0.1325, 0.5, 0.467176223927, 0.3775, 0.255, 0.1325, 0.0428237760728,
        0.5, 0.491651827441, 0.467176223927, 0.428241161391, 0.3775,
    ],
}  # fmt: skip


class TestOneCycle:
    @pytest.mark.parametrize(("strategy", "three"), ONE_CYCLE)
    def test_rates_of_pytorch(self, strategy, three):
        schedule = OneCycle(0.5, 25.0, 2e-4, 0.3, strategy, three, **LONG)
        assert rates(schedule) == pytest.approx(ONE_CYCLE[strategy, three], rel=1e-9)

    def test_by_epoch_the_cycle_is_as_long_as_the_run(self):
        schedule = OneCycle(0.5, 25.0, 2e-4, by_epoch=True, epochs=20, steps_per_epoch=3)
        found = [schedule(3 * epoch + 2) for epoch in range(20)]
        assert found == pytest.approx(ONE_CYCLE["cos", False], rel=1e-9)

    def test_warmup_leads_to_the_first_rate_and_shortens_the_cycle(self):
        schedule = OneCycle(0.5, 25.0, 2e-4, warmup_epoch=1, epochs=5, steps_per_epoch=5 - 1)
        assert schedule(2) == pytest.approx(0.01)
        shorter = OneCycle(0.5, 25.0, 2e-4, epochs=4, steps_per_epoch=4)
        assert rates(schedule)[4:] == rates(shorter, 16)

    def test_the_end_holds_and_a_run_may_be_a_single_step(self):
        assert OneCycle(0.5, **LONG)(25) == 1e-10
        assert OneCycle(0.5, epochs=1, steps_per_epoch=1)(0) == 1e-10


@pytest.mark.parametrize("mode", CYCLIC)
def test_cyclic_has_the_rates_of_pytorch(mode):
    schedule = Cyclic(0.1, 0.5, 4, 2, mode, 0.9, **LONG)
    assert rates(schedule, 16) == pytest.approx(CYCLIC[mode], rel=1e-9)


class TestRestarts:
    @pytest.mark.parametrize("growth", RESTARTS)
    def test_rates_of_pytorch(self, growth):
        schedule = CosineRestarts(0.5, 3, growth, 0.01, lengths="steps", **LONG)
        expected = RESTARTS[growth]
        assert rates(schedule, len(expected)) == pytest.approx(expected, rel=1e-9)

    def test_each_cosine_may_start_lower(self):
        schedule = CosineRestarts(0.5, 2, decay=0.5, eta_min=0.2, by_epoch=True, **RUN)
        tops = [schedule(7 * epoch) for epoch in (0, 2, 4)]
        assert tops == pytest.approx([0.5, 0.25, 0.2])  # not below eta_min


class TestExponential:
    def test_rates_of_pytorch_by_epoch(self):
        schedule = Exponential(0.5, 0.9, by_epoch=True, **LONG)
        # ExponentialLR(0.9)
        expected = [0.5, 0.45, 0.405, 0.3645]
        assert [schedule(5 * epoch + 4) for epoch in range(4)] == pytest.approx(expected)

    def test_smooth_and_not_below_its_end(self):
        schedule = Exponential(0.5, 0.97, 2.4, end_lr=0.4, **RUN)
        assert schedule(3) == pytest.approx(0.5 * 0.97 ** (3 / (2.4 * 7)))
        assert schedule(7 * 24) == 0.4  # 0.5 * 0.97 ** 10 is 0.369


def test_linear_is_called_polynomial_too():
    schedule = SCHEDULES.build("Polynomial", {"learning_rate": 0.4, "power": 2.0}, **LONG)
    assert schedule(5) == pytest.approx(0.4 * 0.75**2)


class TestPlateau:
    METRICS = (0.5, 0.6, 0.6, 0.59, 0.6001, 0.55, 0.5, 0.5, 0.5, 0.5, 0.9, *[0.9] * 5)
    # ReduceLROnPlateau(mode="max", factor=0.5, patience=2, threshold=0.01, cooldown=1, min_lr=0.1)
    RATES = (*[0.5] * 5, *[0.25] * 4, *[0.125] * 5, *[0.1] * 3)
    SETTINGS = {  # noqa: RUF012
        "factor": 0.5, "patience": 2, "threshold": 0.01, "cooldown": 1, "min_lr": 0.1
    }  # fmt: skip

    def observed(self, metrics, settings, **shared):
        schedule = ReduceOnPlateau(0.5, **settings, **shared, epochs=20, steps_per_epoch=7)
        for epoch, metric in enumerate(metrics, 1):
            schedule.observe(metric, 7 * epoch)
        return schedule

    def test_rates_of_pytorch(self):
        schedule = self.observed(self.METRICS, self.SETTINGS)
        assert [schedule(7 * epoch) for epoch in range(17)] == pytest.approx(self.RATES)
        assert schedule(7 * 5 - 1) == 0.5  # the step before the reduction

    def test_smaller_is_better_if_so_configured(self):
        # ReduceLROnPlateau(mode="min", factor=0.1, patience=1, threshold=0.01, "abs")
        settings = {"mode": "min", "patience": 1, "threshold": 0.01, "threshold_mode": "abs"}
        schedule = self.observed([1, 0.8, 0.795, 0.79, 0.7, 0.7, 0.7, 0.7, 0.7], settings)
        found = [schedule(7 * epoch) for epoch in range(9)]
        assert found == pytest.approx([0.5] * 4 + [0.05] * 3 + [0.005] * 2)

    @pytest.mark.parametrize("stop", range(17))
    def test_resuming_from_json_changes_no_rate(self, stop):
        whole = self.observed(self.METRICS, self.SETTINGS)
        first = self.observed(self.METRICS[:stop], self.SETTINGS)
        second = self.observed([], self.SETTINGS)
        second.restore(json.loads(json.dumps(first.state())))
        for epoch, metric in enumerate(self.METRICS[stop:], stop + 1):
            second.observe(metric, 7 * epoch)
        assert rates(second, 140) == rates(whole, 140)
        assert second.state() == whole.state()

    def test_no_patience_is_lost_in_warmup(self):
        settings = {"patience": 0}
        schedule = self.observed([0.9, 0.1, 0.1, 0.1], settings, warmup_epoch=3)
        assert [schedule(7 * epoch) for epoch in (3, 4)] == pytest.approx([0.05, 0.005])

    def test_by_epoch_a_reduction_waits_for_the_next_epoch(self):
        schedule = ReduceOnPlateau(0.5, patience=0, by_epoch=True, **RUN)
        schedule.observe(0.5, 7)
        schedule.observe(0.5, 10)
        assert [schedule(step) for step in (13, 14)] == pytest.approx([0.5, 0.05])

    def test_other_schedules_have_no_state(self):
        schedule = Cosine(0.5, **RUN)
        before = rates(schedule)
        schedule.observe(0.1, 3)
        assert (schedule.state(), rates(schedule)) == ({}, before)


OWN = {
    "Constant": {"learning_rate": 0.5},
    "Cosine": {"learning_rate": 0.5, "eta_min": 0.01},
    "CosineRestarts": {"learning_rate": 0.5, "T_0": 2, "eta_min": 0.01},
    "Cyclic": {"base_learning_rate": 0.1, "max_learning_rate": 0.5, "step_size_up": 2},
    "Exponential": {"learning_rate": 0.5, "gamma": 0.5},
    "Linear": {"learning_rate": 0.5, "end_lr": 0.02},
    "MultiStep": {"learning_rate": 0.5, "milestones": [2, 5]},
    "OneCycle": {"max_learning_rate": 0.5},
    "Piecewise": {"decay_epochs": [2], "values": [0.5, 0.1]},
    "ReduceOnPlateau": {"learning_rate": 0.5},
    "Step": {"learning_rate": 0.5, "step_size": 3},
}
FLOORS = {"Cosine": 0.01, "CosineRestarts": 0.01, "Cyclic": 0.1, "Linear": 0.02, "OneCycle": 1e-10}


def build(name, **shared):
    return SCHEDULES.build(name, {**OWN[name], **shared}, **RUN)


def test_every_schedule_is_listed_here():
    builders = {SCHEDULES.entry(name).builder for name in SCHEDULES}
    assert {SCHEDULES.entry(name).builder for name in OWN} == builders


@pytest.mark.parametrize("name", OWN)
class TestShared:
    def test_the_signature_holds_its_own_arguments_and_the_shared_ones(self, name):
        entry = SCHEDULES.entry(name)
        shared = [field for field in Run.__dataclass_fields__ if field != "_"]
        assert [*entry.arguments()][-11:] == shared[:11]
        assert OWN[name].keys() <= entry.arguments().keys()
        assert entry.context() == {"epochs", "steps_per_epoch", "total_batch"}

    @pytest.mark.parametrize("by_epoch", [False, True])
    def test_cooldown_ends_the_schedule_earlier_and_stays_at_the_floor(self, name, by_epoch):
        schedule = build(name, cooldown_epoch=3, warmup_epoch=1, by_epoch=by_epoch)
        own = {**OWN[name], "warmup_epoch": 1, "by_epoch": by_epoch}
        shorter = SCHEDULES.build(name, own, epochs=7, steps_per_epoch=7)
        assert rates(schedule, 49) == rates(shorter, 49)
        [floor] = {schedule(step) for step in range(49, 75)}
        assert floor == pytest.approx(FLOORS.get(name, shorter(49)))

    def test_cooldown_at_a_rate_of_its_own(self, name):
        schedule = build(name, cooldown_epoch=3, cooldown_lr=1e-5)
        assert {schedule(step) for step in range(49, 70)} == {1e-5}
        assert schedule(48) != 1e-5

    def test_noise_within_its_part_of_the_run(self, name):
        clean = rates(build(name, cooldown_epoch=2), 70)
        noisy = build(name, cooldown_epoch=2, lr_noise=[0.5, 0.75], lr_noise_pct=0.3)
        factors = [n / c for n, c in zip(rates(noisy, 70), clean, strict=True)]
        assert factors[:28] == [1.0] * 28 and factors[42:] == [1.0] * 28
        assert all(0.7 < factor < 1.3 and factor != 1 for factor in factors[28:42])
        again = build(name, cooldown_epoch=2, lr_noise=[0.5, 0.75], lr_noise_pct=0.3)
        assert [again(step) for step in (40, 30)] == [noisy(step) for step in (40, 30)]

    def test_all_rates_grow_with_the_batch(self, name):
        arguments = {**OWN[name], "warmup_epoch": 2, "warmup_start_lr": 1e-3}
        plain = rates(SCHEDULES.build(name, arguments, **RUN), 70)
        arguments["base_batch_size"] = 256
        scaled = SCHEDULES.build(name, arguments, **RUN, total_batch=1024)
        assert rates(scaled, 70) == pytest.approx([4 * rate for rate in plain])

    def test_by_epoch_with_everything_on_is_constant_inside_an_epoch(self, name):
        schedule = build(name, by_epoch=True, warmup_epoch=1, lr_noise=[0.0], cooldown_epoch=1)
        epochs = [{schedule(7 * epoch + step) for step in range(7)} for epoch in range(10)]
        assert [len(found) for found in epochs] == [1] * 10


IN_EPOCHS_AND_STEPS = [
    ("Step", "step_size", 3, 21),
    ("MultiStep", "milestones", [2, 5], [14, 35]),
    ("CosineRestarts", "T_0", 2, 14),
    ("Exponential", "step_size", 1.5, 10.5),
    ("Cosine", "eta_min", 0.01, 0.01),
]


@pytest.mark.parametrize(("name", "argument", "epochs", "steps"), IN_EPOCHS_AND_STEPS)
def test_lengths_in_steps(name, argument, epochs, steps):
    ends = {"warmup_epoch": 1, "cooldown_epoch": 2, "cooldown_lr": 0.1}
    in_epochs = build(name, **{argument: epochs}, **ends)
    ends = {"warmup_epoch": 7, "cooldown_epoch": 14, "cooldown_lr": 0.1, "lengths": "steps"}
    in_steps = build(name, **{argument: steps}, **ends)
    assert rates(in_steps, 70) == rates(in_epochs, 70)


def test_noise_is_normal_cut_off_at_its_limit():
    schedule = Constant(1.0, lr_noise=[0.0], lr_noise_std=0.5, epochs=1, steps_per_epoch=4000)
    drawn = [rate - 1 for rate in rates(schedule, 4000)]
    assert max(map(abs, drawn)) < 0.67
    # A unit normal cut off at a has the variance 1 - 2 a phi(a) / (2 Phi(a) - 1); a = 0.67 / 0.5.
    a = 1.34
    inside = math.erf(a / math.sqrt(2))
    density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    deviation = 0.5 * math.sqrt(1 - 2 * a * density / inside)
    assert statistics.pstdev(drawn) == pytest.approx(deviation, rel=0.04)
    assert statistics.fmean(drawn) == pytest.approx(0, abs=4 * deviation / math.sqrt(4000))
    other = Constant(1.0, lr_noise=[0.0], lr_noise_seed=7, epochs=1, steps_per_epoch=9)
    same = Constant(1.0, lr_noise=[0.0], epochs=1, steps_per_epoch=9)
    assert rates(other, 9) != rates(same, 9)


REFUSALS = [
    (
        lambda: Cosine(0.1, 0.01, warmup_epoch=6, cooldown_epoch=5, **RUN),
        "cooldown_epoch",
        "expected at most the 4 epochs that warm-up leaves, received 5",
    ),
    (
        lambda: Linear(0.1, cooldown_epoch=2, **RUN),
        "cooldown_lr",
        "expected a rate, because the schedule ends at 0; received none",
    ),
    (
        lambda: Step(0.1, 3, lengths="steps", by_epoch=True, **RUN),
        "lengths",
        "expected 'epochs' because by_epoch is on",
    ),
    (
        lambda: Step(0.1, 2.4, lengths="steps", **RUN),
        "step_size",
        "expected whole steps, received 2.4",
    ),
    (
        lambda: Constant(0.1, lr_noise=[0.9, 0.4], **RUN),
        "lr_noise",
        "expected rising parts, received [0.9, 0.4]",
    ),
    (
        lambda: OneCycle(0.5, end_learning_rate=0.1, **RUN),
        "end_learning_rate",
        "expected at most the first rate, 0.02, received 0.1",
    ),
    (
        lambda: OneCycle(0.5, phase_pct=0.6, three_phase=True, **RUN),
        "phase_pct",
        "expected less than 0.5 because three_phase is on, received 0.6",
    ),
    (
        lambda: Cyclic(0.5, 0.1, 4, **RUN),
        "max_learning_rate",
        "expected at least the base_learning_rate 0.5, received 0.1",
    ),
    # Not known before the data set is read: at the first step.
    (
        lambda: Constant(0.1, base_batch_size=256, **RUN)(0),
        "base_batch_size",
        "expected a run that knows its total batch",
    ),
    (
        lambda: MultiStep(0.1, [50], warmup_epoch=60, cooldown_epoch=20, lengths="steps", **RUN)(0),
        "cooldown_epoch",
        "expected at most the 70 steps of the run, received 60 of warm-up and 20 of cool-down",
    ),
]


@pytest.mark.parametrize(("build_it", "argument", "message"), REFUSALS)
def test_refusals(build_it, argument, message):
    with pytest.raises(ArgumentError) as caught:
        build_it()
    assert (caught.value.argument, str(caught.value)) == (argument, message)
