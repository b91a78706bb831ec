"""A resumed run is the run that was not interrupted, bit by bit."""

import json
import os
import re
import signal

import pytest
import support

from ppcls.errors import WeightsError

pytest.importorskip("paddle")


@pytest.mark.parametrize("workers", [0, 2])
def test_one_epoch_and_two_more_equal_three(trained, config_file, run_folder, workers):
    support.train(config_file, "Global.epochs=1")
    overrides = [f"Global.checkpoints={run_folder / 'latest'}"]
    overrides += [f"DataLoader.{mode}.loader.num_workers={workers}" for mode in ("Train", "Eval")]
    trainer = support.train(config_file, "Global.epochs=3", *overrides)
    assert trainer.state.global_step == 9
    assert support.same_files(trained / "latest", run_folder / "latest") == []


def test_without_the_checkpoint_the_weights_would_differ(trained, config_file, run_folder):
    support.train(config_file, "Global.epochs=2")
    assert support.same_files(trained / "latest", run_folder / "latest") != []


def test_augmentation_and_schedule_go_on_where_they_stood(config_file, run_folder, tmp_path):
    transforms = [
        {"DecodeImage": None},
        {"RandCropImage": {"size": 32}},
        {"RandFlipImage": {"flip_code": 1}},
        {"NormalizeImage": {"mean": [0.5] * 3, "std": [0.5] * 3}},
        {"ToCHWImage": None},
    ]
    overrides = [
        f"DataLoader.Train.dataset.transform_ops={json.dumps(transforms)}",
        "Optimizer.lr={_replace_: true, name: Cosine, learning_rate: 0.02, warmup_epoch: 0.5}",
        "Arch.dropout=0.5",
        "Global.epochs=3",
        "Global.save_interval=1",
    ]
    support.train(config_file, *overrides)
    other = tmp_path / "other"
    resume = [f"Global.output_dir={other}", f"Global.checkpoints={run_folder / 'epoch_1'}"]
    support.train(config_file, *overrides, *resume)
    assert support.same_files(run_folder / "latest", other / support.NET / "latest") == []


def test_a_run_killed_in_its_second_epoch_goes_on_as_if_nothing_had_been(
    trained, config_file, run_folder
):
    tool = support.ROOT / "tools" / "train.py"
    command = [tool, "-c", config_file, "-o", "Global.epochs=3", "-o", "Global.save_interval=1"]
    process = support.start(command, run_folder.parents[1])
    log = run_folder / "train.log"
    support.wait_until(lambda: "[Train][Epoch 2/3][Iter: 0/3]" in support.text_of(log), "epoch 2")
    os.kill(process.pid, signal.SIGKILL)
    support.finish(process)
    assert support.read_state(run_folder / "latest")["epoch"] == 1
    resume = ["-o", f"Global.checkpoints={run_folder / 'latest'}"]
    done = support.run([*command, *resume], run_folder.parents[1])
    assert done.returncode == 0, done.stderr
    assert f"resumed from {run_folder / 'latest'}, after epoch 1" in done.stdout
    assert support.same_files(trained / "latest", run_folder / "latest") == []
    assert support.same_files(trained / "best_model", run_folder / "best_model") == []


def test_the_best_result_survives(config_file, run_folder):
    from ppcls import Trainer

    def fit(results, *overrides):
        values = iter(results)
        trainer = Trainer(support.load(config_file, "Global.save_interval=1", *overrides))
        trainer.evaluate = lambda: {"loss": 1.0, "top1": next(values)}
        trainer.fit()
        return trainer.state

    fit([0.3, 0.9], "Global.epochs=2")
    state = fit([0.5], "Global.epochs=3", f"Global.checkpoints={run_folder / 'latest'}")
    assert (state.best_metric, state.best_epoch, state.metric) == (0.9, 2, 0.5)
    assert support.same_files(run_folder / "best_model", run_folder / "epoch_2") == []
    best, result = support.text_of(run_folder / "train.log").splitlines()[-2:]
    assert best.endswith("[Eval][Epoch 3][best metric: 0.90000]")
    assert f"{run_folder / 'best_model'} (top1 0.90000 in epoch 2)" in result


def test_nothing_left_to_train_says_so(cli, config_file, trained, run_folder, no_leftovers):
    resume = f"Global.checkpoints={trained / 'latest'}"
    workers = "DataLoader.Train.loader.num_workers=1"
    done = cli("train", "-c", config_file, "-o", "Global.epochs=2", "-o", resume, "-o", workers)
    assert done.code == 0
    said = r"nothing to train: the checkpoint has reached epoch 3,? and Global.epochs is 2"
    assert re.search(said, done.out)
    assert "[Train]" not in done.out
    assert not (run_folder / "latest").exists()


@pytest.mark.parametrize("name", sorted(support.CHECKPOINT_FILES - {"manifest.json"}))
@pytest.mark.parametrize("damage", [support.flip_bit, support.truncate, os.unlink])
def test_a_damaged_checkpoint_is_refused_by_the_files_name(config_file, checkpoint, name, damage):
    damage(checkpoint / name)
    with pytest.raises(WeightsError, match=re.escape(str(checkpoint / name))):
        support.train(config_file, f"Global.checkpoints={checkpoint}")


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_missing_or_wrong_manifest_is_refused(config_file, checkpoint, content):
    (checkpoint / "manifest.json").unlink()
    if content is not None:
        (checkpoint / "manifest.json").write_text(content)
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        support.train(config_file, f"Global.checkpoints={checkpoint}")


def test_another_architecture_is_refused(config_file, trained):
    with pytest.raises(WeightsError, match=r"is of MobileNeXt_x0_1, .* is MobileNeXt_x0_35"):
        support.train(
            config_file, f"Global.checkpoints={trained / 'latest'}", "Arch.name=MobileNeXt_x0_35"
        )


def test_another_number_of_classes_is_refused(config_file, checkpoint):
    import paddle

    import ppcls

    five = ppcls.create_model(support.NET, class_num=5)
    paddle.save(five.state_dict(), str(checkpoint / "model.pdparams"))
    support.write_manifest(checkpoint)
    with pytest.raises(WeightsError, match=r"has 5 classes, .* has 3"):
        support.train(config_file, f"Global.checkpoints={checkpoint}")


def test_another_argument_of_the_same_shapes_is_refused(config_file, trained):
    """Half of the shortcut's channels: names and shapes fit, and the answers would be wrong."""
    overrides = f"Global.checkpoints={trained / 'latest'}", "Arch.identity_tensor_multiplier=0.5"
    with pytest.raises(WeightsError, match=r"identity_tensor_multiplier is 1\.0 .* and 0\.5"):
        support.train(config_file, *overrides)


def test_an_optimizer_state_that_does_not_fit_is_refused(config_file, checkpoint):
    from safetensors.numpy import load_file, save_file

    path = checkpoint / "optimizer.safetensors"
    arrays = load_file(path)
    removed = sorted(arrays)[0]
    save_file({name: array for name, array in arrays.items() if name != removed}, path)
    support.write_manifest(checkpoint)
    with pytest.raises(WeightsError, match=f"missing: {re.escape(removed)}"):
        support.train(config_file, f"Global.checkpoints={checkpoint}", "Global.epochs=2")


@pytest.mark.parametrize("ending", ["", "model", "model.pdparams"])
def test_all_names_of_a_checkpoint_mean_the_same(config_file, trained, run_folder, ending):
    source = trained / "epoch_2" / ending
    trainer = support.train(config_file, f"Global.checkpoints={source}", "Global.epochs=3")
    assert trainer.state.global_step == 9
    assert support.same_files(trained / "latest", run_folder / "latest") == []


def test_a_checkpoint_that_is_not_there(config_file, tmp_path):
    with pytest.raises(WeightsError, match=f"{tmp_path}/nowhere: there is no such checkpoint"):
        support.train(config_file, f"Global.checkpoints={tmp_path}/nowhere")


def test_weights_from_elsewhere_are_no_checkpoint(config_file, trained, tmp_path):
    path = tmp_path / "published.pdparams"
    path.write_bytes((trained / "latest" / "model.pdparams").read_bytes())
    for source in (path, path.with_suffix("")):
        with pytest.raises(WeightsError, match=r"use Global\.pretrained_model"):
            support.train(config_file, f"Global.checkpoints={source}")


def test_another_seed_is_reported(config_file, trained, capsys):
    support.train(
        config_file, f"Global.checkpoints={trained / 'epoch_2'}", "Global.seed=8", "Global.epochs=3"
    )
    assert "Global.seed is 8, the checkpoint's 7" in capsys.readouterr().out


def test_resuming_logs_to_the_same_file(config_file, run_folder):
    support.train(config_file)
    support.train(config_file, "Global.epochs=2", f"Global.checkpoints={run_folder / 'latest'}")
    log = support.text_of(run_folder / "train.log")
    assert re.findall(r"\[Train\]\[Epoch (\d)/\d\]\[Avg\]", log) == ["1", "2"]
