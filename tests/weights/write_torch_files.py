"""Writes the real files of PyTorch that the tests read; run by hand, with PyTorch.

    python tests/weights/write_torch_files.py

The files in the repository are PyTorch 2.13's.
"""

import argparse
from pathlib import Path

import torch

base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
noted = torch.ones(3)
noted.note = "an attribute"
weights = {
    "double": torch.linspace(0, 1, 5, dtype=torch.float64),
    "half": torch.tensor([1.5, 65504.0], dtype=torch.float16),
    "bfloat16": torch.tensor([1.0, -2.5, 3.140625], dtype=torch.bfloat16),
    "int64": torch.tensor([-3, 0, 7]),
    "int32": torch.tensor([-3, 0, 7], dtype=torch.int32),
    "int16": torch.tensor([-3, 0, 7], dtype=torch.int16),
    "int8": torch.tensor([-3, 0, 7], dtype=torch.int8),
    "uint16": torch.tensor([0, 65535], dtype=torch.uint16),
    "uint8": torch.tensor([0, 255], dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "whole": base,
    "tied": base,
    "turned": base.t(),
    "part": base[1:3, ::2],
    "channels_last": torch.arange(16.0).reshape(1, 2, 2, 4).to(memory_format=torch.channels_last),
    "parameter": torch.nn.Parameter(torch.tensor([4.0, 5.0])),
    "noted": noted,
}
checkpoint = {
    "epoch": 3,
    "best": 0.5,
    "name": "net",
    "shape": torch.Size([1, 2]),
    "device": torch.device("cpu"),
    "args": argparse.Namespace(lr=0.1),
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
    "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()},
}
layers = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.BatchNorm2d(2))
for i, tensor in enumerate(layers.state_dict().values()):
    tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape) + 10 * i)
folder = Path(__file__).parent / "torch"
folder.mkdir(exist_ok=True)
torch.save(checkpoint, folder / "checkpoint.pth")
torch.save(checkpoint, folder / "legacy.pth", _use_new_zipfile_serialization=False)
torch.save(layers.state_dict(), folder / "layers.pt")
torch.save(layers, folder / "module.pt")
