"""Training in several processes."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import support

from ppcls.engine.distributed import World

pytest.importorskip("paddle")

TRAIN = support.ROOT / "tools" / "train.py"


@pytest.mark.slow
def test_two_processes_train_and_end(config_file, run_folder, tmp_path):
    # 24 samples over 2 processes in batches of 5: two whole ones and a rest of two each.
    overrides = [
        "DataLoader.Train.sampler.batch_size=5",
        "DataLoader.Train.sampler.drop_last=false",
        "DataLoader.Train.loader.num_workers=1",
    ]
    done = support.launch(
        2, [TRAIN, "-c", config_file, *support.override_arguments(overrides)], tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = support.text_of(run_folder / "train.log")
    assert "3 iterations an epoch, 2 process(es)" in log
    assert len(re.findall(r"\[Train\]\[Epoch 1/1\]\[Iter: \d/3\]lr", log)) == 3
    assert log.count("[Eval][Epoch 1][Avg]") == log.count("[Train][Epoch 1/1][Avg]") == 1
    assert "ppcls" not in support.text_of(tmp_path / "log" / "workerlog.1")
    assert not list(run_folder.glob("error.*.json"))
    assert support.read_state(run_folder / "latest")["global_step"] == 3
    # What is saved is what was evaluated by both processes.
    from ppcls import Evaluator

    weights = f"Global.pretrained_model={run_folder / 'latest'}"
    result = Evaluator(support.load(config_file, weights)).run()
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    logged = json.loads(lines[-1])
    assert logged["kind"] == "eval"
    assert logged["top1"] == result["top1"]
    assert logged["loss"] == pytest.approx(result["loss"], abs=1e-6)


@pytest.mark.slow
def test_a_failing_rank_ends_the_job_and_is_named(config_file, run_folder, pictures, tmp_path):
    """The launcher itself would show the log of rank 0 only, which says that a peer is gone."""
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    good = sorted((pictures / "train").rglob("*.png"))
    # Unshuffled batches of 4: samples 4 to 7 are rank 1's first batch.
    lines = [f"{bad if i == 5 else path} {i % 3}\n" for i, path in enumerate(good)]
    (tmp_path / "list.txt").write_text("".join(lines))
    dataset = (
        "{_replace_: true, name: ImageNetDataset, image_root: /, "
        f"cls_label_path: {tmp_path}/list.txt, transform_ops: {json.dumps(support.TRANSFORMS)}}}"
    )
    overrides = [
        f"DataLoader.Train.dataset={dataset}",
        "DataLoader.Train.sampler.batch_size=4",
        "DataLoader.Train.sampler.shuffle=false",
    ]
    done = support.launch(
        2, [TRAIN, "-c", config_file, *support.override_arguments(overrides)], tmp_path, timeout=60
    )
    assert done.returncode not in (0, None)
    console = done.stdout + done.stderr
    assert re.search(rf"\[rank 1\] DataError: {bad} \(list\.txt:6\)", console), console
    record = json.loads((run_folder / "error.1.json").read_text())
    assert record["rank"] == 1
    assert str(bad) in record["error"]
    assert not support.processes_with(str(tmp_path))


@pytest.mark.parametrize("samples", [16, 17, 18, 23])
@pytest.mark.parametrize("shuffle", ["true", "false"])
def test_ranks_in_training_have_equally_many_batches(
    config_file, tmp_path, pictures, samples, shuffle
):
    """Or one rank waits for gradients that never come, until Gloo ends the job after 30 s."""
    from ppcls.engine import logging as log
    from ppcls.engine.batch import build_reader

    paths = sorted((pictures / "train").rglob("*.png"))[:samples]
    (tmp_path / "list.txt").write_text("".join(f"{p} {i % 3}\n" for i, p in enumerate(paths)))
    dataset = (
        "{_replace_: true, name: ImageNetDataset, image_root: /, "
        f"cls_label_path: {tmp_path}/list.txt, transform_ops: {json.dumps(support.TRANSFORMS)}}}"
    )
    config = support.load(
        config_file,
        f"DataLoader.Train.dataset={dataset}",
        f"DataLoader.Train.sampler.shuffle={shuffle}",
        "DataLoader.Train.sampler.drop_last=false",
    )
    readers = [build_reader(config, "Train", World(r, 2), log.make_logger()) for r in range(2)]
    assert len(readers[0]) == len(readers[1])
    seen = [index for reader in readers for batch in reader.epoch(1) for index in batch.indices]
    assert sorted(seen) == list(range(samples))


class Store:
    """The launcher's key-value store, for processes that are threads here."""

    def __init__(self):
        self.values = {}

    def add(self, key, number):
        self.values[key] = self.values.get(key, 0) + number
        return self.values[key]

    def set(self, key, value):
        self.values[key] = value

    def wait(self, key):
        support.wait_until(lambda: key in self.values, key, timeout=0.3)

    def get(self, key):
        return self.values[key]


def connected(rank, store):
    world = World(rank, 2)
    world.attach(store)
    return world


def test_every_process_gets_all_values_in_order_of_rank():
    store = Store()
    arrays = [np.array([1.0, 2.0]), np.array([10.0, 20.0])]
    worlds = [connected(rank, store) for rank in range(2)]
    with ThreadPoolExecutor() as pool:
        for _ in range(2):
            results = list(pool.map(lambda w: w.gather(arrays[w.rank]), worlds))
            assert np.array_equal(results, [arrays, arrays])
        sums = list(pool.map(lambda w: w.sum(arrays[w.rank]), worlds))
    assert [s.tolist() for s in sums] == [[11.0, 22.0]] * 2


def test_a_second_run_of_a_job_does_not_read_the_values_of_the_first():
    """Such as an Evaluator after a Trainer: the store is the job's, and it forgets nothing."""
    store = Store()
    with ThreadPoolExecutor() as pool:
        first = [connected(rank, store) for rank in range(2)]
        list(pool.map(lambda world: world.gather(np.ones(1)), first))
        # Rank 1 comes late: rank 0 has to wait for it, not to take what is left from before.
        early = connected(0, store)
        waiting = pool.submit(early.gather, np.full(1, 5.0))
        time.sleep(0.1)
        done = waiting.done()
        late = connected(1, store).gather(np.full(1, 7.0))
    assert not done
    assert [a.item() for a in waiting.result()] == [a.item() for a in late] == [5.0, 7.0]


def test_dropout_of_two_ranks_differs():
    from ppcls.engine.handlers import SeedSteps

    assert not np.array_equal(dropped(SeedSteps(), 5, rank=0), dropped(SeedSteps(), 5, rank=1))


def test_dropout_of_a_step_is_the_same_whatever_was_drawn_before():
    from ppcls.engine.handlers import SeedSteps

    import paddle  # isort: skip

    first = dropped(SeedSteps(), 5)
    paddle.rand([7])
    assert np.array_equal(dropped(SeedSteps(), 5), first)
    assert not np.array_equal(dropped(SeedSteps(), 6), first)
    assert not np.array_equal(dropped(SeedSteps(), 5, seed=1), first)


def dropped(handler, step, rank=0, seed=0):
    """Which of 200 entries dropout drops in this step."""
    from types import SimpleNamespace as Some

    import ppcls  # noqa: F401  isort: skip
    import paddle

    section = Some(Global=Some(seed=seed))
    state = Some(epoch=1, step_in_epoch=step)
    trainer = Some(config=section, state=state, world=World(rank, 2))
    handler.step_start(trainer)
    return paddle.nn.functional.dropout(paddle.ones([200]), 0.5).numpy()
