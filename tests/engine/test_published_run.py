"""A flat file as PaddleClas publishes them trains as it is, from ImageNet's layout of folders."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import support

FLAT = Path(__file__).parents[1] / "reference" / "published_flat.yaml"


@pytest.mark.slow
def test_a_published_file_trains_predicts_and_exports(tmp_path: Path, monkeypatch) -> None:
    """Only sizes are overridden, so that it ends soon; every other line is used as it stands."""
    root = tmp_path / "dataset" / "ILSVRC2012"
    for split in ("train", "val"):
        support.write_pictures(root / split, [2, 2, 2])
        support.write_list(root, split)
    shutil.copy(FLAT, tmp_path / "published.yaml")
    monkeypatch.chdir(tmp_path)
    small = ["Global.epochs=3", "DataLoader.Train.sampler.batch_size=3", "Arch.name=MobileNeXt_35"]
    small += [f"DataLoader.{mode}.loader.num_workers=1" for mode in ("Train", "Eval")]
    options = support.override_arguments(small)
    done = support.run(
        [support.ROOT / "tools/train.py", "-c", "published.yaml", *options], tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"has no meaning|without a meaning here", done.stdout)) == 1
    rates = re.findall(r"\[Epoch (\d)/3\]\[Iter: 0/2\]lr\(LinearWarmup\): ([\d.]+)", done.stdout)
    assert rates == [("1", "0.00010000"), ("2", "0.03340000"), ("3", "0.06670000")]
    weights = support.override_arguments(
        [*small, "Global.pretrained_model=output/MobileNeXt_35/best_model"]
    )
    picture = next((root / "val").rglob("*.png"))
    done = support.run(
        [support.ROOT / "tools/infer.py", "-c", "published.yaml", *weights, picture], tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "label_names" in done.stdout
    done = support.run(
        [support.ROOT / "tools/export_model.py", "-c", "published.yaml", *weights], tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "inference" / "inference.pdiparams").is_file()


def test_averages_of_an_epoch_survive_a_stop_within_it(config_file, tmp_path) -> None:
    """The line and the file say the same as those of a run that was never stopped."""
    import signal

    from ppcls.engine.handler import Handler
    from ppcls.errors import Stopped

    class StopAfterTwo(Handler):
        def step_end(self, trainer, step):
            if trainer.state.global_step == 2:
                signal.raise_signal(signal.SIGTERM)

    def averages(folder):
        lines = (folder / support.NET / "metrics.jsonl").read_text().splitlines()
        [line] = [e for e in map(json.loads, lines) if e["kind"] == "train_avg"]
        return {name: value for name, value in line.items() if name != "time"}

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    support.train(config_file, f"Global.output_dir={whole}")
    config = support.load(config_file)
    from ppcls.engine.distributed import World
    from ppcls.engine.handlers import default_handlers

    handlers = [StopAfterTwo(), *default_handlers(config, World())]
    with pytest.raises(Stopped):
        support.train(config_file, f"Global.output_dir={cut}", handlers=handlers)
    latest = cut / support.NET / "latest"
    support.train(config_file, f"Global.output_dir={cut}", f"Global.checkpoints={latest}")
    assert averages(cut) == pytest.approx(averages(whole))
