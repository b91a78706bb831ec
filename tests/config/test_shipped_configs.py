"""The files under ``configs/``: valid, as their headers say, and each builds its network."""

from __future__ import annotations

import gc
import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from zero_weights import zero_weights

import ppcls
from ppcls import zoo
from ppcls.config import load_config
from ppcls.config.compose import compose

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
PIECES = sorted(CONFIGS.glob("_base_/*.yaml"))
FILES = sorted(set(CONFIGS.rglob("*.yaml")) - set(PIECES))
DISTILLATION = sorted(CONFIGS.glob("ImageNet/Distillation/*.yaml"))
VARIANTS = sorted(set(CONFIGS.glob("ImageNet/*/*.yaml")) - set(DISTILLATION))
LARGE = 40_000_000  # parameters; building such a network takes seconds

# Networks of the zoo without a recipe of their own: other libraries' versions of one that has one.
WITHOUT_RECIPE = [
    "LCNet_*",
    "*_paper",
    "*_timm",
    "EfficientNetB0_small",
    "ResNeXt101_32x8d",
    "SE_ResNet18_vd",
    "SE_ResNet34_vd",
    "SE_ResNet50",
]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> dict[str, Any]:
    """What a file and its bases say."""
    return compose(path).plain()


@cache
def models() -> dict[str, tuple[zoo.Family, zoo.Model]]:
    return {
        name: (family, model)
        for family in zoo.families()
        for model in family.networks
        for name in (model.name, *model.aliases)
    }


def by_size(path: Path) -> Any:
    large = models()[tree(path)["Arch"]["name"]][1].params > LARGE
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if large else [])


# Validity -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_file_is_right(path: Path) -> None:
    assert load_config(path).warnings == ()


@pytest.mark.parametrize("path", [*VARIANTS, *DISTILLATION], ids=relative)
def test_every_recipe_has_all_that_the_commands_need(path: Path) -> None:
    config = load_config(path)
    config.require("Loss.Train", "Optimizer", "DataLoader.Train", purpose="training")
    config.require("Metric.Eval", "DataLoader.Eval", purpose="evaluation")
    config.require("Infer.transforms", "Infer.PostProcess", purpose="prediction")


def test_every_piece_is_part_of_a_file() -> None:
    used = {
        (path.parent / base).resolve()
        for path in (*FILES, *PIECES)
        for base in re.findall(r"[\w./]+\.yaml", path.read_text(encoding="utf-8"))
    }
    assert set(PIECES) <= used


# Headers ------------------------------------------------------------------------------------------


def header(path: Path) -> str:
    """The comment that a file begins with, in one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("# ") for line in lines[:end])


@pytest.mark.parametrize("path", [*VARIANTS, *DISTILLATION], ids=relative)
def test_a_header_names_a_command_that_runs_the_file(path: Path) -> None:
    assert re.findall(r"tools/train\.py -c (\S+)", header(path)) == [relative(path)]


@pytest.mark.parametrize(
    "path", [p for p in VARIANTS if not p.stem.endswith("_cooldown")], ids=relative
)
def test_a_header_says_what_the_table_of_networks_says(path: Path) -> None:
    text = header(path)
    family, model = models()[tree(path)["Arch"]["name"]]
    assert f": {zoo.short(model.params)} parameters, " in text
    assert f" {zoo.short(model.macs)} multiply-adds at {model.image_size} pixels. " in text
    assert f" {family.paper} " in text
    expected = "none known." if not model.top1 else f"{next(iter(model.top1.values()))} ("
    assert f"Published top-1 on ImageNet-1k: {expected}" in text
    assert "Recipe: " in text
    assert "Not trained to the end by us." in text


@pytest.mark.parametrize("path", VARIANTS, ids=relative)
def test_a_file_is_called_as_its_network_and_evaluates_at_its_size(path: Path) -> None:
    plain = tree(path)
    name = plain["Arch"]["name"]
    assert path.stem in (name, f"{name}_cooldown")
    size = models()[name][1].image_size
    assert plain["Global"]["image_shape"] == [3, size, size]
    evaluation = plain["DataLoader"]["Eval"]["dataset"]["transform_ops"]
    assert plain["Infer"]["transforms"] == evaluation
    sizes = [
        arguments["size"]
        for op in evaluation
        for arguments in op.values()
        if "size" in (arguments or {})
    ]
    assert sizes == [size]


def test_every_network_has_a_recipe_or_is_known_to_have_none() -> None:
    with_recipe = {models()[tree(path)["Arch"]["name"]][1].name for path in VARIANTS}
    others = {model.name for _, model in models().values()} - with_recipe
    assert [n for n in others if not any(fnmatchcase(n, p) for p in WITHOUT_RECIPE)] == []
    assert [n for n in with_recipe if any(fnmatchcase(n, p) for p in WITHOUT_RECIPE)] == []


# Networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [by_size(path) for path in VARIANTS])
def test_a_file_builds_its_network(path: Path) -> None:
    arguments = dict(tree(path)["Arch"])
    with zero_weights():
        net = ppcls.create_model(arguments.pop("name"), **arguments)
    assert net.class_num == 1000
    del net
    gc.collect()  # the next one may need the memory
