"""Progressive learning: what a run trains with in each of its stages.

EfficientNetV2 (Tan, Le, arXiv:2104.00298, section 4 and Table 6): small pictures with weak
augmentation first, both grow. A stage is a line of the section ``Progressive``, or a place in the
lists of PaddleClas's ``Global.train_mode: progressive``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated

from pydantic import Field

from ppcls.errors import ArgumentError

Positive = Annotated[int, Field(ge=1)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Stage:
    """A part of the run. A key that no stage has leaves what the configuration says elsewhere.

    Attributes:
        until: its last epoch; if no stage says so, all are equally long, as in PaddleClas: stage i
            of n ends with epoch ``epochs * i // n``. May be left out of the last stage.
        size: side of training pictures in pixels, or [width, height].
        magnitude: of RandAugment and its versions.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
        dropout: of the vector that enters the classifier.
        batch_size: pictures in a batch of one process.
    """

    until: Positive | None = None
    size: Positive | list[Positive] | None = None
    magnitude: Strength | None = None
    mixup: Strength | None = None
    cutmix: Strength | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    batch_size: Positive | None = None

    def __post_init__(self) -> None:
        if isinstance(self.size, list) and len(self.size) != 2:
            message = f"expected an integer >= 1 or [width, height], received {self.size}"
            raise ArgumentError("size", message)

    @property
    def width_and_height(self) -> tuple[int, int] | None:
        """Of training pictures."""
        if isinstance(self.size, list):
            return self.size[0], self.size[1]
        return None if self.size is None else (self.size, self.size)

    def words(self) -> str:
        """``size 171, magnitude 5, dropout 0.1``."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "until")
        return ", ".join(
            f"{name} {'x'.join(map(str, v)) if isinstance(v, list) else format(v, '.4g')}"
            for name, v in values
            if v is not None
        )


SETTINGS = tuple(f.name for f in fields(Stage) if f.name != "until")


@dataclass
class ProgressiveSection:
    """Progressive learning (ppcls).

    Attributes:
        stages: in their order, each ``{size: 128, magnitude: 5, mixup: 0.0, dropout: 0.1}``; keys
            are those of ``Stage``. What one of them sets, all of them set.
    """

    stages: Annotated[list[Stage], Field(min_length=1)]

    def __post_init__(self) -> None:
        for name in SETTINGS:
            missing = [i for i, s in enumerate(self.stages) if getattr(s, name) is None]
            if 0 < len(missing) < len(self.stages):
                message = f"expected {name} in every stage or in none, stage {missing[0]} has none"
                raise ArgumentError("stages", message)
        if not any(getattr(self.stages[0], name) is not None for name in SETTINGS):
            keys = ", ".join(SETTINGS)
            raise ArgumentError("stages", f"expected something that grows ({keys}), received none")
        ends = [stage.until for stage in self.stages]
        told = ends if ends[-1] is not None else ends[:-1]
        if all(end is None for end in told):
            return
        known = [end for end in told if end is not None]
        if len(known) < len(told):
            i = told.index(None)
            raise ArgumentError("stages", f"expected until in every stage, stage {i} has none")
        if known != sorted(set(known)):
            raise ArgumentError("stages", f"expected rising until, received {known}")


class Stages:
    """The stages of a run of known length.

    Args:
        stages: see :class:`ProgressiveSection`.
        epochs: of the run.
    """

    def __init__(self, stages: Sequence[Stage], epochs: int):
        count = len(stages)
        if all(stage.until is None for stage in stages):
            ends = [epochs * (i + 1) // count for i in range(count)]
        else:
            ends = [stage.until or epochs for stage in stages]
        self._stages = [replace(s, until=end) for s, end in zip(stages, ends, strict=True)]

    def __len__(self) -> int:
        return len(self._stages)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages)

    def number(self, epoch: int) -> int:
        """The stage that an epoch, counted from 1, belongs to; counted from 0."""
        return sum((stage.until or 0) < epoch for stage in self._stages[:-1])

    def at(self, epoch: int) -> Stage:
        """What an epoch, counted from 1, trains with."""
        return self._stages[self.number(epoch)]

    def starts(self) -> list[int]:
        """An epoch of each stage: its first one if it has any."""
        return [1, *((stage.until or 0) + 1 for stage in self._stages[:-1])]

    def sets(self, name: str) -> bool:
        """Whether the stages set a key of :class:`Stage`."""
        return getattr(self._stages[0], name) is not None
