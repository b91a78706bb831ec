"""Pictures of curves: what they need is asked for before the work, not after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppcls.engine.folders import require_writable
from ppcls.errors import EnvironmentProblem, UsageError


def require_figure(out: str | Path) -> None:
    """Raises before hours of work what would come after them.

    Raises:
        UsageError: no picture of that kind can be drawn.
        EnvironmentProblem: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        message = "drawing needs matplotlib: pip install 'ppcls[report]'"
        raise EnvironmentProblem(message) from None
    kind = Path(out).suffix.lstrip(".").lower()
    if kind and kind not in FigureCanvasBase.get_supported_filetypes():
        expected = "expected a picture to write, such as .png, .svg or .pdf"
        raise UsageError(f"{out}: {expected}, received .{kind}")
    require_writable(out)


def save_figure(figure: Any, out: Path) -> None:
    """Writes a figure of matplotlib; without a suffix it is a PNG.

    Raises:
        EnvironmentProblem: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, format=out.suffix.lstrip(".") or "png", dpi=150)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise EnvironmentProblem(f"cannot write {out}: {reason}") from None
