"""Checkpoints: what a run needs to go on.

A checkpoint is a folder, committed whole, with sizes and SHA-256 of its files in
``manifest.json``. Nothing in it but ``model.pdparams`` can carry code, and that file is read by an
unpickler that admits arrays only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.engine.folders import written_whole
from ppcls.errors import CURE, TrainingError, WeightsError
from ppcls.weights import published
from ppcls.weights.manifest import MANIFEST_FILE, describe_file, read_manifest, verify_files
from ppcls.weights.source import MODEL_FILE

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
ARRAYS_FILE = "ema.safetensors"
NETWORKS_FILE = "networks.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to go on from.

    Attributes:
        weights: the file with the network's weights.
        optimizer: the optimizer's arrays, keyed by parameter name.
        state: how far the run had come; ``epoch`` at least.
        arrays: what averaging goes on with; empty without.
        networks: weights of other networks that are trained together with this one.
    """

    weights: Path
    optimizer: dict[str, np.ndarray]
    state: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    networks: dict[str, np.ndarray] = field(default_factory=dict)


def save_checkpoint(
    folder: Path,
    net: Any,
    optimizer_state: Mapping[str, np.ndarray],
    state: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    networks: Mapping[str, np.ndarray],
) -> None:
    """Writes a checkpoint to ``folder``, replacing an older one there.

    Args:
        net: the network, whose state dict goes to ``model.pdparams``.
        optimizer_state: arrays keyed by parameter name.
        state: what else the run needs to go on; plain JSON values.
        arrays: of handlers; a file of their own if there are any.
        networks: weights of networks that are trained beside ``net``; as ``arrays``.

    Raises:
        TrainingError: the weights are lost, and would take the place of good ones.
        EnvironmentProblem: the folder cannot be written.
    """
    import paddle
    from safetensors.numpy import save

    for name, tensor in net.state_dict().items():
        if "float" in str(tensor.dtype) and not tensor.isfinite().all().item():
            raise TrainingError(f"'{name}' is not finite any more: nothing was saved; {CURE}")
    with written_whole(folder) as new:
        paddle.save(net.state_dict(), str(new / MODEL_FILE))
        contents = {ARRAYS_FILE: arrays, NETWORKS_FILE: networks, OPTIMIZER_FILE: optimizer_state}
        for name, content in contents.items():
            if content or name == OPTIMIZER_FILE:
                whole = {key: np.ascontiguousarray(value) for key, value in content.items()}
                (new / name).write_bytes(save(whole))
        _write_json(new / STATE_FILE, state)
        _write_json(new / MANIFEST_FILE, {p.name: describe_file(p) for p in sorted(new.iterdir())})


def open_checkpoint(source: str) -> Checkpoint:
    """What ``Global.checkpoints`` names: a checkpoint folder, or a prefix of PaddleClas's.

    Raises:
        WeightsError: it is no checkpoint that a run can go on from, or a file of it is damaged.
    """
    path = Path(source).expanduser()
    folder = path.parent if path.name in (MODEL_FILE, Path(MODEL_FILE).stem) else path
    if (folder / MANIFEST_FILE).is_file():
        return _open_folder(folder)
    prefix = path.with_suffix("") if path.suffix == ".pdparams" else path
    if published.is_checkpoint(prefix):
        return Checkpoint(*published.read_checkpoint(prefix))
    if path.exists() or path.with_name(path.name + ".pdparams").is_file():
        raise WeightsError(
            f"{source}: is no checkpoint that a run can go on from ({MANIFEST_FILE} is missing); "
            "to start from its weights, use Global.pretrained_model"
        )
    raise WeightsError(f"{source}: there is no such checkpoint")


def read_state(folder: Path) -> dict[str, Any]:
    """What ``state.json`` beside a weights file says; empty for files from elsewhere."""
    path = folder / STATE_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _open_folder(folder: Path) -> Checkpoint:
    """Compares every file with the manifest before it is used."""
    from safetensors.numpy import load_file

    verify_files(folder, read_manifest(folder), (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE))
    state = read_state(folder)
    weights, optimizer = folder / MODEL_FILE, load_file(folder / OPTIMIZER_FILE)
    others = (folder / name for name in (ARRAYS_FILE, NETWORKS_FILE))
    arrays, networks = (load_file(path) if path.is_file() else {} for path in others)
    return Checkpoint(weights, optimizer, state, arrays, networks)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
