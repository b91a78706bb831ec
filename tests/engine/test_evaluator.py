"""Evaluation is exact: no batch size, no number of processes changes a result."""

import gc
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import support
from support import NUMBER

from ppcls.errors import DataError, WeightsError

pytest.importorskip("paddle")


def plain_loop(weights: Path, paths: list[Path]) -> dict[str, float]:
    """The metrics of the pictures, one by one, with Paddle and NumPy only."""
    import ppcls  # isort: skip
    import paddle

    net = ppcls.create_model(support.NET, class_num=3)
    net.set_state_dict(paddle.load(str(weights / "model.pdparams")))
    net.eval()
    losses, ranks = [], []
    for path in paths:
        with paddle.no_grad():
            logits = net(paddle.to_tensor(support.preprocessed(path))).numpy()[0].astype(np.float64)
        label = support.CLASSES.index(path.parent.name)
        losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])
        ranks.append(int((logits > logits[label]).sum()))
    loss = float(np.mean(losses))
    top = {f"top{k}": sum(rank < k for rank in ranks) / len(paths) for k in (1, 2)}
    return {"CELoss": loss, "loss": loss, **top}


@pytest.fixture(scope="module")
def expected(lively, pictures):
    result = plain_loop(lively, sorted((pictures / "val").rglob("*.png")))
    assert 0 < result["top1"] < result["top2"] < 1  # or the test could not tell
    return result


def same(result, expected):
    assert list(result) == list(expected)
    for name in ("top1", "top2"):
        assert result[name] == expected[name]
    for name in ("CELoss", "loss"):
        assert result[name] == pytest.approx(expected[name], abs=1e-6, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 23])
def test_any_batch_size_gives_the_result_of_a_plain_loop(config_file, lively, expected, batch_size):
    from ppcls import Evaluator

    size = f"DataLoader.Eval.sampler.batch_size={batch_size}"
    config = support.load(config_file, f"Global.pretrained_model={lively}", size)
    same(Evaluator(config).run(), expected)


def test_drop_last_of_a_published_file_drops_its_samples_knowingly(config_file, lively, pictures):
    """What the configuration says is what is evaluated: 16 of 23 pictures in batches of 8."""
    from ppcls import Evaluator

    paths = sorted((pictures / "val").rglob("*.png"))[:16]
    config = support.load(
        config_file, f"Global.pretrained_model={lively}", "DataLoader.Eval.sampler.drop_last=true"
    )
    same(Evaluator(config).run(), plain_loop(lively, paths))


@pytest.mark.parametrize("ending", ["", "model", "model.pdparams"])
def test_all_names_of_the_weights_mean_the_same(config_file, lively, expected, ending):
    from ppcls import Evaluator

    config = support.load(config_file, f"Global.pretrained_model={lively / ending}")
    same(Evaluator(config).run(), expected)


def test_evaluation_in_training_is_the_evaluation_of_its_checkpoint(config_file, trained):
    from ppcls import Evaluator

    result = Evaluator(
        support.load(config_file, f"Global.pretrained_model={trained / 'epoch_2'}")
    ).run()
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    [logged] = [line for line in lines if line["kind"] == "eval" and line["epoch"] == 2]
    for name, value in result.items():
        assert logged[name] == pytest.approx(value, abs=1e-7)


def test_evaluation_without_loss_gives_metrics_only(config_file, lively, expected):
    from ppcls import Evaluator

    config = support.load(config_file, f"Global.pretrained_model={lively}", "Loss=null")
    assert Evaluator(config).run() == {name: expected[name] for name in ("top1", "top2")}


def test_the_command_prints_the_result(cli, config_file, lively, expected):
    done = cli("eval", "-c", config_file, "-o", f"Global.pretrained_model={lively}")
    assert (done.code, done.err) == (0, "")
    line = done.out.splitlines()[-1]
    shown = ", ".join(f"{name}: {value:.5f}" for name, value in expected.items())
    assert line.endswith(f"ppcls INFO: [Eval][Epoch 5][Avg]{shown}")


def test_other_class_folders_than_in_training_are_refused(config_file, lively, tmp_path):
    from ppcls import Evaluator

    support.write_pictures(tmp_path / "others", [1, 1, 1])
    (tmp_path / "others" / "blue").rename(tmp_path / "others" / "violet")
    root = f"DataLoader.Eval.dataset.image_root={tmp_path / 'others'}"
    config = support.load(config_file, f"Global.pretrained_model={lively}", root)
    with pytest.raises(DataError, match=r"only here \['violet'\], only there \['blue'\]"):
        Evaluator(config)


def test_evaluation_needs_weights_or_permission(cli, config_file):
    done = cli("eval", "-c", config_file)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "Global.pretrained_model" in done.err and "--allow-random" in done.err
    done = cli("eval", "-c", config_file, "--allow-random")
    assert done.code == 0
    assert re.search(r"WARNING: the network has random weights", done.out)
    assert "[Avg]CELoss" in done.out


def test_a_failed_construction_leaves_no_reader_process(config_file, tmp_path, no_leftovers):
    from ppcls import Evaluator

    workers = "DataLoader.Eval.loader.num_workers=2"
    config = support.load(config_file, f"Global.pretrained_model={tmp_path}/nowhere", workers)
    with pytest.raises(WeightsError, match="nowhere"):
        Evaluator(config)
    gc.collect()


def test_the_network_goes_on_training_as_before(config_file):
    """Evaluation between two epochs leaves the network in training mode and its weights alone."""
    from ppcls import Trainer

    trainer = Trainer(support.load(config_file), handlers=[])
    before = {name: value.numpy().copy() for name, value in trainer.net.state_dict().items()}
    trainer.net.train()
    trainer.evaluate()
    trainer.close()
    assert trainer.net.training
    for name, value in trainer.net.state_dict().items():
        assert np.array_equal(before[name], value.numpy()), name


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_gives_the_result_of_a_plain_loop(
    config_file, lively, expected, tmp_path, processes
):
    tool = [support.ROOT / "tools" / "eval.py", "-c", config_file]
    overrides = [
        f"Global.pretrained_model={lively}",
        f"DataLoader.Eval.sampler.batch_size={9 - 2 * processes}",
    ]
    done = support.launch(processes, [*tool, *support.override_arguments(overrides)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = re.findall(
        r"\[Eval\]\[Epoch 5\]\[Avg\](.*)", support.text_of(tmp_path / "log/workerlog.0")
    )
    shown = dict(re.findall(rf"(\w+): ({NUMBER})", line))
    assert shown == {name: f"{value:.5f}" for name, value in expected.items()}
    for rank in range(1, processes):  # the first process speaks for all
        assert "[Eval]" not in support.text_of(tmp_path / f"log/workerlog.{rank}")


def test_a_process_alone_needs_no_launcher(monkeypatch):
    from ppcls.engine.distributed import World

    for name in list(os.environ):
        if name.startswith("PADDLE_"):
            monkeypatch.delenv(name)
    world = World.from_environment()
    world.connect()
    assert (world.rank, world.size, world.is_first) == (0, 1, True)
    assert world.sum(np.array([1.5, 2])).tolist() == [1.5, 2]
    world.wait()
