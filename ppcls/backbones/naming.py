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
