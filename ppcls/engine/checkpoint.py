"""Checkpoints: what a run needs to go on.

A checkpoint is a folder, committed whole, with sizes and SHA-256 of its files in
``manifest.json``. Nothing in it but ``model.pdparams`` can carry code, and that file is read by an
unpickler that admits arrays only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.engine.folders import written_whole
from ppcls.errors import WeightsError
from ppcls.weights.manifest import describe_file, verify_files
from ppcls.weights.source import MODEL_FILE

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
MANIFEST_FILE = "manifest.json"


def save_checkpoint(
    folder: Path, net: Any, optimizer_state: Mapping[str, np.ndarray], state: Mapping[str, Any]
) -> None:
    """Writes a checkpoint to ``folder``, replacing an older one there.

    Args:
        net: the network, whose state dict goes to ``model.pdparams``.
        optimizer_state: arrays keyed by parameter name.
        state: what else the run needs to go on; plain JSON values.
    """
    import paddle
    from safetensors.numpy import save

    with written_whole(folder) as new:
        paddle.save(net.state_dict(), str(new / MODEL_FILE))
        arrays = {name: np.ascontiguousarray(value) for name, value in optimizer_state.items()}
        (new / OPTIMIZER_FILE).write_bytes(save(arrays))
        _write_json(new / STATE_FILE, state)
        _write_json(new / MANIFEST_FILE, {p.name: describe_file(p) for p in sorted(new.iterdir())})


def load_state(folder: Path) -> dict[str, Any]:
    """Compares every file with the manifest, then reads ``state.json``.

    Raises:
        WeightsError: naming the file that is missing, cut off or altered.
    """
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / MANIFEST_FILE}: cannot be read: {error}") from None
    verify_files(folder, manifest)
    return read_state(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """What ``state.json`` beside a weights file says; empty for files from elsewhere."""
    path = folder / STATE_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def load_optimizer(folder: Path) -> dict[str, np.ndarray]:
    """Reads the optimizer's arrays of a verified checkpoint."""
    from safetensors.numpy import load_file

    return load_file(folder / OPTIMIZER_FILE)


def find_checkpoint(source: str) -> Path:
    """The folder that ``Global.checkpoints`` means: itself, or the folder of its weights file.

    Raises:
        WeightsError: it is no checkpoint that a run can go on from.
    """
    path = Path(source).expanduser()
    folder = path.parent if path.name in (MODEL_FILE, Path(MODEL_FILE).stem) else path
    if (folder / MANIFEST_FILE).is_file():
        return folder
    if path.exists() or path.with_name(path.name + ".pdparams").is_file():
        raise WeightsError(
            f"{source}: is not a checkpoint folder of ppcls ({MANIFEST_FILE} is missing), so a run "
            "cannot go on from it; to start from its weights, use Global.pretrained_model"
        )
    raise WeightsError(f"{source}: there is no such checkpoint")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
