"""Runs with AugMix: views, their loss, what is counted, and what is refused before."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import support

from ppcls.config import ConfigError
from ppcls.engine.handler import Handler

paddle = pytest.importorskip("paddle")
pytestmark = pytest.mark.timeout(120)

SET = "DataLoader.Train.dataset"
AUGMIX = {"AugMix": {"prob": 1.0, "aug_prob_coeff": 1.0, "mixture_depth": -1, "aug_severity": 3}}
OPS = [*support.TRANSFORMS[:2], {"RandFlipImage": None}, AUGMIX, *support.TRANSFORMS[2:]]
TRANSFORMS = f"{SET}.transform_ops={json.dumps(OPS)}"
LOSS = "Loss.Train=[JSDLoss: {weight: 1.0, views: 3}]"
VIEWS = f"{SET}.views=3"
AUGMIX_RUN = (TRANSFORMS, LOSS, VIEWS)


class Watch(Handler):
    """Keeps what each step was trained on, and what came of it."""

    def __init__(self) -> None:
        self.steps: list[tuple[np.ndarray, np.ndarray, float, int]] = []

    def step_end(self, trainer: Any, step: Any) -> None:
        found = step.logits.numpy(), step.targets.numpy(), step.losses["loss"].item()
        self.steps.append((*found, step.samples))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def closed_form(logits: np.ndarray, targets: np.ndarray) -> float:
    """Equations 1 and 2 of arXiv:1912.02781, with lambda = 12."""
    log_p = log_softmax(logits).reshape(3, -1, 3)
    count = log_p.shape[1]
    p = np.exp(log_p)
    divergence = (p * (log_p - np.log(p.mean(axis=0)))).sum(axis=2).mean(axis=0)
    clean = -log_p[0][np.arange(count), targets[:count]]
    return float((clean + 12 * divergence).mean())


def test_the_loss_of_a_run_is_that_of_the_paper(config_file):
    watch = Watch()
    support.train(config_file, *AUGMIX_RUN, handlers=[watch])
    assert len(watch.steps) == 3
    for logits, targets, loss, samples in watch.steps:
        assert samples == 8
        assert logits.shape == (24, 3)
        np.testing.assert_array_equal(targets, np.tile(targets[:8], 3))
        assert loss == pytest.approx(closed_form(logits, targets), rel=1e-4)
        assert len(np.unique(logits, axis=0)) > 8


def test_metrics_and_speed_count_pictures(config_file, run_folder, monkeypatch):
    from ppcls.engine import handlers, logging

    counted: list[int] = []
    done = handlers._Clock.step_done
    monkeypatch.setattr(
        handlers._Clock, "step_done", lambda self, n: (counted.append(n), done(self, n))[1]
    )
    watch, found = Watch(), []
    line = logging.train_average_line
    monkeypatch.setattr(
        logging, "train_average_line", lambda *a: (found.append(a[-1]), line(*a))[1]
    )
    config = support.load(config_file, *AUGMIX_RUN)
    from ppcls.engine.distributed import World

    support.train(
        config_file, *AUGMIX_RUN, handlers=[watch, *handlers.default_handlers(config, World())]
    )
    assert set(counted) == {8}
    right = [logits[:8].argmax(axis=1) == targets[:8] for logits, targets, *_ in watch.steps]
    assert found[0]["top1"] == pytest.approx(np.mean(right))


def test_accumulation_counts_pictures(config_file):
    """A step from batches of 7, 7, 7 and 3 pictures is that of one batch of 24."""
    fixed = ["Arch.name=SqueezeNet1_1", "Arch.dropout=0.0", "Global.eval_during_train=false"]
    partly = "DataLoader.Train.sampler.drop_last=false"
    found = []
    for batch, every in ((24, 1), (7, 4)):
        sizes = f"DataLoader.Train.sampler.batch_size={batch}", f"Global.update_freq={every}"
        trainer = support.train(config_file, *AUGMIX_RUN, *fixed, partly, *sizes, handlers=[])
        assert trainer.state.global_step == 1
        found.append({name: value.numpy() for name, value in trainer.net.state_dict().items()})
    assert max(np.abs(found[0][name] - found[1][name]).max() for name in found[0]) < 1e-6


def test_a_resumed_run_with_another_number_of_workers_has_the_same_bits(
    config_file, run_folder, tmp_path
):
    whole = tmp_path / "whole"
    options = [*AUGMIX_RUN, "Global.eval_during_train=false"]
    support.train(config_file, *options, "Global.epochs=2", f"Global.output_dir={whole}")
    support.train(config_file, *options, "Global.epochs=1")
    latest = f"Global.checkpoints={run_folder / 'latest'}"
    workers = "DataLoader.Train.loader.num_workers=2"
    support.train(config_file, *options, "Global.epochs=2", latest, workers)
    assert support.same_files(whole / support.NET / "latest", run_folder / "latest") == []


# What is refused ----------------------------------------------------------------------------------

PLAIN = f"{SET}.transform_ops={json.dumps(support.TRANSFORMS)}"
TWICE = f"{SET}.transform_ops={json.dumps([*OPS[:4], AUGMIX, *OPS[4:]])}"
RAND = [*support.TRANSFORMS[:2], {"TimmAutoAugment": {"prob": 1.0}}, *support.TRANSFORMS[2:]]
MIXING = f"{SET}.batch_transform_ops=[MixupOperator]"
IGNORING = "Loss.Train=[CELoss: {weight: 1.0, ignore_index: 2}]"
EVAL_LOSS = "Loss.Eval=[JSDLoss: {weight: 1.0}]"


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        ([TRANSFORMS, LOSS], f"{SET}.views", "expected 3, as Loss.Train.0.JSDLoss.views is"),
        ([TRANSFORMS, LOSS, f"{SET}.views=2"], f"{SET}.views", "received 2"),
        ([PLAIN, VIEWS], f"{SET}.views", "received 3 and none"),
        ([TWICE, LOSS, VIEWS], f"{SET}.views", "received 3 and AugMix and AugMix"),
        ([f"{SET}.transform_ops={json.dumps(RAND)}", VIEWS], f"{SET}.views", "3 and none"),
        ([*AUGMIX_RUN, MIXING], f"{SET}.views", "expected 1 with batch_transform_ops"),
        ([EVAL_LOSS], "Loss.Eval.0.JSDLoss", "evaluation has one"),
        ([MIXING, IGNORING], "Loss.Train.0.CELoss.ignore_index", "mixed targets have no index"),
        (["DataLoader.Eval.dataset.views=3"], "DataLoader.Eval.dataset.views", "only training"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(config_file, overrides, path, words):
    with pytest.raises(ConfigError) as raised:
        support.load(config_file, *overrides)
    [problem] = raised.value.problems
    assert problem.path == path
    assert words in problem.message


def test_a_mistake_names_its_line(tmp_path, pictures):
    tree = support.config_tree(pictures, tmp_path / "output")
    tree["Loss"]["Train"] = [{"JSDLoss": {"weight": 1.0, "views": 4}}]
    tree["DataLoader"]["Train"]["dataset"] |= {"transform_ops": OPS, "views": 3}
    path = support.write_config(tmp_path / "config.yaml", tree)
    with pytest.raises(ConfigError) as raised:
        support.load(path)
    [number] = [
        i for i, line in enumerate(path.read_text().splitlines(), 1) if line.strip() == "views: 3"
    ]
    assert re.search(rf"config\.yaml:{number}: {re.escape(SET)}\.views: ", str(raised.value))


def test_timm_augmix_makes_views_and_other_strings_of_it_do_not(config_file):
    timm = {"TimmAutoAugment": {"config_str": "augmix-m3-w3"}}
    ops = [*support.TRANSFORMS[:2], timm, *support.TRANSFORMS[2:]]
    support.load(config_file, f"{SET}.transform_ops={json.dumps(ops)}", LOSS, VIEWS)


def test_ignoring_without_mixing_is_admitted(config_file):
    support.load(config_file, IGNORING)
