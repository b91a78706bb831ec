"""Parts of a page in HTML that needs no other file and no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ppcls.errors import EnvironmentProblem

# Nothing is fetched and no script runs, whatever a file is called.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --mark: #2f6fdb; }
@media (prefers-color-scheme: dark) { :root { --mark: #7fa8ff; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 45rem; }
a { color: var(--mark); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .8rem .2rem 0; text-align: left; }
td.n, th.n { text-align: right; }
td.n { white-space: nowrap; }
td.name { min-width: 5rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.bar { background: var(--mark); display: inline-block; height: .7em; min-width: 1px; }
.group { border: 1px solid var(--line); border-radius: .4rem; padding: .5rem; }
.group > p { margin: 0 0 .4rem; overflow-wrap: anywhere; }
.pictures { display: flex; flex-wrap: wrap; gap: .6rem; }
.row { flex-wrap: nowrap; overflow-x: auto; }
figure { margin: 0; width: var(--side, 8.5rem); }
figure img, figure .none { background: var(--soft); display: block; height: auto; width: 100%; }
figure .none { aspect-ratio: 1; box-sizing: border-box; padding: .5rem; }
figcaption { font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere; padding-top: .2rem; }
.row figure { flex: 0 1 auto; max-width: none; min-width: min(var(--side), 7rem); }
.soft { opacity: .75; }
@media (max-width: 30rem) { figure { max-width: calc(50% - .3rem); } }
"""


def document(title: str, body: str) -> str:
    """A whole page; ``title`` is text, ``body`` is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{text(title)}</h1>\n{body}</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Text for a page: escaped, and free of characters that only steer the display."""
    return escape(shown(str(value)))


def shown(name: str) -> str:
    """A name that cannot steer a terminal or turn a page's lines around."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def counted(number: int, noun: str) -> str:
    """``1 picture``, ``2,000 pictures``, ``3 classes``."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of cells in HTML.

    Args:
        numbers: columns that are aligned to the right.
    """

    def row(cells: Sequence[str], tag: str) -> str:
        inner = (
            f'<{tag} class="{"n" if i in numbers else "name"}">{cell}</{tag}>'
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(inner)}</tr>\n"

    body = "".join(row(cells, "td") for cells in rows)
    return (
        f'<div class="scroll"><table>\n<thead>{row(head, "th")}</thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def figure(image: np.ndarray | None, alt: str, caption: str, side: int) -> str:
    """A picture with a caption in HTML; without an image, a box that says so.

    Args:
        image: uint8 RGB [height, width, 3].
        alt: text that tells what is to be seen.
        caption: HTML.
        side: longest side of the picture in the page's file, in pixels.
    """
    inner = (
        f'<div class="none soft">{text(alt)}</div>'
        if image is None
        else f'<img src="{data_uri(image, side)}" alt="{text(alt)}" loading="lazy">'
    )
    return f"<figure>{inner}<figcaption>{caption}</figcaption></figure>\n"


def data_uri(image: np.ndarray, side: int, kind: str = "JPEG") -> str:
    """A picture as an address that holds it, of at most ``side`` pixels a side.

    Args:
        kind: ``JPEG``, or ``PNG`` without loss.
    """
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write(path: Path, content: str | bytes) -> None:
    """Writes a file that is there as a whole or not at all, and the folder that it is in.

    Raises:
        EnvironmentProblem: that is not possible.
    """
    data = content.encode() if isinstance(content, str) else content
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from error
