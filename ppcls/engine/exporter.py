"""Export: a folder that needs nothing else, and that was seen to answer as the network does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ppcls.config import Config
from ppcls.config.source import Node
from ppcls.data.pipeline import Pipeline
from ppcls.deploy.exported import (
    DESCRIPTION_FILE,
    ONNX_FILE,
    PARAMETERS_FILE,
    PROGRAM_FILE,
    read_exported,
)
from ppcls.deploy.paddle_runtime import PaddleRuntime
from ppcls.engine import logging as log
from ppcls.engine.batch import build_inference_pipeline, build_postprocess
from ppcls.engine.device import require_paddle, set_device
from ppcls.engine.folders import written_whole
from ppcls.engine.model import load_network
from ppcls.errors import TrainingError
from ppcls.weights.manifest import describe_file

TOLERANCE = 1e-4  # of the logits' spread (standard deviation)
CHECKED_IMAGES = 4


def export_model(config: Config, allow_random: bool = False) -> Path:
    """Writes ``Global.save_inference_dir`` and compares it with the network.

    Args:
        config: a checked configuration that names weights.
        allow_random: export a network without weights.

    Returns:
        The folder.

    Raises:
        WeightsError: no weights, or they do not fit.
        ConfigError: the preprocessing and ``Global.image_shape`` disagree.
        TrainingError: the exported program does not answer as the network does.
    """
    transforms, postprocess = config.require(
        "Infer.transforms", "Infer.PostProcess", purpose="export"
    )
    require_paddle()
    logger = log.make_logger()
    log.warn_of_config(logger, config)
    set_device("cpu", logger)
    net, state = load_network(config, logger, allow_random)
    pipeline = build_inference_pipeline(config, transforms)
    answers = build_postprocess(postprocess, state)
    folder = _own_folder(config)
    images = _sample_batch(config, pipeline)
    expected = _run(net, images)
    net.fuse()
    with written_whole(folder) as new:
        _save_program(net, config.Global.image_shape, new)
        description = _describe(config, state, answers, new)
        (new / DESCRIPTION_FILE).write_text(description, encoding="utf-8")
        model = read_exported(new)
        model.postprocess()(expected, [""] * len(expected))  # the labels have to suffice
        difference = _compare(expected, PaddleRuntime(new)(images))
        logger.info(difference)
    logger.info(f"exported {config.network.name} to {folder}")
    return folder


def _own_folder(config: Config) -> Path:
    """The folder to write: new, empty, or of an earlier export; never one that holds other files.

    Raises:
        ConfigError: it holds something else, which replacing it would delete.
    """
    folder = Path(config.Global.save_inference_dir)
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = sorted(found - {PROGRAM_FILE, PARAMETERS_FILE, DESCRIPTION_FILE, ONNX_FILE})
    if foreign or folder.resolve() == Path.cwd():
        holds = f"it holds '{foreign[0]}'" if foreign else "it is the current folder"
        message = f"expected a folder of its own for the exported model, received {folder}: {holds}"
        raise config.problem("Global.save_inference_dir", message)
    return folder


def _save_program(net: Any, image_shape: list[int], folder: Path) -> None:
    import paddle

    spec = paddle.static.InputSpec([None, *image_shape], "float32", name="x")
    static = paddle.jit.to_static(net, input_spec=[spec], full_graph=True)
    paddle.jit.save(static, str(folder / Path(PROGRAM_FILE).stem))


def _describe(config: Config, state: dict[str, Any], answers: Any, folder: Path) -> str:
    import paddle

    from ppcls import __version__

    infer = _plain(config.tree, "Infer")
    postprocess = {**infer["PostProcess"], "class_id_map_file": None}
    if getattr(answers, "temperature", None) is not None:
        postprocess["temperature"] = answers.temperature
    metric = state.get("metric")
    content = {
        "model_name": config.network.name,
        "input_shape": config.Global.image_shape,
        "output": "logits",
        "PreProcess": {"transform_ops": infer["transforms"]},
        # The names travel in `labels`: the folder needs no other file.
        "PostProcess": postprocess,
        "labels": answers.class_names,
        "metrics": {"main": metric, "epoch": state["epoch"]} if metric is not None else {},
        "versions": {"ppcls": __version__, "paddle": paddle.__version__},
        "files": {path.name: describe_file(path) for path in sorted(folder.iterdir())},
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _sample_batch(config: Config, pipeline: Pipeline) -> np.ndarray:
    """Pictures of an odd size, through the preprocessing that is exported.

    Raises:
        ConfigError: ``Global.image_shape`` is not what the preprocessing makes of them.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (CHECKED_IMAGES, 12, 16, 3), dtype=np.uint8)
    pictures = coarse.repeat(26, axis=1).repeat(26, axis=2)
    batch = pipeline.batch(np.stack([pipeline.image(picture, rng) for picture in pictures]))
    shape = list(batch.shape[1:])
    if shape != config.Global.image_shape:
        expected = f"expected {shape}, which Infer.transforms make of a picture"
        received = f"received {config.Global.image_shape}"
        raise config.problem("Global.image_shape", f"{expected}, {received}")
    return batch


def _run(net: Any, images: np.ndarray) -> np.ndarray:
    import paddle

    with paddle.no_grad():
        return net(paddle.to_tensor(images)).numpy()


def _compare(expected: np.ndarray, received: np.ndarray) -> str:
    difference, spread = float(np.abs(expected - received).max()), float(expected.std())
    text = (
        f"largest difference of the logits between the network and Paddle Inference on "
        f"{len(expected)} pictures: {difference:.2e}, {difference / spread:.2e} of their spread"
    )
    if not difference <= TOLERANCE * spread:
        raise TrainingError(f"{text}; expected at most {TOLERANCE:.0e} of it: nothing was exported")
    return text


def _plain(tree: Node | None, section: str) -> Any:
    return tree.value[section].plain() if tree else {}
