"""The doctor's report: the table of what was measured, the verdict and the suggestions, as text."""

from __future__ import annotations

from ppcls.engine.diagnosis import (
    COLLATING,
    DECODING,
    READING,
    Figures,
    suggestions,
    verdict,
    without_suggestions,
    workers,
)


def report(figures: Figures, name: str = "the network") -> str:
    """The table, the verdict and what would help, as text."""
    lines = [_heading(figures, name), "", *_table(figures), "", verdict(figures)]
    changes = suggestions(figures)
    if changes:
        lines += ["", "What would change that (training, as estimated from these figures):"]
        lines += [f"  {rate:>8.0f} img/s  {text}" for text, rate in changes]
    else:
        lines += ["", without_suggestions(figures)]
    return "\n".join([*lines, *_notes(figures)]) + "\n"


# Table -------------------------------------------------------------------------------------------


def _heading(figures: Figures, name: str) -> str:
    p = figures.pictures
    sides = f"{p.width / p.count:.0f} x {p.height / p.count:.0f}"
    size = f"{p.bytes / p.count / 1000:.1f} kB, {sides} pixels"
    return (
        f"{name} on {figures.device}, {figures.cores} cores, batches of {figures.batch}, "
        f"{workers(figures.workers)}; {p.count} pictures tried, {size} on average"
    )


def _table(figures: Figures) -> list[str]:
    p = figures.pictures
    total = p.each
    rows = [f"{'one worker':<34}{'ms/picture':>10}{'img/s':>10}{'share':>8}"]

    def row(name: str, seconds: float, whole: float | None, note: str = "") -> None:
        share = f"{seconds / whole:.0%}" if whole else ""
        rate = f"{1 / seconds:.0f}" if seconds > 1e-6 else "-"
        line = f"  {name:<32}{1000 * seconds:>10.3f}{rate:>10}{share:>8}   {note}"
        rows.append(line.rstrip())

    reading = p.of(READING)
    speed = f"{p.bytes / p.count / reading / 1e6:.0f} MB/s" if reading > 1e-6 else ""
    row(READING, reading, total, speed)
    row(DECODING, p.of(DECODING), total, "only what RandCropImage keeps" if p.crops else "")
    slowest = [f"{n} {1000 * s:.2f} ms" for n, s in list(p.transforms.items())[:3]]
    row("augmenting", sum(p.transforms.values()), total, ", ".join(slowest))
    row(COLLATING, p.of(COLLATING), total)
    row("all", total, total)
    rows.append(f"{'training process':<34}")
    network = figures.copying + figures.computing
    row("copying, normalising, mixing", figures.copying, network)
    row("computing", figures.computing, network)
    row("all", network, network)
    rows.append(f"{'as configured':<34}")
    row(f"reader alone, {workers(figures.workers)}", 1 / figures.delivered, None)
    row("reader and network", 1 / figures.together, None, _epoch(figures))
    return rows


def _epoch(figures: Figures) -> str:
    seconds = figures.epoch / figures.together
    minutes = f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return f"an epoch of {figures.epoch} pictures: {minutes}"


def _notes(figures: Figures) -> list[str]:
    p = figures.pictures
    notes = [""]
    if p.unreadable:
        pictures = "1 picture" if p.unreadable == 1 else f"{p.unreadable} pictures"
        notes.append(f"{pictures} cannot be read, e.g. {p.example}")
    notes.append(
        "Files that were read a short while ago come from memory: a first epoch may take longer."
    )
    return notes
