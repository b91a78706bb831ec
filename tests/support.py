"""What tests of the engine, of deployment and of the command line share."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NET = "MobileNeXt_x0_1"
CLASSES = ["blue", "green", "red"]  # sorted, as class folders are read
COLOURS = {"blue": (30, 40, 200), "green": (30, 190, 50), "red": (210, 40, 30)}
SIDE = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRANSFORMS = [
    {"DecodeImage": None},
    {"ResizeImage": {"size": [SIDE, SIDE]}},
    {"NormalizeImage": {"mean": [*MEAN], "std": [*STD]}},
    {"ToCHWImage": None},
]
CHECKPOINT_FILES = {"model.pdparams", "optimizer.safetensors", "state.json", "manifest.json"}
STAMP = r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] ppcls INFO: "
NUMBER = r"-?\d+\.\d{5}"

os.environ.setdefault("GLOG_minloglevel", "2")  # helpers import Paddle before the library does

# Pictures ----------------------------------------------------------------------------------------


def picture(colour: str, number: int, side: int = SIDE) -> np.ndarray:
    """A noisy square of one colour with a bright stripe; uint8 RGB [side, side, 3]."""
    rng = np.random.default_rng((CLASSES.index(colour), number))
    image = rng.normal(COLOURS[colour], 40, (side, side, 3))
    image[:, rng.integers(side)] = 255
    return image.clip(0, 255).astype(np.uint8)


def write_pictures(folder: Path, counts: Sequence[int], first: int = 0) -> None:
    """PNG files in ``folder/<class>/``, ``counts`` of each class."""
    for colour, count in zip(CLASSES, counts, strict=True):
        (folder / colour).mkdir(parents=True)
        for number in range(first, first + count):
            path = folder / colour / f"{colour}_{number}.png"
            Image.fromarray(picture(colour, number)).save(path)


def write_list(folder: Path, split: str) -> Path:
    """A list file of ``folder/<split>``, with the labels of the sorted class folders."""
    paths = sorted((folder / split).rglob("*.png"))
    lines = [f"{p.relative_to(folder)} {CLASSES.index(p.parent.name)}\n" for p in paths]
    path = folder / f"{split}_list.txt"
    path.write_text("".join(lines))
    return path


# Configurations ----------------------------------------------------------------------------------


def config_tree(pictures: Path, output: Path) -> dict[str, Any]:
    """A small run on a picture folder: 24 samples, 3 iterations an epoch."""

    def reader(batch_size: int, **sampler: Any) -> dict[str, Any]:
        dataset = {"name": "ImageFolder", "image_root": str(pictures), "transform_ops": TRANSFORMS}
        sampler = {"name": "DistributedBatchSampler", "batch_size": batch_size, **sampler}
        return {"dataset": dataset, "sampler": sampler, "loader": {"num_workers": 0}}

    losses = {"Train": [{"CELoss": {"weight": 1.0}}], "Eval": [{"CELoss": {"weight": 1.0}}]}
    metrics = {mode: [{"TopkAcc": {"topk": [1, 2]}}] for mode in ("Train", "Eval")}
    return {
        "Global": {
            "output_dir": str(output),
            "device": "cpu",
            "epochs": 1,
            "print_batch_step": 1,
            "seed": 7,
            "image_shape": [3, SIDE, SIDE],
            "save_inference_dir": str(output / "inference"),
        },
        "Arch": {"name": NET, "class_num": len(CLASSES)},
        "Loss": losses,
        "Optimizer": {
            "name": "Momentum",
            "momentum": 0.9,
            "lr": {"name": "Constant", "learning_rate": 0.02},
        },
        "DataLoader": {"Train": reader(8, shuffle=True, drop_last=True), "Eval": reader(8)},
        "Infer": {
            "batch_size": 4,
            "transforms": TRANSFORMS,
            "PostProcess": {"name": "Topk", "topk": 3},
        },
        "Metric": metrics,
    }


def write_config(path: Path, tree: Mapping[str, Any]) -> Path:
    # A round trip without aliases: one list object may stand at several places of the tree.
    dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    path.write_text(yaml.dump(dict(tree), Dumper=dumper, sort_keys=False))
    return path


def load(path: Path, *overrides: str) -> Any:
    from ppcls import load_config

    return load_config(path, overrides)


def override_arguments(overrides: Sequence[str]) -> list[str]:
    """``-o`` before each."""
    return [part for override in overrides for part in ("-o", override)]


# Runs in this process ----------------------------------------------------------------------------


def train(path: Path, *overrides: str, handlers: Any = None) -> Any:
    """Trains in this process as in a fresh one: names that Paddle counts up start from zero."""
    import paddle

    from ppcls import Trainer

    with paddle.utils.unique_name.guard():
        trainer = Trainer(load(path, *overrides), handlers)
        trainer.fit()
    return trainer


def lively_checkpoint(folder: Path, pictures: Path) -> Path:
    """Untrained weights with a classifier that spreads the answers."""
    import ppcls  # isort: skip
    import paddle

    paddle.seed(3)
    net = ppcls.create_model(NET, class_num=len(CLASSES), dropout=0.0)
    paths = sorted((pictures / "train").rglob("*.png"))
    images = paddle.to_tensor(np.concatenate([preprocessed(path) for path in paths]))
    with paddle.no_grad():
        net.eval()
        logits = net(images)
        scale = 2.0 / logits.std(axis=0)
        net.classifier[1].weight.set_value(net.classifier[1].weight * scale)
        net.classifier[1].bias.set_value(-logits.mean(axis=0) * scale)
    folder.mkdir()
    paddle.save(net.state_dict(), str(folder / "model.pdparams"))
    state = {"epoch": 5, "metric": 0.5, "class_names": CLASSES}
    (folder / "state.json").write_text(json.dumps(state))
    write_manifest(folder)
    return folder


def write_manifest(folder: Path) -> None:
    """The manifest that fits the folder's files as they are now."""
    manifest = {}
    for path in folder.iterdir():
        if path.name != "manifest.json":
            data = path.read_bytes()
            manifest[path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def read_state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "state.json").read_text())


def preprocessed(path: Path) -> np.ndarray:
    """What ``TRANSFORMS`` make of a picture of their size, written out: float32 [1, 3, H, W]."""
    image = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    image = (image - np.float32(MEAN)) / np.float32(STD)
    return image.transpose(2, 0, 1)[None]


def weights(folder: Path) -> dict[str, np.ndarray]:
    from ppcls.weights import read_weights

    return read_weights(folder / "model.pdparams")


def same_files(one: Path, other: Path) -> list[str]:
    """Names of the weights and optimizer files that differ between two checkpoints."""
    names = ("model.pdparams", "optimizer.safetensors")
    return [n for n in names if (one / n).read_bytes() != (other / n).read_bytes()]


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


# Runs in other processes -------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """This process's environment without a launcher's, and with the checkout on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE_", "FLAGS_", "GLOG_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # background shells ignore it


def start(arguments: Sequence[str | Path], cwd: Path) -> subprocess.Popen[str]:
    """Starts Python with these arguments; output is captured."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_interruptible,
    )


def finish(process: subprocess.Popen[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {timeout} s:\n{out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(arguments: Sequence[str | Path], cwd: Path, timeout: float = 60) -> Any:
    """Runs Python to the end."""
    return finish(start(arguments, cwd), timeout)


def launch(
    processes: int, arguments: Sequence[str | Path], cwd: Path, timeout: float = 90
) -> subprocess.CompletedProcess[str]:
    """Runs a script with ``python -m paddle.distributed.launch``; logs go to ``cwd/log``."""
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
    process = start([*launcher, "--log_dir", cwd / "log", *arguments], cwd)
    try:
        return finish(process, timeout)
    finally:
        for pid in processes_with(str(cwd)):  # ranks that outlive a killed launcher
            os.kill(pid, signal.SIGKILL)


def processes_with(text: str) -> list[int]:
    """Other processes whose command line holds a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in line:
                found.append(int(entry.name))
    return found


def children(pid: int) -> list[int]:
    """The living child processes of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 40) -> Any:
    """Polls a condition; returns its first true value."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {timeout} s for {what}")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
