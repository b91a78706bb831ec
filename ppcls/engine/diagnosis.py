"""What measured figures say about a run: its limit, and what would change it. No measuring here.

The model: one worker takes t seconds a picture, and for ``work`` of them the processor is busy. w
workers on c cores deliver R = min(w / t, c / work) pictures a second. A network on a device of its
own takes N pictures a second beside that, so that training runs at min(R, N). On the CPU both share
the cores: a picture costs 1 / N seconds of all cores in the network and work / c in the readers,
and training runs at min(R, 1 / (1 / N + work / c)). Without workers, reading and training take
turns. What a change gives is the ratio that the model gives, times the rate that was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

READING, DECODING, COLLATING = "reading files", "decoding", "collating"
CROP = "RandCropImage"
NEAR = 0.1  # rates that differ by less are as good as equal
COSTLY = 0.15  # part of the network's rate, below which reading beside it goes unnoticed
WORTH = 0.05  # a change that gives less is not worth a line
SPARE = 256 / 224  # the short side of a stored picture, for each pixel of the crop's
WAITING = 0.3  # part of a worker's time, above which more workers than cores help


@dataclass
class Pictures:
    """Sums over the pictures that one process has read.

    Attributes:
        count: pictures read.
        seconds: by name of the stage; the stages of augmentation have their transform's name.
        busy: seconds of them that the processor worked.
        bytes: size of the files.
        width, height, short: sums of the sides of the pictures as stored, and of the shorter one.
        encoded: whether they were files, and not pixels already.
        packed: whether many of them lie in one file.
        needed: transforms that give the pictures their size.
        target: short side of what goes to the network.
        crops: whether decoding does the random crop at once.
        part: seconds of decoding only what RandCropImage keeps, instead of both stages; 0 if that
            cannot be, or is done already.
        unreadable, example: pictures that could not be read, and why the last could not.
    """

    count: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    width: int = 0
    height: int = 0
    short: int = 0
    encoded: bool = True
    packed: bool = False
    needed: set[str] = field(default_factory=set)
    target: int = 0
    crops: bool = False
    part: float = 0.0
    unreadable: int = 0
    example: str = ""

    def add(self, stage: str, seconds: float, busy: float) -> None:
        """Adds the time of one picture or batch to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.busy[stage] = self.busy.get(stage, 0.0) + min(busy, seconds)

    @property
    def each(self) -> float:
        """Seconds a picture of one worker."""
        return sum(self.seconds.values()) / self.count

    @property
    def transforms(self) -> dict[str, float]:
        """Seconds a picture of the transforms behind decoding, slowest first."""
        others = {READING, DECODING, COLLATING}
        own = {name: s / self.count for name, s in self.seconds.items() if name not in others}
        return dict(sorted(own.items(), key=lambda item: -item[1]))

    def of(self, stage: str) -> float:
        """Seconds a picture of a stage."""
        return self.seconds.get(stage, 0.0) / self.count


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Attributes:
        workers: reader processes; 0 reads in the training process.
        cores: of the processor, that this process may use.
        device: ``cpu`` or ``gpu``.
        batch: pictures of a step.
        epoch: pictures of an epoch.
        delivered: pictures a second of all workers, while nothing else runs.
        copying: seconds a picture from the reader's batch to the network's input.
        computing: seconds a picture of forward, backward and step, without ``copying``.
        together: pictures a second of training as it is.
    """

    pictures: Pictures
    workers: int
    cores: int
    device: str
    batch: int
    epoch: int
    delivered: float
    copying: float
    computing: float
    together: float

    @property
    def network(self) -> float:
        """Pictures a second that the network takes if they are there."""
        return 1 / (self.copying + self.computing)

    @property
    def lost(self) -> float:
        """Part of the network's rate that reading costs."""
        return 1 - self.together / self.network


@dataclass(frozen=True)
class Setting:
    """What the model needs: seconds a picture of one worker by stage, and how many workers."""

    seconds: dict[str, float]
    busy: dict[str, float]
    workers: int

    def with_stages(self, parts: dict[str, float]) -> Setting:
        """Some stages take this part of their time."""
        seconds = {name: s * parts.get(name, 1.0) for name, s in self.seconds.items()}
        busy = {name: s * parts.get(name, 1.0) for name, s in self.busy.items()}
        return replace(self, seconds=seconds, busy=busy)


def modelled(setting: Setting, figures: Figures) -> float:
    """Pictures a second of training, by the model above."""
    each, work = sum(setting.seconds.values()), sum(setting.busy.values())
    if not setting.workers:
        return 1 / (each + 1 / figures.network)
    reader = min(setting.workers / each, figures.cores / work if work else math.inf)
    shared = work / figures.cores if figures.device == "cpu" else 0.0
    return min(reader, 1 / (1 / figures.network + shared))


# Verdict -----------------------------------------------------------------------------------------


def verdict(figures: Figures) -> str:
    """What limits the run, in words."""
    network = f"the network takes {figures.network:.0f} img/s"
    reader = f"the reader delivers {figures.delivered:.0f} img/s with {workers(figures.workers)}"
    name, share = _largest(figures.pictures)
    part = f"{name} takes {share:.0%} of reading"
    ratio = figures.delivered / figures.network
    if ratio < 1 - NEAR:
        return f"The reader is the limit: {reader}, {network} if they are there; {part}."
    if ratio < 1 + NEAR:
        return f"Reader and network are balanced: {reader}, {network}; {part}."
    if figures.lost < COSTLY:
        return f"The network is the limit: {network}, {reader}."
    why = (
        "both share the cores"
        if figures.device == "cpu" and figures.workers
        else "without workers they take turns"
        if not figures.workers
        else "the network waits now and then"
    )
    return (
        f"The network is the limit: {network}, {reader}. But {why}, so that training runs at "
        f"{figures.together:.0f} img/s: reading costs {figures.lost:.0%}; {part}."
    )


def _largest(pictures: Pictures) -> tuple[str, float]:
    """The slowest stage of reading and its share; augmentation counts as a whole."""
    stages = {name: pictures.of(name) for name in (READING, DECODING, COLLATING)}
    stages["augmenting"] = sum(pictures.transforms.values())
    name = max(stages, key=lambda stage: stages[stage])
    slowest = next(iter(pictures.transforms), "")
    shown = f"augmenting (most of all {slowest})" if name == "augmenting" else name
    return shown, stages[name] / pictures.each


def workers(count: int) -> str:
    """How many of them, in words."""
    return "1 worker" if count == 1 else f"{count} workers"


# Suggestions -------------------------------------------------------------------------------------


def without_suggestions(figures: Figures) -> str:
    """What to say where :func:`suggestions` finds none, in agreement with :func:`verdict`."""
    if figures.delivered >= figures.network * (1 - NEAR) and figures.lost < COSTLY:
        return "No change of reading would make training noticeably faster."
    where = "more processor cores" if figures.device == "gpu" else "more processor cores or a GPU"
    return (
        "Reading costs time, but none of the usual changes (more workers, packed or smaller "
        "files, decoding only the crop, less augmentation) would save noticeably much of it "
        f"here; {where} may."
    )


def suggestions(figures: Figures) -> list[tuple[str, float]]:
    """What would make training faster, and to how many pictures a second; best first."""
    p = figures.pictures
    seconds = {name: s / p.count for name, s in p.seconds.items()}
    busy = {name: s / p.count for name, s in p.busy.items()}
    now = Setting(seconds, busy, figures.workers)
    before = modelled(now, figures)
    found = []
    for change in (_more_workers, _packing, _smaller_files, _fast_decoding, _less_augmentation):
        if (changed := change(now, figures)) is not None:
            text, after = changed
            gain = modelled(after, figures) / before
            if gain > 1 + WORTH:
                found.append((text, figures.together * gain))
    return sorted(found, key=lambda item: -item[1])


Change = tuple[str, Setting] | None


def _more_workers(now: Setting, figures: Figures) -> Change:
    """The fewest workers that reach nearly what any number would."""
    waits = 1 - sum(now.busy.values()) / sum(now.seconds.values())
    most = figures.cores * (4 if waits > WAITING else 1)
    most = min(most, math.ceil(figures.epoch / figures.batch))  # a batch is read by one worker
    rates = {n: modelled(replace(now, workers=n), figures) for n in range(1, most + 1)}
    enough = next(n for n, rate in rates.items() if rate > 0.97 * max(rates.values()))
    if enough <= now.workers:
        return None
    why = f" ({waits:.0%} of a worker's time is waiting)" if waits > WAITING else ""
    text = f"-o DataLoader.Train.loader.num_workers={enough}{why}"
    return text, replace(now, workers=enough)


def _packing(now: Setting, figures: Figures) -> Change:
    """Few large files, which are read from front to back, cost next to nothing a picture."""
    if not figures.pictures.encoded or figures.pictures.packed:
        return None
    text = "at best, with the pictures packed into few large files (ppcls data pack)"
    return text, now.with_stages({READING: 0.0})


def _smaller_files(now: Setting, figures: Figures) -> Change:
    """Reading and decoding take as long as there are pixels."""
    p = figures.pictures
    side, short = round(p.target * SPARE), p.short / p.count
    if not p.encoded or short <= side:
        return None
    part = (side / short) ** 2
    text = (
        f"with a short side of {side} pixels, not {short:.0f} (ppcls data pack --short-side {side})"
    )
    return text, now.with_stages({READING: part, DECODING: part})


def _fast_decoding(now: Setting, figures: Figures) -> Change:
    """Only what the random crop keeps is decoded; measured, not estimated."""
    p = figures.pictures
    if not p.part:
        return None
    part = p.part / (p.seconds[DECODING] + p.seconds[CROP])
    text = "-o DataLoader.Train.loader.decode=fast (only what the crop keeps is decoded)"
    return text, now.with_stages({DECODING: part, CROP: part})


def _less_augmentation(now: Setting, figures: Figures) -> Change:
    """Without the slowest transform, apart from those that give the pictures their size."""
    for name, seconds in figures.pictures.transforms.items():
        if name not in figures.pictures.needed:
            text = f"without {name}, which takes {1000 * seconds:.1f} ms a picture"
            return text, now.with_stages({name: 0.0})
    return None
