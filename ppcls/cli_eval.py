"""``ppcls eval``, and what else needs evaluations: ``ppcls weights average --greedy``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppcls.cli_start import add_override, load, starting
from ppcls.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from ppcls.engine.evaluator import Evaluator
    from ppcls.report.evaluation import Evaluated


def add_eval_command(commands: Any) -> None:
    """Adds ``eval`` to the subparsers of ``ppcls``."""
    parser = commands.add_parser(
        "eval",
        help="evaluate weights",
        description="Evaluates the weights that are named, or those of Global.pretrained_model. "
        "The results are also written as JSON.",
        epilog="example: ppcls eval -c configs/quick_start/MobileNeXt_mnist.yaml "
        "output/MobileNeXt_x0_35/best_model output/MobileNeXt_x0_35/latest",
    )
    parser.set_defaults(run=_eval)
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="a YAML file")
    add_override(parser)
    parser.add_argument(
        "checkpoints",
        nargs="*",
        metavar="CHECKPOINT",
        help="checkpoint folders or weights files; several are compared in a table",
    )
    parser.add_argument(
        "--tta",
        choices=("flip", "five", "ten"),
        help="mean answer to: the picture and its mirror image (flip); the corners and the centre "
        "of what the final crop cuts from (five); both (ten)",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="fit a temperature on these pictures and write it beside the weights, for infer and "
        "export",
    )
    parser.add_argument(
        "--diagram", metavar="FILE", help="draw how reliable the probabilities are, as a picture"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the JSON file (default: eval_<checkpoint>.json in <output_dir>/<Arch.name>)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="text (default); json: one object a checkpoint and line, the log on standard error",
    )
    parser.add_argument(
        "--allow-random", action="store_true", help="go on without weights, with random ones"
    )


def add_greedy_options(parser: argparse.ArgumentParser) -> None:
    """Adds to ``weights average`` what a greedy soup needs."""
    parser.add_argument(
        "--greedy",
        action="store_true",
        help="average only those that do not make the result on DataLoader.Eval of -c worse",
    )
    parser.add_argument("-c", "--config", metavar="FILE", help="a YAML file, with --greedy")
    add_override(parser)


def average(options: argparse.Namespace) -> int:
    """``ppcls weights average``, of all files or greedily."""
    from ppcls.engine.folders import require_writable
    from ppcls.weights import commands
    from ppcls.weights.write import check_suffix

    if Path(options.out).exists():
        raise UsageError(f"{options.out} is there already: OUT comes first, then the files to read")
    if not options.greedy:
        if options.config or options.override:
            raise UsageError("-c and -o: a configuration is for --greedy, which evaluates by it")
        return commands.average(options.out, options.files)
    if not options.config:
        raise UsageError("--greedy: expected a configuration to evaluate by (-c FILE)")
    if len(options.files) < 2:
        raise UsageError(f"expected at least two files to average, received {len(options.files)}")
    check_suffix(Path(options.out))
    require_writable(options.out)
    config = load(options.config, [*options.override, _first_of(options.files)])
    with starting():
        from ppcls.engine.evaluator import Evaluator
        from ppcls.engine.logging import make_logger
        from ppcls.engine.soup import greedy_soup
        from ppcls.weights.write import write_weights

    evaluator = Evaluator(config, logger=make_logger(stream=sys.stderr))
    is_first = evaluator.world.is_first
    try:
        soup = greedy_soup(evaluator, options.files, _say if is_first else _say_nothing)
    finally:
        evaluator.close()
    if is_first:
        write_weights(Path(options.out), soup.weights)
        _say(
            f"{options.out}: the mean of {len(soup.ingredients)} of {len(options.files)} files, "
            f"{evaluator.main_name} {soup.metric:.5f} (the best alone: {soup.best_single:.5f}), "
            f"{commands.summary(soup.weights)}"
        )
    return 0


# Evaluation --------------------------------------------------------------------------------------


def _eval(options: argparse.Namespace) -> int:
    if options.calibrate and options.tta:
        raise UsageError("--calibrate: infer and export show one view of each picture, not --tta's")
    named = options.checkpoints
    overrides = [*options.override, *([_first_of(named)] if named else [])]
    config = load(options.config, overrides)
    with starting():
        from ppcls.engine.evaluator import Evaluator
        from ppcls.engine.folders import require_writable
        from ppcls.engine.logging import make_logger
        from ppcls.report.figure import require_figure
        from ppcls.weights import find_weights

    for checkpoint in named:
        find_weights(checkpoint)  # a mistake in the last name is told before the first is evaluated
    if options.out:
        require_writable(options.out)
    if options.diagram:
        require_figure(options.diagram)
    logger = make_logger(stream=sys.stderr) if options.format == "json" else None
    evaluator = Evaluator(config, options.allow_random, options.tta, logger)
    evaluated: list[Evaluated] = []
    try:
        evaluated.append(_evaluated(evaluator, options, named[0] if named else None))
        for checkpoint in named[1:]:
            evaluator.load(checkpoint)
            evaluated.append(_evaluated(evaluator, options, checkpoint))
    finally:
        try:
            if evaluated and evaluator.world.is_first:
                _report(evaluator, evaluated, options)  # also what came before a mistake or Ctrl-C
        finally:
            evaluator.close()
    return 0


def _evaluated(evaluator: Evaluator, options: argparse.Namespace, name: str | None) -> Evaluated:
    """One checkpoint's evaluation, and its calibration if that is asked for."""
    from ppcls.engine.calibration import METRICS_NEEDED, write_calibration
    from ppcls.report.evaluation import Evaluated

    also: Sequence[str] = ("ECE",) if options.diagram else ()
    if options.calibrate:
        if evaluator.reader.dataset.labels.ndim > 1:
            raise UsageError("--calibrate: expected pictures of one class each, received several")
        if evaluator.weights is None:
            raise UsageError("--calibrate: expected weights, received random ones")
        also = METRICS_NEEDED
    result = evaluator.measure(also)
    written = None
    if options.calibrate and evaluator.weights and evaluator.world.is_first:
        path = write_calibration(evaluator.weights, result.values, result.samples)
        evaluator.logger.info(f"temperature {result.values['temperature']:.5f}: {path}")
        written = str(path)
    weights = name or (str(evaluator.weights) if evaluator.weights else None)
    return Evaluated(weights, evaluator.state.get("epoch"), result, written)


def _report(
    evaluator: Evaluator, evaluated: Sequence[Evaluated], options: argparse.Namespace
) -> None:
    """What a person or a program gets to see."""
    from ppcls.report import evaluation

    best = evaluation.best_of(evaluated, evaluator.main_name, evaluator.higher_is_better)
    if options.format == "json":
        for one in evaluated:
            _say(json.dumps(one.to_dict()))
    elif len(evaluated) > 1:
        sys.stdout.write(evaluation.comparison(evaluated, evaluator.main_name, best))
    else:
        names = evaluator.reader.dataset.class_names or evaluator.state.get("class_names")
        sys.stdout.write(evaluation.tables(evaluated[0].result, names))
    _write(evaluator, evaluated, options, best)
    if options.diagram:
        _draw(evaluated, Path(options.diagram))


def _write(
    evaluator: Evaluator,
    evaluated: Sequence[Evaluated],
    options: argparse.Namespace,
    best: int | None,
) -> None:
    """The JSON file; where none was asked for, one that cannot be written is no failure."""
    from ppcls.report.evaluation import write_json

    path = Path(options.out) if options.out else _json_file(evaluator, evaluated, options.tta)
    facts = {
        "config": options.config,
        "tta": options.tta,
        "main": evaluator.main_name,
        "higher_is_better": evaluator.higher_is_better,
    }
    try:
        write_json(path, evaluated, facts, best)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        if options.out:
            raise EnvironmentProblem(message) from None
        evaluator.logger.warning(message)


def _json_file(evaluator: Evaluator, evaluated: Sequence[Evaluated], tta: str | None) -> Path:
    """``eval_best_model.json`` in the folder of the run."""
    from ppcls.weights.source import MODEL_FILE

    config, weights = evaluator.config, evaluator.weights
    name = "random" if weights is None else weights.stem
    if weights is not None and weights.name == MODEL_FILE:
        name = weights.absolute().parent.name
    if len(evaluated) > 1:
        name = "checkpoints"
    suffix = f"_{tta}" if tta else ""
    folder = Path(config.Global.output_dir) / config.Arch.name
    return folder / f"eval_{name}{suffix}.json"


def _draw(evaluated: Sequence[Evaluated], out: Path) -> None:
    from ppcls.report.reliability import draw_reliability

    titles = {"reliability": "ECE", "calibrated_reliability": "calibrated_ECE"}
    panels = {}
    for one in evaluated:
        prefix = f"{one.weights}\n" if len(evaluated) > 1 else ""
        for table, name in titles.items():
            if table in one.result.tables:
                title = f"{prefix}{name.replace('_', ' ')} {one.result.values[name]:.4f}"
                panels[title] = one.result.tables[table]
    draw_reliability(panels, out)


def _first_of(checkpoints: Sequence[str]) -> str:
    """The override that names the first weights; quoted, as a path may mean something to YAML."""
    return f"Global.pretrained_model={json.dumps(checkpoints[0])}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _say_nothing(text: str) -> None:
    """What processes other than the first say."""
