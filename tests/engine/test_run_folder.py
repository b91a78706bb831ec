"""What a run writes."""

import json
import re
import shutil

import numpy as np
import pytest
import support
import yaml
from support import CHECKPOINT_FILES

from ppcls.engine.handlers import Handler, default_handlers

pytest.importorskip("paddle")


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_files_of_a_run(trained):
    checkpoints = {"latest", "best_model", "epoch_1", "epoch_2", "epoch_3"}
    assert names(trained) == {"config.yaml", "train.log", "metrics.jsonl", *checkpoints}
    for checkpoint in checkpoints:
        assert names(trained / checkpoint) == CHECKPOINT_FILES


def test_save_interval_chooses_the_epochs_that_are_kept(config_file, run_folder):
    support.train(config_file, "Global.epochs=3", "Global.save_interval=2")
    assert {n for n in names(run_folder) if n.startswith("epoch_")} == {"epoch_2"}
    assert support.read_state(run_folder / "latest")["epoch"] == 3


def test_state_of_a_checkpoint(trained):
    state = support.read_state(trained / "epoch_2")
    assert (state["epoch"], state["global_step"]) == (2, 6)
    assert (state["arch"]["name"], state["arch"]["class_num"]) == (support.NET, 3)
    assert state["class_names"] == support.CLASSES
    assert state["random"]["seed"] == 7
    assert set(state["versions"]) >= {"ppcls", "paddle"}


def test_manifest_holds_sizes_and_checksums(trained):
    import hashlib

    manifest = json.loads((trained / "latest" / "manifest.json").read_text())
    assert set(manifest) == CHECKPOINT_FILES - {"manifest.json"}
    for name, entry in manifest.items():
        data = (trained / "latest" / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_optimizer_state_is_keyed_by_the_networks_names(trained):
    from safetensors.numpy import load_file

    arrays = load_file(trained / "latest" / "optimizer.safetensors")
    keys = {key.rpartition("/")[0] for key in arrays}
    trainable = {
        name
        for name in support.weights(trained / "latest")
        if not name.endswith(("_mean", "_variance"))
    }
    assert keys == trainable


def test_weights_file_is_read_by_paddle_itself(trained):
    import paddle

    state = paddle.load(str(trained / "latest" / "model.pdparams"))
    assert state["classifier.1.weight"].shape == [1280, 3]


def test_best_model_holds_the_weights_of_the_best_epoch(config_file, run_folder):
    """The metric is dictated: epoch 2 is best, epoch 3 only equals it."""
    from ppcls import Trainer

    results = iter([0.2, 0.6, 0.6, 0.1])
    config = support.load(config_file, "Global.epochs=4", "Global.save_interval=1")
    trainer = Trainer(config)
    trainer.evaluate = lambda: {"loss": 1.0, "top1": next(results)}
    trainer.fit()
    assert (trainer.state.best_metric, trainer.state.best_epoch) == (0.6, 2)
    assert support.same_files(run_folder / "best_model", run_folder / "epoch_2") == []
    assert support.same_files(run_folder / "best_model", run_folder / "epoch_3") != []
    lines = re.findall(
        r"\[Eval\]\[Epoch (\d)\]\[best metric: (.*)\]", support.text_of(run_folder / "train.log")
    )
    assert lines == [("1", "0.20000"), ("2", "0.60000"), ("3", "0.60000"), ("4", "0.60000")]


def test_evaluation_every_nth_epoch_and_at_the_end(config_file, run_folder):
    support.train(config_file, "Global.epochs=3", "Global.eval_interval=2")
    log = support.text_of(run_folder / "train.log")
    assert re.findall(r"\[Eval\]\[Epoch (\d)\]\[Avg\]", log) == ["2", "3"]


def test_a_run_without_evaluation(config_file, run_folder):
    support.train(config_file, "Global.eval_during_train=false")
    assert "[Eval]" not in support.text_of(run_folder / "train.log")
    assert "best_model" not in names(run_folder)
    assert support.read_state(run_folder / "latest")["best_metric"] is None


def test_the_written_configuration_trains_to_the_same_weights(config_file, run_folder, tmp_path):
    support.train(config_file, "Global.epochs=2", "Optimizer.lr.learning_rate=0.013")
    again = tmp_path / "again"
    support.train(run_folder / "config.yaml", f"Global.output_dir={again}")
    assert support.same_files(run_folder / "latest", again / support.NET / "latest") == []
    trees = [
        yaml.safe_load((f / "config.yaml").read_text()) for f in (run_folder, again / support.NET)
    ]
    assert trees[0]["Global"].pop("output_dir") != trees[1]["Global"].pop("output_dir")
    assert trees[0] == trees[1]


def test_another_seed_gives_other_weights(config_file, run_folder, tmp_path):
    support.train(config_file)
    support.train(config_file, "Global.seed=8", f"Global.output_dir={tmp_path / 'other'}")
    one, other = (
        support.weights(f / "latest") for f in (run_folder, tmp_path / "other" / support.NET)
    )
    assert not np.array_equal(one["features.0.0.weight"], other["features.0.0.weight"])


def test_a_second_run_replaces_the_checkpoints_of_the_first(config_file, run_folder):
    support.train(config_file)
    support.train(config_file, "Global.seed=8")
    for name in ("latest", "best_model"):
        assert support.read_state(run_folder / name)["random"]["seed"] == 8
    assert not [n for n in names(run_folder) if n.startswith(".")]


class LoseWeights(Handler):
    """After the last step of epoch 2, a weight is no number any more."""

    def step_end(self, trainer, step):
        if trainer.state.epoch == 2 and step.index == 2:
            weight = trainer.net.classifier[1].weight
            weight.set_value(weight * float("nan"))


def test_a_lost_network_is_not_saved_over_a_good_one(config_file, run_folder):
    """The loss was still a number before the step that lost the weights."""
    from ppcls.errors import TrainingError

    config = support.load(config_file, "Global.epochs=3")
    handlers = default_handlers(config, type("World", (), {"is_first": True, "size": 1})())
    with pytest.raises(TrainingError, match="not finite any more: nothing was saved"):
        support.train(config_file, "Global.epochs=3", handlers=[LoseWeights(), *handlers])
    for name in ("latest", "best_model"):
        lost = [
            n
            for n, array in support.weights(run_folder / name).items()
            if not np.isfinite(array).all()
        ]
        assert not lost, f"{name} holds weights that are no numbers: {lost}"


def test_a_bad_loss_names_epoch_and_step(config_file):
    from ppcls.errors import TrainingError

    with pytest.raises(TrainingError, match=r"the loss is (nan|inf)|not finite any more"):
        support.train(
            config_file, "Optimizer.lr.learning_rate=1e30", "Global.eval_during_train=false"
        )


def test_stale_failure_records_do_not_survive_a_good_run(config_file, run_folder):
    run_folder.mkdir(parents=True)
    (run_folder / "error.0.json").write_text("{}")
    support.train(config_file)
    assert "error.0.json" not in names(run_folder)


def test_a_half_written_folder_of_a_killed_run_is_no_checkpoint(trained, config_file, tmp_path):
    from ppcls.errors import WeightsError

    half = tmp_path / ".latest.123.new"
    shutil.copytree(trained / "latest", half)
    (half / "manifest.json").unlink()
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        support.train(config_file, f"Global.checkpoints={half}")
