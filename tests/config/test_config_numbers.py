"""Numbers: as YAML 1.2 reads them, as texts, and as sums; nothing is ever evaluated as code."""

from __future__ import annotations

import math
import time

import pytest
from yaml_files import WHOLE, load, only_mistake, write

from ppcls.config.arithmetic import LONGEST, evaluate
from ppcls.config.source import read_text

SCALE = "DataLoader.Train.dataset.transform_ops.2.NormalizeImage.scale"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.0/255.0", 1 / 255),
        ("1/255", 1 / 255),
        ("3", 3),
        ("-3", -3),
        ("+3", 3),
        ("--3", 3),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("2 - 3 - 4", -5),
        ("8 / 4 / 2", 1.0),
        ("-(1 - 3)", 2),
        ("  7  ", 7),
        ("1e400", math.inf),
        ("1_000", 1000),
    ],
)
def test_a_sum_is_computed(text, value):
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ten",
        "1/0",
        "0/0",
        "1/(2-2)",
        "1e400*0/0",
        "2**8",
        "7//2",
        "7%2",
        "1<<9",
        "~1",
        "not 1",
        "1 if 1 else 2",
        "1 < 2",
        "1j",
        "True",
        "None",
        "'1'",
        "b'1'",
        "[1]",
        "(1, 2)",
        "{1}",
        "1;2",
        "1\n2",
        "x = 1",
        "(x := 1)",
        "abs(1)",
        "__import__('os')",
        "__import__('os').getpid()",
        "().__class__",
        "1 .real",
        "lambda: 1",
        "f'{1}'",
        "0777",
        "(" * 60 + "1",
        "\0",
        "9" * (LONGEST + 1),
        "1" + "+1" * 10**6,
    ],
)
def test_anything_else_is_refused(text):
    start = time.monotonic()
    with pytest.raises(ValueError, match="expected"):
        evaluate(text)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E-3", 0.001),
        ("1e3", 1000.0),
        ("+1e3", 1000.0),
        ("-1.5e+3", -1500.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("1.5", 1.5),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("10", 10),
        ("-10", -10),
        ("0x10", 16),
        ("None", None),
        ("null", None),
        ("~", None),
        ("true", True),
        ("Nones", "Nones"),
        ("e3", "e3"),
        ("1e", "1e"),
        ("1.0/255.0", "1.0/255.0"),
        ("1e-3x", "1e-3x"),
        ("2026-11-01", "2026-11-01"),
        ("'1e-3'", "1e-3"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_yaml_scalars(text, value):
    found = read_text(text, "f").plain()
    assert found == value
    assert type(found) is type(value)


def test_numbers_inside_lists_are_numbers():
    assert read_text("[1e-1, 1e-2]", "f").plain() == [0.1, 0.01]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.0/255.0", 1 / 255), ("'1e-3'", 0.001), ("2", 2.0), ("'2'", 2.0), ("null", None)],
)
def test_a_number_is_wanted(tmp_path, text, value):
    config = load(tmp_path, WHOLE.replace("scale: 1.0/255.0", f"scale: {text}"))
    found = config.DataLoader.Train.dataset.arguments["transform_ops"][2].arguments["scale"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "value"), [("'3'", 3), ("'6/2'", 3), ("3", 3), ("'3.0'", 3), ("1_0", 10)]
)
def test_an_integer_is_wanted(tmp_path, text, value):
    epochs = load(tmp_path, WHOLE.replace("epochs: 200", f"epochs: {text}")).Global.epochs
    assert epochs == value
    assert type(epochs) is int


@pytest.mark.parametrize("text", ["'2.5'", "2.5", "1e400", "'1e400'", ".nan", "True", "'True'"])
def test_no_integer(tmp_path, text):
    problem = only_mistake(write(tmp_path, WHOLE.replace("epochs: 200", f"epochs: {text}")))
    assert "expected an integer >= 1" in problem.message


@pytest.mark.parametrize(
    "text", ["1/0", "__import__('os')", "__import__('os').getpid()", "ten", "True", "[1]", "1e400"]
)
def test_no_number(tmp_path, text):
    text = f'"{text}"' if text[0] in "_" else text
    problem = only_mistake(write(tmp_path, WHOLE.replace("scale: 1.0/255.0", f"scale: {text}")))
    assert problem.path == SCALE
    assert "expected" in problem.message


def test_texts_that_look_like_sums_stay_texts(tmp_path):
    config = load(tmp_path, WHOLE.replace("output_dir: ./output", "output_dir: 1/2"))
    assert config.Global.output_dir == "1/2"


def test_numeric_texts_inside_lists_are_converted(tmp_path):
    config = load(tmp_path, WHOLE.replace("order: ''", "mean: [1/2, '0.5', 5e-1]"))
    ops = config.DataLoader.Train.dataset.arguments["transform_ops"]
    assert ops[2].arguments["mean"] == [0.5, 0.5, 0.5]
