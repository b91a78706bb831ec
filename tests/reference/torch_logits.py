"""Computes what a PyTorch network answers, for tests that have no PyTorch.

Run in a throw-away environment with torch, torchvision and timm (README of ``benchmark/peers``):

    python tests/reference/torch_logits.py MobileNetV2 torchvision:mobilenet_v2 [--size 224]

writes ``tests/reference/torch/torchvision-mobilenet_v2.json``: the names and shapes of the
state dict, and the logits for the weights and images of ``fill.py``, as `published.json.gz` has
them for PaddleClas. Options of the peer's constructor follow as ``name=value``.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from pathlib import Path

import torch

# Entries that a network computes for itself.
COMPUTED = ("num_batches_tracked", "_index", "relative_coords_table")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "benchmark" / "peers")]

import fill  # noqa: E402
from torch_step import import_torchvision  # noqa: E402


def main() -> None:
    options = parse_options()
    library, name = options.peer.split(":")
    arguments = {k: literal(v) for k, _, v in (o.partition("=") for o in options.arguments)}
    net = build(library, name, arguments).eval()
    shapes = {
        key: list(value.shape)
        for key, value in net.state_dict().items()
        if value.dtype.is_floating_point and not key.endswith(COMPUTED)
    }
    filled = {key: torch.from_numpy(value) for key, value in fill.state_dict(shapes).items()}
    state = net.state_dict()  # MNASNet looks at its version, which a plain dict lacks
    rest = state.keys() - filled.keys()
    assert all(key.endswith(COMPUTED) for key in rest), rest
    state.update(filled)
    net.load_state_dict(state)
    with torch.no_grad():
        logits = net(torch.from_numpy(fill.images(options.size)))
    content = {
        "network": options.network,
        "library": library,
        "model": name,
        "arguments": arguments,
        "image_size": options.size,
        "logits_std": logits.std().item(),
        "logits": [[float(f"{x:.7g}") for x in row[:16].tolist()] for row in logits],
        "state_dict": shapes,
    }
    path = HERE / "torch" / f"{library}-{name}.json"
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    sys.stdout.write(f"{path}: {len(shapes)} entries, std {content['logits_std']:.4f}\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", help="name of the same network in ppcls")
    parser.add_argument("peer", metavar="LIBRARY:NAME", help="timm:... or torchvision:...")
    parser.add_argument("arguments", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--size", type=int, default=224)
    return parser.parse_args()


def literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def build(library: str, name: str, arguments: dict[str, object]) -> torch.nn.Module:
    torchvision = import_torchvision()  # timm imports it, too
    if library == "torchvision":
        return torchvision.models.get_model(name, **arguments)
    import timm

    return timm.create_model(name, **arguments)


if __name__ == "__main__":
    main()
