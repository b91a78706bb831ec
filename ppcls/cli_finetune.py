"""``ppcls finetune``: from a folder of photos to a network that tells them apart."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppcls.cli_start import add_override, load, starting
from ppcls.errors import DataError, UsageError, WeightsError, suggestion

if TYPE_CHECKING:
    from ppcls.report.finetune_photos import Photos
    from ppcls.report.finetune_plan import Plan

CONFIG = "finetune.yaml"


def add_finetune_command(commands: Any) -> None:
    """Adds ``finetune`` to the subparsers of ``ppcls``."""
    parser = commands.add_parser(
        "finetune",
        help="train a network that has seen ImageNet on a folder of photos",
        description="Looks at the photos, shares them out, writes a configuration, shows it, "
        "trains, and says how good it got and which photos are wrong. Nothing in the folder of the "
        "photos is changed.",
        epilog="example: ppcls finetune --data photos --model MobileNetV2",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FOLDER",
        help="a folder for each class; or train/ and val/ or test/ with those; or train_list.txt "
        "and val_list.txt or test_list.txt",
    )
    parser.add_argument(
        "--model", default="MobileNetV2", metavar="NAME", help="default: MobileNetV2"
    )
    parser.add_argument("--epochs", type=_positive, metavar="N", help="default: by the photos")
    parser.add_argument("--out", metavar="DIR", help="default: output/ and the name of FOLDER")
    parser.add_argument(
        "--pretrained",
        metavar="PATH|URL",
        help="weights to start from (default: the published ones of ImageNet)",
    )
    parser.add_argument(
        "--val", type=_part, default=0.2, metavar="PART", help="kept to test with (default: 0.2)"
    )
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="default: 0")
    parser.add_argument("--yes", action="store_true", help="train without asking")
    parser.add_argument(
        "--dry-run", action="store_true", help="write and show the configuration only"
    )
    parser.add_argument("--force", action="store_true", help="write over what is in DIR")
    add_override(parser)
    parser.set_defaults(run=_finetune)


def _finetune(options: argparse.Namespace) -> int:
    begun = time.perf_counter()
    with starting():
        from ppcls.engine.device import require_paddle
        from ppcls.report.finetune_photos import described, find_photos
        from ppcls.report.finetune_plan import cpus, make_plan

        require_paddle()
    folder = Path(options.data)
    out = Path(options.out or Path("output") / (folder.resolve().name or "photos"))
    if (out / CONFIG).exists() and not options.force:
        raise DataError(
            f"{out / CONFIG} is there already: run it by ppcls train -c {out / CONFIG}, or write "
            "it anew by --force, or elsewhere by --out DIR"
        )
    if folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out: expected a folder outside of {folder}, received {out}")
    _check_weights(options.model, options.pretrained)
    photos = find_photos(folder, options.val, options.seed, cpus())
    sys.stdout.write(described(photos))
    plan = make_plan(photos, options.model, options.pretrained, out, options.seed, options.epochs)
    text = _written(plan, options)
    sys.stdout.write(f"\n{out / CONFIG}:\n\n{text}\n")
    sys.stdout.flush()
    if options.dry_run or not (options.yes or _agreed()):
        sys.stdout.write(f"not trained; go on with: ppcls train -c {out / CONFIG}\n")
        return 0
    _train(photos, out, options, begun)
    return 0


def _check_weights(model: str, given: str | None) -> None:
    """Raises UsageError or WeightsError before anything is looked at."""
    with starting():
        import ppcls
        from ppcls.weights import commands, find_pretrained
        from ppcls.weights.pretrained import pretrained_table
    if model not in (names := ppcls.list_models()):
        raise UsageError(f"--model: there is no network '{model}'{suggestion(model, names)}")
    if given is not None:
        commands.check_loads(model, given)
        return
    try:
        find_pretrained(model)
    except WeightsError as error:
        known = pretrained_table()
        if model in known:
            raise WeightsError(f"{error}; or give weights by --pretrained FILE") from None
        family = [name for name in known if name.split("_")[0] == model.split("_")[0]]
        others = ", ".join((family or ["MobileNetV2", "PPLCNet_x1_0", "ResNet50"])[:6])
        raise WeightsError(
            f"no weights of {model} are published that are known here: give some by --pretrained "
            f"FILE or URL, or take a network that has some, such as {others}"
        ) from None


def _written(plan: Plan, options: argparse.Namespace) -> str:
    """Writes lists and configuration; returns the latter."""
    from ppcls.config.compose import compose
    from ppcls.config.render import render
    from ppcls.data.lists import write_lists
    from ppcls.report.finetune_plan import configuration
    from ppcls.report.page import write

    typed = ["ppcls", "finetune", "--data", options.data, "--model", options.model]
    for name in ("pretrained", "epochs", "seed"):
        if value := getattr(options, name):
            typed += [f"--{name}", str(value)]
    text = configuration(plan, [shlex.quote(part) for part in typed])
    with tempfile.TemporaryDirectory() as folder:  # a mistake in -o leaves nothing behind
        file = Path(folder) / CONFIG
        write(file, text)
        load(str(file), options.override)
        if options.override:
            # Set in the file, so that it is what runs; the comments of its sections are lost.
            head = "".join(line for line in text.splitlines(True)[:3])
            text = head + render(compose(file, options.override))
    write_lists(plan.photos.lists, plan.out, force=options.force)
    write(plan.out / CONFIG, text)
    return text


def _agreed() -> bool:
    """Asks, where somebody can answer."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    sys.stdout.write("train? [Y/n] ")
    sys.stdout.flush()
    answer = sys.stdin.readline()  # without any line, Ctrl-D was pressed
    return answer.strip().casefold() in ("", "y", "yes") and bool(answer)


def _train(photos: Photos, out: Path, options: argparse.Namespace, begun: float) -> None:
    """Trains, measures, writes the results."""
    with starting():
        from ppcls.engine.trainer import Trainer
        from ppcls.report.finetune import commands, measured, write_results
    config = load(str(out / CONFIG), [])
    trainer = Trainer(config)
    options.resume = f"go on with ppcls train -c {out / CONFIG}"
    latest = trainer.folder / "latest"
    options.resume += f" -o Global.checkpoints={latest}, if an epoch was finished"
    state = trainer.fit()
    weights = trainer.folder / ("best_model" if "best_model" in trainer.saved else "latest")
    found = measured(photos, load(str(out / CONFIG), [f"Global.pretrained_model={weights}"]))
    results = {
        "model": options.model,
        "data": str(options.data),
        "seed": config.Global.seed,
        "epochs": state.epoch,
        "seconds": round(time.perf_counter() - begun, 1),
        **found,
        "left_out": photos.broken,
        "files": {"results": str(out / "results.json"), "weights": str(weights)},
        "commands": commands(out / CONFIG, weights),
    }
    sys.stdout.write(write_results(results, out))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, received '{text}'")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        expected = f"expected an integer >= 0 and < {2**32}"
        raise argparse.ArgumentTypeError(f"{expected}, received '{text}'")
    return int(text)


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a part between 0 and 1, received '{text}'")
    return value
