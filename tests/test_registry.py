"""Registries: names, presets, signatures, and building what a configuration names."""

from __future__ import annotations

import sys
from typing import Annotated, get_args, get_origin

import pytest
from pydantic import Field

from ppcls.errors import PPClsError, UnknownName, suggestion
from ppcls.registry import BACKBONES, REQUIRED, TRANSFORMS, Registry, Spec


@pytest.fixture
def registry():
    return Registry("thing", "string")  # any module that registers nothing


def test_a_builder_is_registered_under_its_own_name(registry):
    @registry.register()
    class Thing:
        def __init__(self, size: int = 1):
            self.size = size

    assert Thing(2).size == 2, "the decorator must return the builder"
    assert registry.names() == ["Thing"]
    assert registry.build("Thing", {"size": 3}).size == 3


def test_a_builder_may_have_several_names(registry):
    @registry.register("Thing", "OldThing")
    def build(size: int = 1) -> int:
        return size

    assert list(registry) == ["OldThing", "Thing"]
    assert registry.build("OldThing", {"size": 4}) == registry.build("Thing", {"size": 4}) == 4


def test_a_name_given_twice_is_refused(registry):
    registry.register("a")(lambda: 1)
    with pytest.raises(ValueError, match="a thing named 'a' is registered already"):
        registry.register("a")(lambda: 2)
    with pytest.raises(ValueError, match="registered already"):
        registry.register_variants({"b": {}}, {"a": "b"})(lambda: 3)
    assert registry.build("a", {}) == 1


@pytest.mark.parametrize(
    "builder", [lambda **rest: rest, lambda *rest: rest, lambda size, **options: options]
)
def test_arguments_that_would_swallow_typos_are_refused(registry, builder):
    with pytest.raises(TypeError, match="would swallow misspelt arguments"):
        registry.register("a")(builder)
    assert registry.names() == []


def test_an_unknown_name_gets_a_suggestion(registry):
    registry.register("RandCropImage")(lambda: 1)
    for name in ("RandCropImge", "randcropimage", "RandCropImages"):
        with pytest.raises(UnknownName) as caught:
            registry.entry(name)
        assert str(caught.value) == f"unknown thing '{name}'; did you mean 'RandCropImage'?"
        assert isinstance(caught.value, PPClsError)
    with pytest.raises(UnknownName) as caught:
        registry.build("Zzz", {})
    assert str(caught.value) == "unknown thing 'Zzz'"


def test_names_match_a_shell_pattern(registry):
    for name in ("Net_x1_0", "Net_x0_5", "Other"):
        registry.register(name)(lambda: 1)
    assert registry.names("Net*") == ["Net_x0_5", "Net_x1_0"]
    assert registry.names("net*") == []


def test_variants_preset_arguments(registry):
    table = {"small": {"width": 0.5, "depth": 3}, "large": {"width": 2.0}}

    @registry.register_variants(table, {"s": "small"})
    def net(width: float, depth: int = 7, classes: int = 10) -> tuple:
        return width, depth, classes

    assert registry.names() == ["large", "s", "small"]
    assert registry.build("small", {}) == registry.build("s", {}) == (0.5, 3, 10)
    assert registry.build("large", {"classes": 2}) == (2.0, 7, 2)
    assert registry.build("small", {"width": 0.75}) == (0.75, 3, 10), "given wins over preset"
    defaults = {a.name: a.default for a in registry.entry("small").arguments().values()}
    assert defaults == {"width": 0.5, "depth": 3, "classes": 10}
    assert registry.entry("s").name == "s"


def test_keyword_only_parameters_are_context(registry):
    @registry.register()
    def schedule(rate: float, warmup: Annotated[int, Field(ge=0)] = 0, *, epochs: int) -> tuple:
        return rate, warmup, epochs

    entry = registry.entry("schedule")
    assert entry.context() == {"epochs"}
    assert list(entry.arguments()) == ["rate", "warmup"]
    assert entry.arguments()["rate"].default is REQUIRED
    warmup = entry.arguments()["warmup"]
    assert warmup.default == 0
    assert get_origin(warmup.annotation) is Annotated
    assert get_args(warmup.annotation)[0] is int
    built = registry.build("schedule", {"rate": 0.1}, epochs=9, class_num=3)
    assert built == (0.1, 0, 9), "context that is not asked for is left out"


def test_a_spec_builds_what_is_inside_first(registry):
    @registry.register()
    def leaf(value: int, *, seed: int = 0) -> tuple:
        return "leaf", value, seed

    @registry.register()
    def tree(one: object, many: list, plain: list, nothing: object = None, *, depth: int) -> dict:
        return {"one": one, "many": many, "plain": plain, "nothing": nothing, "depth": depth}

    spec = Spec(
        registry,
        "tree",
        {
            "one": Spec(registry, "leaf", {"value": 1}),
            "many": [Spec(registry, "leaf", {"value": 2}), Spec(registry, "leaf", {"value": 3})],
            "plain": [1, 2],
        },
        {"pretrained": True},
    )
    assert spec.build(seed=5, depth=8) == {
        "one": ("leaf", 1, 5),
        "many": [("leaf", 2, 5), ("leaf", 3, 5)],
        "plain": [1, 2],
        "nothing": None,
        "depth": 8,
    }
    assert spec.build(depth=1)["one"] == ("leaf", 1, 0), "a spec can be built again"


def test_modules_of_the_package_are_imported_when_first_asked(tmp_path, monkeypatch):
    package = tmp_path / "things_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("from ppcls.registry import Registry\n")
    (package / "one.py").write_text("import sys\nsys.things_registry.register('One')(lambda: 1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry("thing", "things_of_a_test")
    monkeypatch.setattr(sys, "things_registry", registry, raising=False)
    assert "things_of_a_test.one" not in sys.modules
    assert registry.names() == ["One"]


def test_the_projects_registries_hold_the_published_names():
    assert {"MobileNeXt_x1_0", "MobileNeXt_100", "MobileNeXt_35"} <= set(BACKBONES)
    assert {"DecodeImage", "RandCropImage", "NormalizeImage", "ToCHWImage"} <= set(TRANSFORMS)


@pytest.mark.parametrize(
    ("name", "candidates", "hint"),
    [
        ("epohcs", ["epochs", "seed"], "; did you mean 'epochs'?"),
        ("EPOCHS", ["epochs"], "; did you mean 'epochs'?"),
        ("nmae", ["name"], "; did you mean 'name'?"),
        ("zzz", ["epochs"], ""),
        ("x", [], ""),
        ("dropout_prob", ["dropout_mode", "dropout"], "; did you mean 'dropout'?"),
        ("", ["epochs"], ""),
    ],
)
def test_suggestions(name, candidates, hint):
    assert suggestion(name, candidates) == hint
