"""The ``ppcls`` command; ``tools/*.py`` are its subcommands as scripts."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Any

from ppcls import __version__
from ppcls.cli_data import add_data_commands
from ppcls.cli_eval import add_eval_command, add_greedy_options, average
from ppcls.cli_find import add_find_commands
from ppcls.cli_finetune import add_finetune_command
from ppcls.cli_start import add_override, load, starting
from ppcls.errors import PPClsError, UnknownName, UsageError

INTERRUPTED = 130
TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM has arrived."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0 (done), 1 (failed), 2 (wrong usage), 130 or 143 (stopped)."""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be anything
    with starting():
        options = _parser().parse_args(arguments)
        options.started = time.time()
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        return options.run(options)
    except PPClsError as error:
        _report(error, options)
        return error.exit_code
    except (KeyboardInterrupt, Terminated) as stop:
        name, code = (
            ("SIGTERM", TERMINATED) if isinstance(stop, Terminated) else ("Ctrl-C", INTERRUPTED)
        )
        sys.stderr.write(f"\nstopped by {name}; {_where_to_resume(options)}\n")
        return code
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, and Python would complain of it
        return 1
    except Exception as error:
        traceback.print_exc()
        _record_failure(error, options)
        return 1


# Commands ----------------------------------------------------------------------------------------


def _train(options: argparse.Namespace) -> int:
    config = load(options.config, options.override)
    with starting():
        from ppcls.engine.dry_run import dry_run
        from ppcls.engine.trainer import Trainer

    if options.dry_run:
        dry_run(config)
    else:
        Trainer(config).fit()
    return 0


def _infer(options: argparse.Namespace) -> int:
    source, images = _infer_source(options)
    with starting():
        from ppcls.engine.predictor import Predictor

    failed = False
    for answers in Predictor(source, options.allow_random).batches(images):
        failed |= any("error" in answer for answer in answers)
        lines = map(json.dumps, answers) if options.format == "json" else [str(answers)]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    return int(failed)


def _infer_source(options: argparse.Namespace) -> tuple[Any, list[str]]:
    """The configuration or exported folder to predict with, and the pictures."""
    folder, images = options.model, options.images
    if options.config:
        config = load(options.config, options.override)
        folder = folder or (config.Infer.model_dir if config.Infer else None)
        if not images and config.Infer and config.Infer.infer_imgs:
            images = [config.Infer.infer_imgs]
        source: Any = folder or config
    else:
        given = _infer_overrides(options.override)
        source = folder or given.get("model_dir")
        if not images and "infer_imgs" in given:
            images = [given["infer_imgs"]]
        if not source:
            raise UsageError(
                "expected a configuration (-c FILE) or an exported model (--model FOLDER)"
            )
    if not images:
        raise UsageError("expected pictures: as arguments, or by -o Infer.infer_imgs=PATH")
    return source, images


def _infer_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """``Infer.model_dir`` and ``Infer.infer_imgs``, the only keys that make sense without -c."""
    given = {}
    for override in overrides:
        path, _, value = override.partition("=")
        if path not in ("Infer.model_dir", "Infer.infer_imgs"):
            message = "without -c, -o sets Infer.model_dir and Infer.infer_imgs only"
            raise UsageError(f"{message}, received '{override}'")
        given[path.partition(".")[2]] = value
    return given


def _export(options: argparse.Namespace) -> int:
    config = load(options.config, options.override)
    with starting():
        from ppcls.engine.exporter import export_model

    export_model(config, options.allow_random)
    return 0


def _config_show(options: argparse.Namespace) -> int:
    sys.stdout.write(load(options.config, options.override).to_yaml(origins=not options.plain))
    return 0


def _config_check(options: argparse.Namespace) -> int:
    from ppcls.config import ConfigError

    code = 0
    for path in options.files:
        try:
            config = load(path, options.override)
        except ConfigError as error:
            _report(error, options)
            code = error.exit_code
        else:
            if warning := config.warning():
                sys.stderr.write(f"{path}: {warning}\n")
            sys.stdout.write(f"{path}: ok\n")
    return code


def _config_plot(options: argparse.Namespace) -> int:
    config = load(options.config, options.override)
    with starting():
        from ppcls.report.config_plot import plot

    out = options.out or Path(options.config).with_suffix(".png").name
    sys.stdout.write(f"{plot(config, Path(out), options.steps_per_epoch)}\n")
    return 0


def _models(options: argparse.Namespace) -> int:
    with starting():
        from ppcls import zoo

    try:
        rows = zoo.models(options.pattern)
    except UnknownName as error:
        raise UsageError(str(error)) from None
    sys.stdout.write(zoo.as_json(rows) if options.format == "json" else zoo.as_table(rows))
    return 0


def _weights(options: argparse.Namespace) -> int:
    with starting():
        from ppcls.engine.device import require_paddle

        require_paddle()
        from ppcls.weights import commands

    match options.action:
        case "inspect":
            return commands.inspect(options.file, options.names, options.model)
        case "convert":
            return commands.convert(options.file, options.out, options.model)
        case "diff":
            return commands.diff(options.one, options.other)
        case _:
            return average(options)


# Errors ------------------------------------------------------------------------------------------


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _report(error: PPClsError, options: argparse.Namespace) -> None:
    """A configuration's mistakes a line each, as ``file:line: path: message``; others in a line."""
    from ppcls.config import ConfigError

    if isinstance(error, ConfigError):
        count = len(error.problems)
        mistakes = "1 mistake" if count == 1 else f"{count} mistakes"
        sys.stderr.write(f"{error}\n{mistakes} in the configuration; nothing was started\n")
    else:
        sys.stderr.write(f"error: {error}\n")
    _record_failure(error, options)


def _record_failure(error: BaseException, options: argparse.Namespace) -> None:
    """Tells the launcher's console which of several processes failed."""
    from ppcls.engine.distributed import World
    from ppcls.engine.failure import report_failure

    world = World.from_environment()
    if world.size > 1:
        report_failure(error, world, _run_folder(options))


def _run_folder(options: argparse.Namespace) -> Path | None:
    from ppcls.config import ConfigError, load_config

    try:
        config = load_config(options.config, options.override)
    except (ConfigError, AttributeError, TypeError):
        return None
    return Path(config.Global.output_dir) / config.Arch.name


def _where_to_resume(options: argparse.Namespace) -> str:
    if resume := getattr(options, "resume", None):
        return resume
    folder = _run_folder(options) if options.run is _train else None
    if folder is None or _changed(folder / "latest") < options.started:  # or it is an older run's
        return "nothing was saved"
    return f"go on with -o Global.checkpoints={folder / 'latest'}"


def _changed(folder: Path) -> float:
    """When something was last written there, in seconds since 1970; 0 if there is none."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


# The command line --------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ppcls", description="Image classification on PaddlePaddle, driven by YAML."
    )
    parser.add_argument("--version", action="version", version=f"ppcls {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = _add(
        commands,
        "train",
        _train,
        "train a network",
        "ppcls train -c configs/quick_start/MobileNeXt_mnist.yaml -o Global.epochs=3",
    )
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="one step and one batch of validation through everything; keeps nothing",
    )
    add_eval_command(commands)
    command = _add(
        commands,
        "infer",
        _infer,
        "predict classes of pictures",
        "ppcls infer --model inference photo.jpeg folder_of_photos/",
        config_required=False,
    )
    command.add_argument("--model", metavar="FOLDER", help="an exported folder to predict with")
    command.add_argument(
        "--format",
        choices=("python", "json"),
        default="python",
        help="python: one list a batch (default); json: one object a line",
    )
    command.add_argument("images", nargs="*", metavar="IMAGE", help="pictures, or folders of them")
    _add_allow_random(command)
    command = _add(
        commands,
        "export",
        _export,
        "write a folder to deploy",
        "ppcls export -c configs/quick_start/MobileNeXt_mnist.yaml "
        "-o Global.pretrained_model=output/MobileNeXt_x0_35/best_model",
    )
    _add_allow_random(command)
    _add_config_commands(commands)
    _add_models_command(commands)
    _add_weights_commands(commands)
    add_data_commands(commands)
    add_find_commands(commands)
    add_finetune_command(commands)
    return parser


def _add_config_commands(commands: Any) -> None:
    parser = commands.add_parser("config", help="show or check configurations")
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")
    show = subcommands.add_parser(
        "show",
        help="print the resolved configuration with the origin of each value",
        epilog="example: ppcls config show configs/ImageNet/MobileNeXt/MobileNeXt_100.yaml",
    )
    show.add_argument("config", metavar="FILE")
    show.add_argument("--plain", action="store_true", help="without origins, to be run again")
    show.set_defaults(run=_config_show)
    check = subcommands.add_parser(
        "check",
        help="check configurations without running them",
        epilog="example: ppcls config check configs/ImageNet/MobileNeXt/*.yaml",
    )
    check.add_argument("files", nargs="+", metavar="FILE")
    check.set_defaults(run=_config_check)
    plot = subcommands.add_parser(
        "plot",
        help="draw learning rate, momentum and what else changes over the run",
        epilog="example: ppcls config plot -c configs/ImageNet/MobileNeXt/MobileNeXt_100.yaml",
    )
    plot.add_argument("-c", "--config", required=True, metavar="FILE", help="a YAML file")
    plot.add_argument(
        "--out", metavar="FILE", help="the picture (default: named as FILE, in this folder)"
    )
    plot.add_argument(
        "--steps-per-epoch",
        type=_positive,
        metavar="N",
        help="length of an epoch, instead of that of the data set",
    )
    plot.set_defaults(run=_config_plot)
    for command in (show, check, plot):
        add_override(command)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, received '{text}'")
    return int(text)


def _add_models_command(commands: Any) -> None:
    command = commands.add_parser(
        "models",
        help="list the networks: size, multiply-adds, published top-1",
        description="Lists the networks: size, multiply-adds, published top-1 and weights.",
        epilog="example: ppcls models 'MobileNetV3_small*'",
    )
    command.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="of names")
    command.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="table (default); json: one object a line",
    )
    command.set_defaults(run=_models)


def _add_weights_commands(commands: Any) -> None:
    parser = commands.add_parser("weights", help="inspect, convert, compare, average weights")
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(action: str, help: str, example: str) -> argparse.ArgumentParser:
        command = subcommands.add_parser(
            action, help=help, epilog=f"example: ppcls weights {action} {example}"
        )
        command.set_defaults(run=_weights, action=action)
        return command

    source = "a weights file, a checkpoint folder or a URL"
    command = add("inspect", "print what a file holds", "mobilenet_v2.pth --model MobileNetV2")
    command.add_argument("file", metavar="FILE", help=source)
    command.add_argument("--names", action="store_true", help="names only")
    command.add_argument("--model", metavar="NAME", help="say how this network loads it")
    command = add(
        "convert",
        "write another kind of file",
        "mobilenet_v2.pth mobilenet_v2.pdparams --model MobileNetV2",
    )
    command.add_argument("file", metavar="IN", help=source)
    command.add_argument("out", metavar="OUT", help="a .pdparams or .safetensors file")
    command.add_argument("--model", metavar="NAME", help="by the names and layouts of this network")
    command = add(
        "diff",
        "print where two files differ; exit code 1 if they do",
        "output/MobileNeXt_x0_35/latest output/MobileNeXt_x0_35/best_model",
    )
    command.add_argument("one", metavar="FILE", help=source)
    command.add_argument("other", metavar="FILE", help=source)
    command = add(
        "average",
        "write the mean of several checkpoints",
        "mean.pdparams output/MobileNeXt_x0_35/epoch_8 output/MobileNeXt_x0_35/epoch_9",
    )
    command.add_argument("out", metavar="OUT", help="a .pdparams or .safetensors file")
    command.add_argument("files", metavar="IN", nargs="+", help=source)
    add_greedy_options(command)


def _add(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,
    example: str,
    config_required: bool = True,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"example: {example}",
    )
    parser.add_argument(
        "-c", "--config", required=config_required, metavar="FILE", help="a YAML file"
    )
    add_override(parser)
    parser.set_defaults(run=run)
    return parser


def _add_allow_random(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-random", action="store_true", help="accept a network without weights"
    )


if __name__ == "__main__":
    sys.exit(main())
