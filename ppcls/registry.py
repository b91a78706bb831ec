"""Names of components and their builders: what a configuration may name, and with which arguments.

A builder is any callable with an annotated signature. Its ordinary parameters are what a
configuration sets; its keyword-only parameters (after ``*``) are facts about the run that the
engine supplies, such as ``class_num`` or ``epochs``. A component is added with one decorator in one
new file: each registry imports the modules of its package when it is first asked.

    @TRANSFORMS.register()
    class CropImage:
        def __init__(self, size: Size): ...
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar

from ppcls.errors import UnknownName, suggestion

T = TypeVar("T", bound=Callable[..., Any])

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Argument:
    """One configurable parameter of a builder or of a section."""

    name: str
    annotation: Any
    default: Any = REQUIRED


@dataclass(frozen=True)
class Entry:
    """A registered builder, with the arguments that its table row presets."""

    name: str
    builder: Callable[..., Any]
    preset: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Argument]:
        """What a configuration may set, in the order of the signature."""
        return {
            p.name: Argument(p.name, p.annotation, self.preset.get(p.name, p.default))
            for p in self._parameters()
            if p.kind is not inspect.Parameter.KEYWORD_ONLY
        }

    def context(self) -> set[str]:
        """Names of the facts about the run that the builder asks for."""
        return {p.name for p in self._parameters() if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def _parameters(self) -> list[inspect.Parameter]:
        return list(inspect.signature(self.builder, eval_str=True).parameters.values())


class Registry(Generic[T]):
    """The builders of one kind of component.

    Args:
        kind: what a message calls one of them, such as ``"transform"``.
        package: the package or module whose import registers them.
        probe: whether building one is cheap and checks its arguments, so that checking a
            configuration builds it once.
        sequence: ``module:function`` that checks whether built ones fit behind each other.
    """

    def __init__(self, kind: str, package: str, probe: bool = False, sequence: str = ""):
        self.kind = kind
        self.probe = probe
        self._sequence = sequence
        self._package = package
        self._entries: dict[str, Entry] = {}
        self._discovered = False

    @property
    def kinds(self) -> str:
        """What a message calls several of them."""
        return f"{self.kind}es" if self.kind.endswith("s") else f"{self.kind}s"

    def register(self, *names: str) -> Callable[[T], T]:
        """Decorator: registers a builder under ``names``, or under its own name."""

        def decorate(builder: T) -> T:
            for name in names or (builder.__name__,):
                self._add(Entry(name, builder))
            return builder

        return decorate

    def register_variants(
        self, table: Mapping[str, Mapping[str, Any]], aliases: Mapping[str, str] | None = None
    ) -> Callable[[T], T]:
        """Decorator: registers a builder once for every row ``name -> preset arguments``."""

        def decorate(builder: T) -> T:
            for name, preset in table.items():
                self._add(Entry(name, builder, preset))
            for alias, name in (aliases or {}).items():
                self._add(Entry(alias, builder, table[name]))
            return builder

        return decorate

    def names(self, pattern: str = "*") -> list[str]:
        """Registered names that match a shell pattern, sorted."""
        self._discover()
        return sorted(name for name in self._entries if fnmatchcase(name, pattern))

    def entry(self, name: str) -> Entry:
        """The entry called ``name``. Raises UnknownName with a suggestion."""
        self._discover()
        if name not in self._entries:
            raise UnknownName(f"unknown {self.kind} '{name}'{suggestion(name, self._entries)}")
        return self._entries[name]

    def build(self, name: str, arguments: Mapping[str, Any], **context: Any) -> Any:
        """Calls the builder with its row's presets, ``arguments``, and the context it asks for."""
        entry = self.entry(name)
        asked = {key: value for key, value in context.items() if key in entry.context()}
        return entry.builder(**{**entry.preset, **arguments}, **asked)

    def check_sequence(self, components: list[Any]) -> None:
        """Raises ArgumentError if a list of these components cannot work in this order."""
        if self._sequence:
            module, _, function = self._sequence.partition(":")
            getattr(importlib.import_module(module), function)(components)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _add(self, entry: Entry) -> None:
        if entry.name in self._entries:
            raise ValueError(f"a {self.kind} named '{entry.name}' is registered already")
        for p in inspect.signature(entry.builder).parameters.values():
            if p.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                raise TypeError(f"{entry.name}: *{p.name} would swallow misspelt arguments")
        self._entries[entry.name] = entry

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        module = importlib.import_module(self._package)
        for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
            importlib.import_module(f"{self._package}.{info.name}")


@dataclass(frozen=True)
class Spec:
    """A component that a configuration names, checked but not yet built.

    Attributes:
        extra: keys beside the component's own arguments, such as ``Arch.pretrained``.
    """

    registry: Registry[Any]
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def probe(self, **context: Any) -> None:
        """Checks the arguments, if that is cheap; raises ArgumentError.

        A component whose building is not cheap may have a static method ``check_arguments`` over
        some of its arguments.
        """
        if self.registry.probe:
            self.build(**context)
        elif check := getattr(self.registry.entry(self.name).builder, "check_arguments", None):
            check(**{name: self.arguments[name] for name in inspect.signature(check).parameters})

    def build(self, **context: Any) -> Any:
        """Builds the component; components among its arguments are built first."""
        arguments = {key: _built(value, context) for key, value in self.arguments.items()}
        return self.registry.build(self.name, arguments, **context)


def _built(value: Any, context: Mapping[str, Any]) -> Any:
    if isinstance(value, Spec):
        return value.build(**context)
    if isinstance(value, (list, tuple)):
        return type(value)(_built(item, context) for item in value)
    return value


@dataclass(frozen=True)
class One:
    """Annotation: the value is one component, written ``{name: Name, argument: value, ...}``.

    Attributes:
        also: arguments that may stand beside the component's own; they go to ``Spec.extra``.
        instead: components of another kind that may stand there, without ``also``.
        always: the same as ``also``, and for these, too.
    """

    registry: Registry[Any]
    also: tuple[Argument, ...] = ()
    instead: Registry[Any] | None = None
    always: tuple[Argument, ...] = ()


@dataclass(frozen=True)
class Labelled:
    """Annotation: a list of components, each under a label: ``- Label: {name: Name, ...}``.

    The builder receives pairs of label and :class:`Spec`.
    """

    one: One


@dataclass(frozen=True)
class Many:
    """Annotation: the value is a list of components, each written ``- Name: {argument: value}``.

    Attributes:
        whole: whether the list is all there is, so that its order can be checked.
    """

    registry: Registry[Any]
    whole: bool = True


@dataclass(frozen=True)
class ByName:
    """Annotation: the value is all keys that are no other parameter's, each a component's name.

    They are written ``Name: {argument: value}``; the builder receives a list of tuples: a
    component, and the values of ``also`` in their order.

    Attributes:
        also: arguments that stand among the component's own.
    """

    registry: Registry[Any]
    also: tuple[Argument, ...] = ()


@dataclass(frozen=True)
class Repeats:
    """Annotation: the value may be left out, and has to be the one at another place.

    Published files give some facts about a run twice.

    Attributes:
        key: that other place, such as ``Arch.class_num``; its last part is a fact that the engine
            supplies.
    """

    key: str


BACKBONES: Registry[Any] = Registry("network", "ppcls.backbones")
NETWORK_GROUPS: Registry[Any] = Registry("group of networks", "ppcls.engine.distillation")
TRANSFORMS: Registry[Any] = Registry(
    "transform", "ppcls.data.transforms", probe=True, sequence="ppcls.data.pipeline:layout"
)
BATCH_TRANSFORMS: Registry[Any] = Registry("batch transform", "ppcls.data.mixing", probe=True)
DATASETS: Registry[Any] = Registry("data set", "ppcls.data.datasets")
SAMPLERS: Registry[Any] = Registry("sampler", "ppcls.data.samplers")
LOSSES: Registry[Any] = Registry("loss", "ppcls.losses", probe=True)
METRICS: Registry[Any] = Registry("metric", "ppcls.metrics", probe=True)
OPTIMIZERS: Registry[Any] = Registry("optimizer", "ppcls.optim.optimizers")
REGULARIZERS: Registry[Any] = Registry("regularizer", "ppcls.optim.regularizers", probe=True)
SCHEDULES: Registry[Any] = Registry("learning-rate schedule", "ppcls.optim.schedules", probe=True)
AVERAGES: Registry[Any] = Registry("average", "ppcls.engine.averaging", probe=True)
POSTPROCESSES: Registry[Any] = Registry("post-process", "ppcls.data.postprocess")
TRACKERS: Registry[Any] = Registry("tracker", "ppcls.engine.trackers")
