"""What label smoothing, mixup, EMA and RandAugment each bring: a few hundred photos of hands.

python benchmark/ablation.py                                     # about 20 minutes on 2 cores
python benchmark/ablation.py --epochs 10 --seeds 0 --only baseline mixup

Every configuration is the base with some values set, trained by `ppcls train`. The figure is that
of the last epoch, so that nothing is chosen by the photos it is measured on. A run whose result is
in the output folder is not repeated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.machine import describe_machine
from benchmark.runs import Result, Run, gain, perform, spread, table

CONFIG = Path(__file__).parent / "configs" / "sign_digits_ablation.yaml"
MIXUP = "[{MixupOperator: {alpha: 0.2}}]"
BASELINE = "baseline"
CHANGES = {
    BASELINE: (),
    "label smoothing": ("Loss.Train.0.CELoss.epsilon=0.1",),
    "mixup": (f"DataLoader.Train.dataset.batch_transform_ops={MIXUP}",),
    "EMA": ("EMA={decay: 0.99}",),
    "RandAugment": ("DataLoader.Train.dataset.transform_ops.2.RandomApply.p=1.0",),
}


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("output/ablation"))
    parser.add_argument("--data", type=Path, default=Path("dataset/sign-digits"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--only", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="ROW")
    options = parser.parse_args()
    runs = [run for name in options.only for run in runs_of(name, options)]
    results = perform(runs, options.out, options.jobs)
    by_row: dict[str, list[Result]] = {}
    for run, result in zip(runs, results, strict=True):
        by_row.setdefault(run.name, []).append(result)
    sys.stdout.write(f"{describe_machine()}\n\n{as_table(by_row, options.seeds)}")


def runs_of(name: str, options: argparse.Namespace) -> list[Run]:
    """A configuration with each seed."""
    overrides = [
        f"Global.epochs={options.epochs}",
        f"Global.eval_interval={options.epochs}",
        *(
            f"DataLoader.{part}.dataset.{key}={path}"
            for part, photos in (("Train", "train_list.txt"), ("Eval", "val_list.txt"))
            for key, path in (
                ("image_root", options.data),
                ("cls_label_path", options.data / photos),
            )
        ),
        *CHANGES[name],
    ]
    return [Run(name, CONFIG, tuple(overrides), seed) for seed in options.seeds]


def as_table(results: dict[str, list[Result]], seeds: list[int]) -> str:
    """Mean, spread, and the difference from the baseline with the same seed."""
    plain = [result.top1 for result in results.get(BASELINE, [])]
    rows = []
    for name, found in results.items():
        top1 = [result.top1 for result in found]
        beside = gain(top1, plain) if plain and name != BASELINE else ""
        each = ", ".join(f"{100 * value:.2f}" for value in top1)
        label = name if name == BASELINE else f"+ {name}"
        rows.append([label, spread(top1), beside, each])
    numbers = ", ".join(map(str, seeds))
    return table(["", "top-1 in %", "beside the baseline", f"seeds {numbers}"], rows)


if __name__ == "__main__":
    main()
