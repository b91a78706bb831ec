"""Counts every network of the zoo and writes the figures into ppcls/zoo.yaml and docs/models.md.

python docs/generate_models.py              # all of them: some minutes, 2 GiB of memory
python docs/generate_models.py 'GhostNet*'  # some of them
python docs/generate_models.py --check      # writes nothing; fails if something is not current
"""

from __future__ import annotations

import argparse
import gc
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import ppcls
from ppcls.registry import BACKBONES
from ppcls.zoo import FILE, Family, Model, families, models, short, weights_text

PAGE = Path(__file__).with_name("models.md")
INTRODUCTION = """\
# Networks

<!-- Written by docs/generate_models.py from ppcls/zoo.yaml; do not change it by hand. -->

`ppcls models` prints this table, `ppcls models 'MobileNet*'` a part of it, and
`ppcls.create_model("MobileNetV2")` builds a network. Nearly all have a configuration of their
recipe under `configs/ImageNet/`, whose first lines say where it comes from.

- **Parameters**: trainable ones, with 1000 classes. PaddleClas's lists count the statistics of
  batch normalisation as parameters, too.
- **MACs**: multiply-adds of convolutions, linear layers and attention's products for one image of
  the size in the table, as `ppcls.count_macs` counts them; others call one multiply-add a FLOP, or
  two. Pooling, normalisation, activations and the scaling of squeeze-excitation are left out.
  torchvision, timm and the papers of transformers count attention's products as well; PaddleClas
  and mmpretrain do not, and PaddleClas counts some of the small layers.
  `count_macs(net, 224, attention=False)` leaves the products out.
- **Stated**: what the source named above a table states, parameters / MACs.
- **Weights**: whose `pretrained=True` loads, and their top-1 as published
  ([weights.md](weights.md)).
- **Top-1**: published accuracies on the validation images of ImageNet-1k in per cent, one centre
  crop; not measured again by us, and of different recipes. "authors" are those of the paper or
  their repository. Where "ImageNet-22k" (or -21k) stands, the network was trained on that first.
"""


def main() -> int:
    """Returns 0, or 1 if ``--check`` found something that is not current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pattern", nargs="?", default="*", help="of the networks to count")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args()
    problems = missing_rows()
    text = FILE.read_text(encoding="utf-8")
    for model, params, macs in counted(models(options.pattern)):
        if (model.params, model.macs) != (params, macs):
            problems.append(f"{model.name}: {params} parameters, {macs} multiply-adds")
            text = with_figures(text, model.name, params, macs)
    if not options.check:
        FILE.write_text(text, encoding="utf-8")
        families.cache_clear()
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        problems.append(f"{PAGE.name} is not what {FILE.name} renders to")
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    return int(options.check and bool(problems))


def counted(rows: list[Model]) -> Iterator[tuple[Model, int, int]]:
    """Each network with its trainable parameters and multiply-adds, counted now."""
    built, net = None, None
    for model in rows:
        entry = BACKBONES.entry(model.name)
        if built != (entry.builder, entry.preset):  # the same network at another size is reused
            del net
            gc.collect()
            built, net = (entry.builder, entry.preset), ppcls.create_model(model.name)
        params = sum(math.prod(p.shape) for p in net.parameters() if not p.stop_gradient)
        yield model, params, ppcls.count_macs(net, model.image_size)


def missing_rows() -> list[str]:
    """What the registry and the table say differently about names."""
    networks: dict[object, set[str]] = {}
    for name in ppcls.list_models():
        entry = BACKBONES.entry(name)
        networks.setdefault((entry.builder, repr(entry.preset)), set()).add(name)
    registered = set(ppcls.list_models())
    listed = {name for model in models() for name in (model.name, *model.aliases)}
    problems = [f"{name}: has no row in {FILE.name}" for name in sorted(registered - listed)]
    return problems + [f"{name}: is not registered" for name in sorted(listed - registered)]


def with_figures(text: str, name: str, params: int, macs: int) -> str:
    """The text of ``zoo.yaml`` with other figures in one row."""
    row = re.compile(rf"(^    {name}:\s+\{{image_size: \d+, )params: \d+, macs: \d+", re.MULTILINE)
    changed, count = row.subn(rf"\g<1>params: {params}, macs: {macs}", text)
    if count != 1:
        raise SystemExit(f"{FILE.name}: expected one row of {name}, found {count}")
    return changed


def page() -> str:
    """The text of ``docs/models.md``."""
    return "\n".join([INTRODUCTION, *(section(family) for family in families())])


def section(family: Family) -> str:
    """One family: title, what it is, table."""
    title = family.title if family.title != family.name else "description"
    lines = [f"## {family.name}", "", f"[{title}]({family.paper}). {family.about}", ""]
    if family.note:
        lines += [family.note, ""]
    lines += ["| | Input | Parameters | MACs | Stated | Top-1 | Weights |", "|---" * 7 + "|"]
    for model in family.networks:
        names = "<br>".join(f"`{name}`" for name in (model.name, *model.aliases))
        accuracies = ", ".join(f"{value} {source}" for source, value in model.top1.items())
        cells = (
            names,
            str(model.image_size),
            short(model.params),
            short(model.macs),
            model.stated,
            accuracies,
            weights_text(model),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
