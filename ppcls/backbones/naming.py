"""How other libraries call the parameters of a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# What is replaced, and by what: the arguments of `re.sub`, applied one after the other.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]

# PyTorch's names of what Paddle calls `_mean` and `_variance`.
TORCH_RULES: list[Rule] = [(r"\._mean$", ".running_mean"), (r"\._variance$", ".running_var")]

# timm's names in networks of inverted residuals, whose first stage has no expanding convolution;
# for ours in stages of blocks with a ``path`` of expand, depthwise, squeeze and project.
TIMM_INVERTED_RESIDUALS: list[Rule] = [
    (r"^stem\.conv", "conv_stem"),
    (r"^stem\.norm", "bn1"),
    (r"^head\.conv\.conv", "conv_head"),
    (r"^head\.conv\.norm", "bn2"),
    (r"^stages\.(\d+)\.(\d+)\.path\.", r"blocks.\1.\2."),
    (r"\.squeeze\.(reduce|expand)\.", r".se.conv_\1."),
    (r"^(blocks\.0\.\d+)\.depthwise\.conv", r"\1.conv_dw"),
    (r"^(blocks\.0\.\d+)\.depthwise\.norm", r"\1.bn1"),
    (r"^(blocks\.0\.\d+)\.project\.conv", r"\1.conv_pw"),
    (r"^(blocks\.0\.\d+)\.project\.norm", r"\1.bn2"),
    (r"\.expand\.conv", ".conv_pw"),
    (r"\.expand\.norm", ".bn1"),
    (r"\.depthwise\.conv", ".conv_dw"),
    (r"\.depthwise\.norm", ".bn2"),
    (r"\.project\.conv", ".conv_pwl"),
    (r"\.project\.norm", ".bn3"),
]


@dataclass(frozen=True)
class Naming:
    """The names that one other library gives to the entries of a network's state dict.

    Rules go from our names to the other's, so that a file can be read with them as well as
    written.

    Attributes:
        library: ``PaddleClas``, ``torchvision``, ``timm`` or another one.
        rules: applied in order to each of our names.
        torch: the library is PyTorch's: batch statistics have PyTorch's names (renamed after
            ``rules``), and a linear layer's weight is [out, in].
        settings: what ``Backbone.adopt`` has to set for that library's weights to mean the same.
        ignored: a regular expression of the library's names that are no weights of ours, such as
            tables that a network computes for itself.
    """

    library: str
    rules: Sequence[Rule] = ()
    torch: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    ignored: str = r"(^|\.)num_batches_tracked$"

    def rename(self, name: str) -> str:
        """Our name -> the library's."""
        for pattern, replacement in (*self.rules, *(TORCH_RULES if self.torch else ())):
            name = re.sub(pattern, replacement, name)
        return name
