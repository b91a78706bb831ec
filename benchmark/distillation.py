"""What a teacher brings: MobileNetV1_x0_25 on 720 photos of flowers with and without MobileNetV2.

python benchmark/distillation.py --weights MobileNetV2_imagenet.pdparams

The teacher starts from ImageNet weights and is fine-tuned first; the students start from scratch,
with the same budget, photos and seeds. The figure is that of the last epoch, over all photos of the
test list and over those of which the training list holds no near copy (`ppcls data check` finds
them). A run whose result is in the output folder is not repeated.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.machine import describe_machine
from benchmark.runs import Run, call, gain, perform, spread, table, trained

CONFIGS = Path(__file__).parent / "configs"
TEACHER = CONFIGS / "flowers_teacher.yaml"
STUDENT = CONFIGS / "flowers_student.yaml"
DISTILLED = CONFIGS / "flowers_distilled.yaml"
LISTS = {"Train": "train_list.txt", "Eval": "test_list.txt"}


def main() -> None:
    """Trains the teacher, then the students, and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True, help="of MobileNetV2 on ImageNet")
    parser.add_argument("--data", type=Path, default=Path("dataset/flowers12"))
    parser.add_argument("--epochs", type=int, default=100, help="of the students")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("output/distillation"))
    parser.add_argument("--jobs", type=int, default=2, help="students trained at a time")
    options = parser.parse_args()
    apart = photos_apart(options.data, options.out)
    data = [
        f"DataLoader.{part}.dataset.{key}={path}"
        for part, name in LISTS.items()
        for key, path in (("image_root", options.data), ("cls_label_path", options.data / name))
    ]
    start = f"Global.pretrained_model={options.weights}"
    teacher = trained(Run("teacher", TEACHER, (*data, start), 0), options.out)
    budget = [*data, f"Global.epochs={options.epochs}", f"Global.eval_interval={options.epochs}"]
    taught = f"Arch.models.0.Teacher.pretrained={teacher.folder}/latest"
    # Two losses of weight 1 make gradients about twice as long, which is a gain of its own.
    twice = (*budget, "Loss.Train.0.CELoss.weight=2.0")
    ways = {
        "student alone": ("alone", STUDENT, tuple(budget)),
        "student alone, loss doubled": ("doubled", STUDENT, twice),
        "student, taught": ("taught", DISTILLED, (*budget, taught)),
    }
    runs = [Run(*way, seed) for way in ways.values() for seed in options.seeds]
    found = iter(perform(runs, options.out, options.jobs))
    rows = [("teacher", [teacher.top1], [without(teacher.folder, TEACHER, data, apart)])]
    for name in ways:
        results = list(islice(found, len(options.seeds)))
        again = [without(result.folder, STUDENT, data, apart) for result in results]
        rows.append((name, [result.top1 for result in results], again))
    sys.stdout.write(f"{describe_machine()}\n\n{as_table(rows, apart)}")


def photos_apart(data: Path, out: Path) -> Path:
    """Writes the list of the test photos that resemble none of training."""
    lists = [data / name for name in LISTS.values()]
    call(["data", "check", *map(str, lists), "--out", str(out / "check")])
    report = json.loads((out / "check" / "check.json").read_text(encoding="utf-8"))
    leaking = {
        Path(picture["path"]).resolve()
        for finding in report["findings"]["leakage"]
        for picture in finding["pictures"]
    }
    lines = lists[1].read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if (data / line.rpartition(" ")[0]).resolve() not in leaking]
    path = out / "test_apart.txt"
    path.write_text("".join(kept), encoding="utf-8")
    return path


def without(folder: str, config: Path, data: Sequence[str], apart: Path) -> float:
    """Top-1 of a run's last weights over the photos of the list ``apart``."""
    printed = call(
        ["eval", "-c", str(config)],
        [
            *data,
            f"DataLoader.Eval.dataset.cls_label_path={apart}",
            f"Global.pretrained_model={folder}/latest",
        ],
    )
    return float(re.findall(r"\[Avg\].*\btop1: ([\d.]+)", printed)[-1])


def as_table(rows: Sequence[tuple[str, list[float], list[float]]], apart: Path) -> str:
    """Mean and spread of each row, and what the teacher brings, seed by seed."""
    number = len(apart.read_text(encoding="utf-8").splitlines())
    lines = [[name, spread(top1), spread(again)] for name, top1, again in rows]
    (_, alone, alone_apart), (_, taught, taught_apart) = rows[-2:]
    lines.append(["gain", gain(taught, alone), gain(taught_apart, alone_apart)])
    return table(["top-1 in %", "test photos", f"the {number} without a near copy"], lines)


if __name__ == "__main__":
    main()
