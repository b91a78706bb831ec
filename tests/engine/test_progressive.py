"""Progressive learning: stages of a run, exact resume within each, both ways to write them."""

import json
import signal

import numpy as np
import pytest
import support

from ppcls.config import ConfigError
from ppcls.config.stages import stages_of

pytest.importorskip("paddle")
from ppcls.engine.handler import Handler
from ppcls.engine.progressive import schedule_step
from ppcls.errors import Stopped

TRAIN = "DataLoader.Train.dataset"
NORMAL = {"NormalizeImage": {"mean": [0.5] * 3, "std": [0.5] * 3}}
STAGES = [
    {"size": 32, "magnitude": 1, "mixup": 0.0, "dropout": 0.0, "batch_size": 12},
    {"size": 40, "magnitude": 5, "mixup": 0.5, "dropout": 0.3, "batch_size": 5},
    {"size": 48, "magnitude": 9, "mixup": 1.0, "dropout": 0.5, "batch_size": 8},
]


def transforms(crop=None, augment=None):
    operations = [{"DecodeImage": None}, {"RandCropImage": {"size": 32, **(crop or {})}}]
    operations += [{"RandAugmentV2": augment or {}}, NORMAL, {"ToCHWImage": None}]
    return f"{TRAIN}.transform_ops={json.dumps(operations)}"


MIXUP = f"{TRAIN}.batch_transform_ops=[{{MixupOperator: {{alpha: 1.0}}}}]"
QUIET = ["Global.eval_during_train=False", "Global.epochs=3", "Global.save_interval=9"]
LR = "Optimizer.lr={_replace_: true, name: Cosine, learning_rate: 0.002, warmup_epoch: 1}"
RUN = [transforms(), MIXUP, *QUIET, LR, "DataLoader.Train.sampler.drop_last=False"]


def staged(stages):
    return f"Progressive.stages={json.dumps(stages)}"


class Watch(Handler):
    """Notes what each batch was trained with; may send a signal at one."""

    def __init__(self, stop_at=None):
        self.seen, self._stop_at = [], stop_at

    def step_end(self, trainer, step):
        state = trainer.state
        dropout = trainer.net.classifier[0].p
        self.seen.append((state.epoch, step.samples, dropout, step.lr))
        if (state.epoch, step.index) == self._stop_at:
            signal.raise_signal(signal.SIGTERM)


def fit(path, *overrides, stop_at=None):
    from ppcls import Trainer
    from ppcls.engine.distributed import World
    from ppcls.engine.handlers import default_handlers

    import paddle  # isort: skip

    watch = Watch(stop_at)
    config = support.load(path, *overrides)
    handlers = default_handlers(config, World())
    with paddle.utils.unique_name.guard():
        trainer = Trainer(config, [*handlers[:-1], watch, handlers[-1]])
        trainer.fit()
    return watch.seen


def test_a_run_stopped_within_a_stage_ends_in_the_same_bits(config_file, run_folder, tmp_path):
    """24 samples: 2, 5 and 3 batches. Stopped in the second stage; 2 readers, then none."""
    arguments = [*RUN, staged(STAGES)]
    seen = fit(config_file, *arguments)
    assert [(epoch, dropout) for epoch, _, dropout, _ in seen] == [
        *[(1, 0.0)] * 2,
        *[(2, 0.3)] * 5,
        *[(3, 0.5)] * 3,
    ]
    assert [samples for _, samples, *_ in seen] == [12, 12, 5, 5, 5, 5, 4, 8, 8, 8]
    other = tmp_path / "other"
    arguments += [f"Global.output_dir={other}"]
    with pytest.raises(Stopped, match="in epoch 2, after step 5"):
        fit(config_file, *arguments, "DataLoader.Train.loader.num_workers=2", stop_at=(2, 2))
    resume = f"Global.checkpoints={other / support.NET / 'latest'}"
    rest = fit(config_file, *arguments, resume)
    assert rest == seen[5:]
    assert support.same_files(run_folder / "latest", other / support.NET / "latest") == []
    log = support.text_of(run_folder / "train.log")
    assert "stage 2 of 3, to epoch 2: size 40, magnitude 5, mixup 0.5, dropout 0.3" in log


def test_the_schedule_is_as_far_as_the_epoch_is(config_file):
    """Nominal batches of 8, 3 an epoch: rates depend on the part of the run, not on the batches."""
    config = support.load(config_file, *RUN, staged(STAGES))
    schedule = config.Optimizer.arguments["lr"].build(epochs=3, steps_per_epoch=3)
    steps = [0, 1, 3, 3, 4, 4, 5, 6, 7, 8]  # 3 x 1/2 is 1; 3 x 0/5, 1/5, 2/5, 3/5, 4/5
    lrs = [lr for *_, lr in fit(config_file, *RUN, staged(STAGES))]
    np.testing.assert_array_equal(lrs, [schedule(step) for step in steps])


@pytest.mark.parametrize(
    ("batch", "every", "step"),
    [(0, 1, 10), (6, 1, 13), (19, 1, 19), (20, 1, 20), (7, 4, 3), (19, 4, 5)],
)
def test_the_step_of_a_batch(batch, every, step):
    class Reader:
        def __len__(self):
            return 10

        def batches_in(self, epoch):
            return 20

    assert schedule_step(Reader(), 2, batch, every) == step


def test_the_published_form_is_the_same(config_file):
    """Its lists, and the dropout that PaddleClas has in its code for EfficientNetV2_S."""
    config = support.load(
        config_file,
        transforms(
            {"progress_size": [171, 214, 257, 300]},
            {"progress_magnitude": [5.0, 8.3333333333, 11.66666666667, 15.0]},
        ),
        "Global.train_mode=progressive",
        "Global.epochs=350",
        "Arch={_replace_: true, name: EfficientNetV2_S, class_num: 3}",
    )
    stages = list(stages_of(config))
    assert [stage.until for stage in stages] == [87, 175, 262, 350]
    assert [stage.size for stage in stages] == [171, 214, 257, 300]
    np.testing.assert_allclose([s.magnitude for s in stages], np.linspace(5, 15, 4), rtol=1e-9)
    np.testing.assert_allclose([s.dropout for s in stages], np.linspace(0.1, 0.3, 4), rtol=1e-12)


SIZES = {"progress_size": [16, 32]}
ON = "Global.train_mode=progressive"


@pytest.mark.parametrize(
    ("overrides", "path", "message"),
    [
        ([ON], "Global.train_mode", "expected stages"),
        (["Global.train_mode=fixmatch"], "Global.train_mode", "'progressive' or null, received"),
        (
            [transforms(SIZES)],
            f"{TRAIN}.transform_ops.1.RandCropImage.progress_size",
            "expected Global.train_mode 'progressive' with it, received null",
        ),
        (
            [ON, transforms(SIZES, {"progress_magnitude": [1, 2, 3]})],
            f"{TRAIN}.transform_ops.2.RandAugmentV2.progress_magnitude",
            "expected a value for each of the 2 stages",
        ),
        ([ON, transforms(SIZES), staged([{"size": 8}])], "Progressive", "stages in one place"),
        (
            [staged([{"magnitude": 3}])],
            "Progressive.stages.0.magnitude",
            "expected RandAugment in DataLoader.Train.dataset.transform_ops, received none",
        ),
        ([staged([{"mixup": 0.1}])], "Progressive.stages.0.mixup", "expected MixupOperator"),
        ([staged([{"cutmix": 0.1}])], "Progressive.stages.0.cutmix", "expected CutmixOperator"),
        (
            [transforms(None, {"magnitude": [1, 9]}), staged([{"magnitude": 3}])],
            "Progressive.stages.0.magnitude",
            "RandAugmentV2 with one magnitude, received [1.0, 9.0]",
        ),
        (
            [
                "DataLoader.Train.sampler={_replace_: true, name: MultiScaleSampler,"
                " scales: [32], first_bs: 4}",
                staged([{"size": 32}]),
            ],
            "Progressive.stages.0.size",
            "expected a sampler that leaves sizes alone",
        ),
        (
            [staged([{"size": 8, "dropout": 0.1}, {"size": 9}])],
            "Progressive.stages",
            "expected dropout in every stage or in none, stage 1 has none",
        ),
        (
            [staged([{"size": 8, "until": 2}, {"size": 9}, {"size": 9}])],
            "Progressive.stages",
            "expected until in every stage, stage 1 has none",
        ),
        (
            [staged([{"size": 8, "until": 2}, {"size": 9, "until": 2}])],
            "Progressive.stages",
            "expected rising until",
        ),
        ([staged([{"until": 3}])], "Progressive.stages", "expected something that grows"),
        ([staged([])], "Progressive.stages", "expected a list of maps"),
        (
            [staged([{"siz": 8, "dropout": 0.1}])],
            "Progressive.stages.0.siz",
            "did you mean 'size'?",
        ),
        ([staged([{"size": [8]}])], "Progressive.stages.0.size", "expected an integer >= 1 or"),
        ([staged([{"dropout": 1}])], "Progressive.stages.0.dropout", "and < 1"),
    ],
)
def test_stages_that_cannot_be_are_refused_with_their_line(config_file, overrides, path, message):
    with pytest.raises(ConfigError) as caught:
        support.load(config_file, *overrides)
    [problem] = caught.value.problems
    assert problem.path == path
    assert message in problem.message


def test_a_published_list_is_refused_at_its_own_line(config_file):
    text = config_file.read_text() + "Progressive:\n  stages:\n    - size: 32\n      mixup: 0.5\n"
    config_file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        support.load(config_file)
    assert str(caught.value).startswith(f"{config_file}:{len(text.splitlines())}: Progressive.")


def test_another_dropout_is_not_overruled_in_silence(config_file):
    arguments = [
        transforms(SIZES),
        "Global.train_mode=progressive",
        "Arch={_replace_: true, name: EfficientNetV2_S, class_num: 3, dropout: 0.5}",
    ]
    with pytest.raises(ConfigError, match=r"Arch\.dropout: expected the default 0\.2"):
        support.load(config_file, *arguments)


def test_a_batch_that_no_epoch_can_fill_is_refused_with_its_stage(config_file):
    stages = staged([{"batch_size": 8}, {"batch_size": 100}])
    with pytest.raises(ConfigError, match=r"Progressive\.stages\.1\.batch_size: expected"):
        fit(config_file, stages, "Global.epochs=2")


def test_the_resolved_configuration_has_the_same_stages(config_file, tmp_path):
    config = support.load(config_file, *RUN, staged(STAGES))
    path = tmp_path / "resolved.yaml"
    path.write_text(config.to_yaml())
    again = support.load(path)
    assert list(stages_of(again)) == list(stages_of(config))
