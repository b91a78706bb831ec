"""The table of networks: complete, current, and printed."""

from __future__ import annotations

import gc
import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
from zero_weights import zero_weights

import ppcls
from ppcls import zoo
from ppcls.errors import UnknownName
from ppcls.registry import BACKBONES

ROOT = Path(__file__).parents[1]
# Above these, a network is counted with `-m slow` only, or by docs/generate_models.py only.
LARGE, HUGE = 600_000_000, 40_000_000_000  # multiply-adds

MODELS = zoo.models()
NAMES = sorted(name for model in MODELS for name in (model.name, *model.aliases))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """``docs/generate_models.py``."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_registered_name_has_a_row_and_the_other_way_round() -> None:
    assert ppcls.list_models() == NAMES


def test_aliases_are_aliases() -> None:
    for model in MODELS:
        entry = BACKBONES.entry(model.name)
        for alias in model.aliases:
            other = BACKBONES.entry(alias)
            assert (other.builder, other.preset) == (entry.builder, entry.preset), alias


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(m, id=m.name, marks=[pytest.mark.slow] if m.macs > LARGE else [])
        for m in MODELS
    ],
)
def test_the_figures_are_those_of_the_network(model: zoo.Model) -> None:
    with zero_weights():
        net = ppcls.create_model(model.name)
    params = sum(math.prod(p.shape) for p in net.parameters() if not p.stop_gradient)
    assert params == model.params
    if model.macs < HUGE:
        assert ppcls.count_macs(net, model.image_size) == model.macs
    del net
    gc.collect()  # the next one may need the memory


def test_the_page_shows_the_table(generator: ModuleType) -> None:
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    assert page == generator.page(), "run `python docs/generate_models.py`"


def test_the_generator_writes_one_row(generator: ModuleType) -> None:
    text = zoo.FILE.read_text(encoding="utf-8")
    model = zoo.models("MobileNetV2")[0]
    changed = generator.with_figures(text, "MobileNetV2", 12, 34)
    lines = list(zip(text.splitlines(), changed.splitlines(), strict=True))
    assert [old for old, new in lines if old != new] == [
        f"      {{image_size: 224, params: {model.params}, macs: {model.macs},"
    ]
    assert generator.with_figures(changed, "MobileNetV2", model.params, model.macs) == text
    with pytest.raises(SystemExit):
        generator.with_figures(text, "MobileNetV9", 12, 34)


def test_the_generator_finds_what_is_not_listed(
    generator: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generator.missing_rows() == []
    rows = zoo.models()[1:]
    monkeypatch.setattr(generator, "models", lambda: rows)
    assert generator.missing_rows() == [f"{MODELS[0].name}: has no row in zoo.yaml"]


def test_published_weights_say_the_same_accuracy() -> None:
    differing = []
    for model in MODELS:
        given = zoo.weights_of(model) or {}
        stated = {s.partition(",")[0]: value for s, value in model.top1.items()}
        known = stated.get(given.get("library", ""))
        if known is not None and given.get("top1") not in (None, known):
            differing.append((model.name, given["top1"], known))
    assert differing == []


def test_weights_belong_to_networks() -> None:
    assert set(zoo.weights()) <= set(NAMES)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_published_figures_are_near_ours(model: zoo.Model) -> None:
    """Within a fifth: other conventions make some per cent, a mistake in the network more."""
    assert all(20 < value < 95 for value in model.top1.values())
    ours = (model.params, model.macs)
    for stated, counted in zip(filter(None, model.stated.split(" / ")), ours, strict=False):
        number, unit = stated.split()
        value = float(number) * {"M": 10**6, "G": 10**9}[unit]
        assert abs(value / counted - 1) < 0.2, (stated, zoo.short(counted))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (470_072, "0.470 M"),
        (999_499, "0.999 M"),
        (3_535_416, "3.54 M"),
        (9_996_000, "10.0 M"),
        (99_960_000, "100 M"),
        (311_342_592, "311 M"),
        (999_600_000, "1.00 G"),
        (1_188_808_448, "1.19 G"),
        (174_702_174_208, "175 G"),
    ],
)
def test_numbers_have_three_digits(number: int, text: str) -> None:
    assert zoo.short(number) == text


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("mobilenetv3", "did you mean '*MobileNetV3*'?"),
        ("mobilenext_x1_0", "did you mean 'MobileNeXt_x1_0'?"),
        ("*MOBILENEXT*", "did you mean '*MobileNeXt*'?"),
        ("SqueezNet1_0", "did you mean 'SqueezeNet1_0'?"),
        ("qqqqqq", "no network's name matches 'qqqqqq'"),
    ],
)
def test_a_pattern_without_a_match_is_refused_with_a_suggestion(pattern: str, hint: str) -> None:
    with pytest.raises(UnknownName) as caught:
        zoo.models(pattern)
    assert str(caught.value).endswith(hint)


def test_patterns_match_aliases_too() -> None:
    assert [m.name for m in zoo.models("MobileNeXt_1*")] == ["MobileNeXt_x1_0", "MobileNeXt_x1_4"]
