"""How deep in its network a parameter stands, for learning rates that shrink towards the input."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A network of several: layers are written small.
MEMBER = re.compile(r"[A-Z]\w*\.")
# What lies deeper is part of the block.
STAGE = re.compile(r"(?:stages|features|blocks)\.\d+(?=\.)")
BLOCK_OF_STAGE = re.compile(r"stages\.\d+\.(?:blocks\.)?(?:fire)?\d+(?=\.)")


def depths(names: Iterable[str], classifier: Iterable[str] = ()) -> dict[str, int]:
    """The depth of each parameter: 0 is the stem, 1 the first block, and the last is the head.

    Blocks are those of ``stages``, or else the items of ``stages``, ``blocks`` or ``features``.
    What stands before the first (stem, embeddings, tokens) has depth 0, or the first block itself
    where nothing does; what stands behind the last (final normalisation, head, classifiers) is one
    deeper than that. Between blocks (shrinking of maps in Swin) it belongs to the block before. A
    network without all these counts its top-level layers.

    Args:
        names: of the parameters, in the network's order.
        classifier: those among them that belong to the classifier, wherever they stand.
    """
    ordered = list(names)
    keys = _blocks(ordered)
    if not any(keys):
        keys = [name.partition(".")[0] for name in ordered]
        number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        return {name: number[key] for name, key in zip(ordered, keys, strict=True)}
    last = max(i for i, key in enumerate(keys) if key)
    head = set(classifier)
    number = {key: i for i, key in enumerate(dict.fromkeys(key for key in keys if key), start=1)}
    found: dict[str, int] = {}
    depth = 0
    for i, (name, key) in enumerate(zip(ordered, keys, strict=True)):
        depth = number.get(key, depth)
        found[name] = len(number) + 1 if i > last or name in head else depth
    least = min(found.values())
    return {name: depth - least for name, depth in found.items()}


def rate_factors(
    names: Iterable[str], decay: float, classifier: Iterable[str] = ()
) -> dict[str, float]:
    """``decay ** (deepest - depth)`` for each parameter: the head learns at the full rate.

    This is the rule of BEiT (https://arxiv.org/abs/2106.08254) and of PaddleClas's AdamWDL. Of
    several networks in one (``Student.``, ``Teacher.``) each has depths of its own.
    """
    heads = set(classifier)
    networks: dict[str, list[str]] = {}
    for name in names:
        member = MEMBER.match(name)
        networks.setdefault(member[0] if member else "", []).append(name)
    factors: dict[str, float] = {}
    for prefix, members in networks.items():
        own = [name.removeprefix(prefix) for name in members]
        found = depths(own, {head.removeprefix(prefix) for head in heads})
        deepest = max(found.values())
        factors |= {prefix + name: decay ** (deepest - depth) for name, depth in found.items()}
    return factors


def _blocks(names: list[str]) -> list[str]:
    """The block that each parameter is part of, "" for none."""
    blocks = [BLOCK_OF_STAGE.match(name) for name in names]
    stages = [STAGE.match(name) for name in names]
    divided = {s[0] for s, block in zip(stages, blocks, strict=True) if s and block}

    def key(stage: re.Match[str] | None, block: re.Match[str] | None) -> str:
        if block:
            return block[0]
        return stage[0] if stage and stage[0] not in divided else ""

    return [key(*pair) for pair in zip(stages, blocks, strict=True)]
