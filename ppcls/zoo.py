"""The networks of the zoo in figures: what ``ppcls models`` prints. Needs no Paddle.

``zoo.yaml`` holds them; ``docs/generate_models.py`` writes parameters and multiply-adds into it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ppcls.errors import UnknownName, suggestion

FILE = Path(__file__).with_name("zoo.yaml")
WEIGHTS_FILE = Path(__file__).parent / "weights" / "pretrained.yaml"


@dataclass(frozen=True)
class Model:
    """One network.

    Attributes:
        image_size: side of the image that ``macs`` and ``top1`` are for.
        params: trainable parameters, with 1000 classes.
        macs: multiply-adds for one image, as ``ppcls.count_macs`` counts them.
        top1: published accuracies in per cent on ImageNet-1k's validation images, by source; the
            first is that of the recipe in ``configs/``.
        stated: parameters and multiply-adds as they are published.
        aliases: other names of the same network.
    """

    name: str
    image_size: int
    params: int
    macs: int
    top1: Mapping[str, float] = field(default_factory=dict)
    stated: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """Networks of one paper.

    Attributes:
        title, paper: of the paper, and its address.
        about: what is special about it, in a sentence.
        note: on its published figures.
    """

    name: str
    title: str
    paper: str
    about: str
    note: str
    networks: tuple[Model, ...]


@cache
def families() -> tuple[Family, ...]:
    """All families, in the order of the file."""
    return tuple(
        Family(name, **{**entry, "networks": tuple(_models(entry["networks"]))})
        for name, entry in yaml.safe_load(FILE.read_text(encoding="utf-8")).items()
    )


def _models(rows: Mapping[str, Mapping[str, Any]]) -> Iterable[Model]:
    for name, row in rows.items():
        yield Model(name, **{**row, "aliases": tuple(row.get("aliases", ()))})


def models(pattern: str = "*") -> list[Model]:
    """Networks whose name, or one of whose aliases, matches a shell pattern.

    Raises:
        UnknownName: there is none; with a suggestion.
    """
    known = [model for family in families() for model in family.networks]
    found = [m for m in known if any(fnmatchcase(n, pattern) for n in (m.name, *m.aliases))]
    if not found:
        names = [name for m in known for name in (m.name, *m.aliases)]
        raise UnknownName(f"no network's name matches '{pattern}'{_hint(pattern, names)}")
    return found


def _hint(pattern: str, names: Iterable[str]) -> str:
    """A pattern that matches: names that hold this one, in whatever case, or the nearest name."""
    word = pattern.strip("*")
    for name in names:
        start = name.casefold().find(word.casefold())
        if start >= 0:
            held = name[start : start + len(word)]
            return f"; did you mean '{name if held == name else f'*{held}*'}'?"
    return suggestion(pattern, names)


@cache
def weights() -> Mapping[str, Mapping[str, Any]]:
    """Published weights by the network's name: ``library``, ``top1`` and more."""
    return yaml.safe_load(WEIGHTS_FILE.read_text(encoding="utf-8"))["networks"]


def weights_of(model: Model) -> Mapping[str, Any] | None:
    """The published weights of a network under any of its names."""
    return next((weights()[n] for n in (model.name, *model.aliases) if n in weights()), None)


def weights_text(model: Model) -> str:
    """Whose weights ``pretrained=True`` loads, and their top-1; empty if there are none."""
    given = weights_of(model)
    return f"{given.get('top1', '')} {given['library']}".strip() if given else ""


def as_table(rows: Iterable[Model]) -> str:
    """Lines for people; numbers stand below each other."""
    cells = [["Network", "Parameters", "MACs", "Input", "Top-1", "Weights"], *map(_cells, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            text.rjust(width) if 0 < i < 4 else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines) + "\n"


def _cells(model: Model) -> list[str]:
    aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
    top1 = next((f"{value} {source}" for source, value in model.top1.items()), "-")
    return [
        model.name + aliases,
        short(model.params),
        short(model.macs),
        str(model.image_size),
        top1,
        weights_text(model) or "-",
    ]


def as_json(rows: Iterable[Model]) -> str:
    """An object a line."""
    papers = {m.name: (f.name, f.paper) for f in families() for m in f.networks}
    lines = []
    for model in rows:
        family, paper = papers[model.name]
        given = weights_of(model)
        lines.append({**asdict(model), "family": family, "paper": paper, "weights": given})
    return "".join(json.dumps(line) + "\n" for line in lines)


def short(number: int) -> str:
    """Three digits and a unit: ``3.54 M``, ``311 M``, ``1.19 G``."""
    unit, letter = (10**9, "G") if number >= 999_500_000 else (10**6, "M")
    value = number / unit
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.9995 else 3
    return f"{value:.{decimals}f} {letter}"
