"""Whatever is written, ``load_config`` returns a configuration or raises ConfigError."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from yaml_files import WHOLE, write

from ppcls.config import ConfigError, load_config
from ppcls.config.schema import ConfigSchema
from ppcls.config.source import read_text

fuzz = settings(
    deadline=None,
    max_examples=100,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

TOKENS = [
    *("Global", "Arch", "name", "epochs", "MobileNeXt_x0_1", "_base_", "_replace_", "<<", "lr"),
    *(": ", ":", "- ", "\n", "\n  ", "\n    ", " ", "\t", "[", "]", "{", "}", ", ", "? ", "|", ">"),
    *("&a ", "*a", "'", '"', "#", " #", "!!int ", "!!bool ", "!!str ", "!!python/name:os ", "!x "),
    *("---", "...", "%YAML 1.2", "1", "-1", "1e-3", "2.5", "null", "None", "true", "~", ".inf"),
    *("é", "\u2028", "\\", "@", "`", "=", "x.yaml"),
]
texts = st.one_of(
    st.lists(st.sampled_from(TOKENS), max_size=30).map("".join),
    st.text(max_size=60),
    st.text(st.characters(max_codepoint=127), max_size=60),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("1/3")
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "topk", "Constant", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths_of(node, path=""):
    if path:
        yield path
    children = node.items() if isinstance(node, dict) else ()
    children = enumerate(node) if isinstance(node, list) else children
    for key, child in children:
        yield from paths_of(child, f"{path}.{key}" if path else key)


PATHS = sorted(paths_of(read_text(WHOLE, "whole").plain()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def whole(folder):
    return write(folder, WHOLE, "whole.yaml")


@fuzz
@given(text=texts)
def test_any_file(folder, text):
    path = folder / "config.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        load_config(path)


@fuzz
@given(extra=texts)
def test_anything_behind_a_right_file(folder, extra):
    path = folder / "config.yaml"
    path.write_bytes((WHOLE + extra).encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        load_config(path)


@fuzz
@given(override=texts)
def test_any_option(whole, override):
    with contextlib.suppress(ConfigError):
        load_config(whole, [override])


@fuzz
@given(path=st.sampled_from(PATHS), text=texts)
def test_any_text_for_a_value(whole, path, text):
    with contextlib.suppress(ConfigError):
        load_config(whole, [f"{path}={text}"])


@fuzz
@given(path=st.sampled_from(PATHS), value=values)
def test_any_data_for_a_value(folder, whole, path, value):
    """And what is accepted, can be written and read again."""
    try:
        config = load_config(whole, [f"{path}={json.dumps(value)}"])
    except ConfigError:
        return
    again = load_config(write(folder, config.to_yaml(), "resolved.yaml"))
    for section in ConfigSchema.__dataclass_fields__:
        assert getattr(again, section) == getattr(config, section)
