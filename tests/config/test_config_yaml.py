"""YAML that is malformed, hostile, or says the same thing twice."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from yaml_files import SMALLEST, load, only_mistake, write

from ppcls.config import load_config

ROOT = Path(__file__).resolve().parents[2]


def test_a_key_given_twice_is_refused(tmp_path):
    text = SMALLEST + "Global:\n  epochs: 3\n  seed: 1\n  epochs: 4\n"
    problem = only_mistake(write(tmp_path, text))
    assert problem.origin.line == 5
    assert problem.message == "key 'epochs' is given twice, first at line 3"


def test_a_section_given_twice_is_refused(tmp_path):
    problem = only_mistake(write(tmp_path, SMALLEST + "Global: {}\n" + SMALLEST))
    assert problem.origin.line == 3
    assert "key 'Arch' is given twice, first at line 1" in problem.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Global:\n  epochs: [1\nArch: 2\n", 3),
        ("Global:\n\tepochs: 1\n", 2),
        ("Global:\n  epochs: 1\n seed: 2\n", 3),
        ('Global: "open\n', 2),
        ("Global: *nothing\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("Global: @x\n", 1),
    ],
)
def test_a_syntax_error_is_reported_at_its_line(tmp_path, text, line):
    problem = only_mistake(write(tmp_path, text))
    assert "not valid YAML" in problem.message
    assert problem.origin.line in (line, line - 1)  # PyYAML points at the token or behind it


@pytest.mark.parametrize(
    ("text", "received"),
    [("- a\n- b\n", "a list"), ("just text\n", "'just text'"), ("5\n", "5")],
)
def test_a_file_without_sections_is_refused(tmp_path, text, received):
    problem = only_mistake(write(tmp_path, text))
    assert "expected sections such as 'Global:'" in problem.message
    assert problem.message.endswith(received)


def test_an_empty_file_lacks_a_network(tmp_path):
    for text in ("", "# nothing\n", "---\n"):
        assert only_mistake(write(tmp_path, text)).path == "Arch"


@pytest.mark.parametrize("content", [b"\xff\xfeA\x00r\x00", b"Arch: \xe9\n"])
def test_a_file_in_another_encoding_is_refused(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    assert "cannot be read" in only_mistake(path).message


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(
        b"\xef\xbb\xbf" + (SMALLEST + "Global:\n  epochs: 7\n").replace("\n", "\r\n").encode()
    )
    assert load_config(path).Global.epochs == 7


def test_a_folder_or_a_missing_file_is_refused(tmp_path):
    assert "cannot be read" in only_mistake(tmp_path).message
    problem = only_mistake(tmp_path / "none.yaml")
    assert str(problem) == f"{tmp_path / 'none.yaml'}: there is no such file"


@pytest.mark.parametrize("content", ["x: \x00\n", "x: a\x07b\n", "\x1b[0m: 1\n"])
def test_control_characters_are_refused(tmp_path, content):
    assert "not valid YAML" in only_mistake(write(tmp_path, SMALLEST + content)).message


@pytest.mark.parametrize(
    "key", ["5", "1.5", "true", "null", "~", "? [a]\n", "? {a: 1}\n", "[a, b]"]
)
def test_a_key_that_is_no_text_is_refused(tmp_path, key):
    problem = only_mistake(write(tmp_path, f"{SMALLEST}{key}: 1\n"))
    assert problem.origin.line in (2, 3)
    assert "text key" in problem.message


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch CANARY']",
        "!!python/object/apply:os.system\n    args: ['touch CANARY']",
        "!!python/object/new:os.system ['touch CANARY']",
        "!!python/name:os.system",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/tuple [1, 2]",
        "!own 5",
        "!own [1]",
        "!own {a: 1}",
    ],
)
def test_a_tag_is_refused_and_runs_nothing(tmp_path, value):
    canary = tmp_path / "canary"
    text = f"{SMALLEST}Global:\n  output_dir: {value.replace('CANARY', str(canary))}\n"
    problem = only_mistake(write(tmp_path, text))
    assert not canary.exists()
    assert problem.origin.line == 3
    assert problem.message.startswith("tag '")


def test_a_tag_is_refused_where_the_value_itself_would_fit(tmp_path):
    text = "Arch: !!python/object/apply:os.system {name: MobileNeXt_x0_1, class_num: 10}\n"
    assert only_mistake(write(tmp_path, text)).message.startswith("tag '")


@pytest.mark.parametrize(
    "value", ["!!bool maybe", "!!int ''", "!!int a", "!!float ''", "!!timestamp soon", "!!null {}"]
)
def test_a_standard_tag_on_another_value_is_refused(tmp_path, value):
    problem = only_mistake(write(tmp_path, f"{SMALLEST}Global:\n  epochs: {value}\n"))
    assert problem.origin.line in (2, 3)


def test_a_date_stays_a_text(tmp_path):
    config = load(tmp_path, SMALLEST + "Global: {output_dir: 2026-11-01}\n")
    assert config.Global.output_dir == "2026-11-01"


def test_yaml_aliases_are_independent_copies(tmp_path):
    text = SMALLEST + "Loss:\n  Train: &losses\n    - CELoss: {weight: 1}\n  Eval: *losses\n"
    config = load(tmp_path, text, ["Loss.Eval.0.CELoss.weight=2"])
    assert config.Loss.Train[0].arguments["weight"] == 1
    assert config.Loss.Eval[0].arguments["weight"] == 2


def test_merge_keys_are_read(tmp_path):
    text = """\
        Arch: {name: MobileNeXt_x0_1}
        Loss:
          Train:
            - CELoss: &loss {weight: 1, epsilon: 0.1}
          Eval:
            - CELoss:
                <<: *loss
                epsilon: 0.2
    """
    config = load(tmp_path, text)
    assert config.Loss.Eval[0].arguments["weight"] == 1
    assert config.Loss.Eval[0].arguments["epsilon"] == 0.2


def test_an_alias_of_a_map_with_a_merge_key_is_read(tmp_path):
    text = """\
        Arch: {name: MobileNeXt_x0_1}
        Loss:
          Train:
            - CELoss: &first {weight: 1, epsilon: 0.1}
            - CELoss: &second
                <<: *first
                epsilon: 0.2
          Eval:
            - CELoss: *second
    """
    assert load(tmp_path, text).Loss.Eval[0].arguments["epsilon"] == 0.2


def bomb_of_aliases(levels: int) -> str:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for i in range(1, levels):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]")
    return "\n".join(lines) + "\n"


def bomb_of_merges(levels: int) -> str:
    """Maps that are merged eight times each, one inside the other."""
    lines = ["x:"]
    for i in range(levels):
        lines += ["  " * (i + 1) + "<<:", "  " * (i + 1) + f"- &m{i}"]
    lines.append("  " * (levels + 1) + "k: 1")
    for i in reversed(range(levels)):
        lines += ["  " * (i + 1) + f"- *m{i}"] * 8
    return "\n".join(lines) + "\n"


def test_an_alias_bomb_is_refused_quickly(tmp_path):
    """All its 10^12 values would never be read in the time a test has."""
    problem = only_mistake(write(tmp_path, SMALLEST + bomb_of_aliases(12)))
    assert "more than 100000 values" in problem.message


def test_a_list_that_holds_itself_is_refused(tmp_path):
    for text in ("x: &a [*a]\n", "x: &a {b: *a}\n"):
        assert only_mistake(write(tmp_path, SMALLEST + text)).origin.line >= 1


def test_a_bomb_of_merge_keys_is_refused_quickly(tmp_path):
    path = write(tmp_path, SMALLEST + bomb_of_merges(10))
    done = subprocess.run(
        [sys.executable, "-m", "ppcls.cli", "config", "check", str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)),
    )
    assert done.returncode == 2, done.stderr[-500:]
    assert "Traceback" not in done.stderr
