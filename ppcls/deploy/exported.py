"""The exported folder: a program, its weights, and ``inference.yml`` with everything else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ppcls.config.check import Checker
from ppcls.config.problems import ConfigError
from ppcls.config.source import read_file
from ppcls.data.pipeline import Pipeline
from ppcls.errors import WeightsError
from ppcls.registry import POSTPROCESSES, TRANSFORMS, Many, One, Spec
from ppcls.weights.manifest import verify_files

PROGRAM_FILE = "inference.json"
PARAMETERS_FILE = "inference.pdiparams"
DESCRIPTION_FILE = "inference.yml"
ONNX_FILE = "inference.onnx"


@dataclass
class PreProcessSection:
    """What is done to a picture before the network sees it."""

    transform_ops: Annotated[list[Spec], Many(TRANSFORMS)]


@dataclass
class ExportedModel:
    """What ``inference.yml`` says.

    Attributes:
        model_name: the network's name.
        input_shape: channels, height and width of one image.
        output: what the network answers with: ``logits``.
        labels: the classes' names, in order, if they were known.
        metrics: results of the exported weights, if they were known.
        versions: of ppcls and Paddle.
        files: sizes and SHA-256 of the folder's other files.
    """

    model_name: str
    input_shape: list[int]
    output: str
    PreProcess: PreProcessSection
    PostProcess: Annotated[Spec, One(POSTPROCESSES)]
    labels: list[str] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)

    def pipeline(self) -> Pipeline:
        """The preprocessing."""
        return Pipeline([spec.build() for spec in self.PreProcess.transform_ops])

    def postprocess(self) -> Any:
        """The post-processing, with the labels of the folder."""
        return self.PostProcess.build(class_names=self.labels)


def read_exported(folder: str | Path) -> ExportedModel:
    """Reads and verifies an exported folder.

    Paddle answers with garbage, and no error, if the weights file is missing; so every file is
    compared with its checksum first.

    Raises:
        WeightsError: a file is missing or damaged.
        ConfigError: ``inference.yml`` is not one of ours.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        raise WeightsError(f"{folder}: is not an exported model: {DESCRIPTION_FILE} is missing")
    tree = read_file(path)
    checker = Checker()
    model = checker.section(ExportedModel, tree)
    checker.probe({})
    if checker.problems or model is None:
        raise ConfigError(checker.problems)
    verify_files(folder, model.files, (PROGRAM_FILE, PARAMETERS_FILE), DESCRIPTION_FILE)
    return model
