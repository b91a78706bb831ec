"""Rules of the house that a reviewer would otherwise have to look for."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "ppcls").rglob("*.py"))

# Calls by the end of their dotted name; a builtin only without a dot before it.
FORBIDDEN_BUILTINS = {"eval", "exec", "compile", "__import__", "print", "breakpoint", "input"}
FORBIDDEN_CALLS = {
    ("os", "system"),
    ("os", "popen"),
    ("pickle", "load"),
    ("pickle", "loads"),
    ("cPickle", "load"),
    ("marshal", "loads"),
    ("paddle", "load"),
    ("torch", "load"),
    ("joblib", "load"),
    ("dill", "load"),
    ("yaml", "load"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
    ("hub", "load"),
}
# The allow-listing unpickler lives here, and nowhere else.
PICKLE_HOME = ROOT / "ppcls/weights/unpickle.py"


def violations(tree: ast.AST, may_pickle: bool = False) -> list[str]:
    """``line: what`` of everything that the rules forbid."""
    found = []
    for node in ast.walk(tree):
        at = getattr(node, "lineno", 0)
        if isinstance(node, ast.Assert):
            found.append(f"{at}: assert")
        if isinstance(node, ast.ImportFrom):
            named = [[*(node.module or "").split(".")[-1:], alias.name] for alias in node.names]
            found += [f"{at}: import {'.'.join(n)}" for n in named if tuple(n) in FORBIDDEN_CALLS]
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not may_pickle:
            modules = [alias.name for alias in node.names]
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            found += [f"{at}: import {m}" for m in modules if m in ("pickle", "marshal", "shelve")]
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"{at}: bare except")
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_BUILTINS:
            found.append(f"{at}: {node.id}")
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).rpartition(".")[2]
            if (owner, node.attr) in FORBIDDEN_CALLS:
                found.append(f"{at}: {owner}.{node.attr}")
        if isinstance(node, ast.keyword):
            switched_on = not (isinstance(node.value, ast.Constant) and not node.value.value)
            if node.arg in ("shell", "allow_pickle") and switched_on:
                found.append(f"{at}: {node.arg}=True")
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            mutable = [d for d in defaults if isinstance(d, (ast.List, ast.Dict, ast.Set))]
            found += [f"{d.lineno}: mutable default" for d in mutable]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_keeps_the_rules(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert violations(tree, may_pickle=path == PICKLE_HOME) == []


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "f = eval",
        "exec('x')",
        "print(1)",
        "assert x",
        "import os; os.system('x')",
        "from os import system",
        "import pickle",
        "from pickle import loads",
        "pickle.loads(b)",
        "paddle.load('x')",
        "np.load('x', allow_pickle=True)",
        "subprocess.run('x', shell=True)",
        "yaml.load(x)",
        "def f(a=[]): pass",
        "try:\n    x\nexcept:\n    y",
    ],
)
def test_the_rules_find(line):
    assert violations(ast.parse(line))


@pytest.mark.parametrize(
    "line", ["net.eval()", "model.compile()", "json.load(f)", "np.load('x')", "re.compile('x')"]
)
def test_the_rules_pass(line):
    assert violations(ast.parse(line)) == []


def test_there_are_sources():
    assert len(SOURCES) > 40
    assert PICKLE_HOME in SOURCES


def imported(path: Path) -> set[str]:
    """Modules of this project that a file imports, wherever in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    return {module for module in modules if module.split(".")[0] == "ppcls"}


# Package -> what it may not import: the imports of the house point one way.
NOT_ABOVE = {
    "config": (
        "engine",
        "deploy",
        "cli",
        "data",
        "weights",
        "backbones",
        "losses",
        "metrics",
        "optim",
    ),
    "data": ("engine", "deploy", "cli", "weights", "backbones", "losses", "metrics", "optim"),
    "weights": ("engine", "deploy", "cli", "data", "losses", "metrics", "optim"),
    "backbones": ("engine", "deploy", "cli", "data", "weights", "losses", "metrics", "optim"),
    "losses": ("engine", "deploy", "cli"),
    "metrics": ("engine", "deploy", "cli"),
    "optim": ("engine", "deploy", "cli"),
    "engine": ("cli", "cli_data", "report"),
    "report": ("cli", "cli_data"),
}


@pytest.mark.parametrize("package", NOT_ABOVE)
def test_imports_point_one_way(package):
    paths = sorted((ROOT / "ppcls" / package).rglob("*.py"))
    assert paths
    for path in paths:
        packages = {module.split(".")[1] for module in imported(path) if "." in module}
        assert not packages & set(NOT_ABOVE[package]), path


def run(code: str) -> str:
    """Standard output of Python code in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_configuration_and_data_can_be_imported_without_paddle():
    done = run(
        "import importlib, pkgutil, sys\n"
        "sys.modules['paddle'] = None  # importing it raises ImportError\n"
        "import ppcls, ppcls.config, ppcls.registry, ppcls.errors, ppcls.data\n"
        "names = ['ppcls.config', 'ppcls.registry']\n"
        "for package in (ppcls.config, ppcls.data):\n"
        "    prefix = package.__name__ + '.'\n"
        "    names += [m.name for m in pkgutil.walk_packages(package.__path__, prefix)]\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "from ppcls.registry import POSTPROCESSES, TRANSFORMS\n"
        "assert TRANSFORMS.build('CropImage', {'size': 3})\n"
        "assert POSTPROCESSES.names()\n"
        "print(len(names))\n"
    )
    assert int(done) > 20


def test_import_ppcls_takes_no_paddle():
    assert run("import ppcls, sys; print('paddle' in sys.modules, ppcls.__version__)").split()[
        0
    ] == ("False")


def test_everything_that_ppcls_names_is_there():
    assert "create_model" in run(
        "import ppcls\nfor name in ppcls.__all__: getattr(ppcls, name)\nprint(dir(ppcls))"
    )
    assert (
        run("import ppcls\ntry: ppcls.nothing\nexcept AttributeError as e: print(e)")
        == "module 'ppcls' has no attribute 'nothing'\n"
    )


COMMANDS = ["", "train", "eval", "infer", "export", "config", "config show", "config check"]
COMMANDS += ["weights", *(f"weights {name}" for name in ("inspect", "convert", "diff", "average"))]
COMMANDS += ["data", *(f"data {name}" for name in ("list", "check", "browse", "doctor", "pack"))]


def test_help_takes_no_paddle_and_gives_an_example():
    out = run(
        "import contextlib, io, sys\n"
        "from ppcls.cli import main\n"
        f"for command in {COMMANDS}:\n"
        "    text = io.StringIO()\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(text): main([*command.split(), '--help'])\n"
        "    except SystemExit as stop:\n"
        "        examples = 'example: ' in text.getvalue()\n"
        "        print(command, stop.code, 'paddle' in sys.modules, examples, sep='|')\n"
    )
    lines = [line.split("|") for line in out.splitlines()]
    assert [line[0] for line in lines] == COMMANDS
    assert {line[1] for line in lines} == {"0"}
    assert {line[2] for line in lines} == {"False"}, "Paddle takes seconds to import"
    assert [line[0] for line in lines if line[3] == "False"] == ["", "config", "weights", "data"]


def test_a_wrong_command_line_ends_with_2():
    for arguments in ([], ["trian"], ["train"], ["config"], ["train", "-x"]):
        done = subprocess.run(
            [sys.executable, "-m", "ppcls.cli", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr
        assert "usage:" in done.stderr


def test_configurations_that_the_library_names_are_there():
    """Examples in help texts and docstrings can be copied."""
    texts = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    named = set(re.findall(r"configs/[\w/]+\.yaml", texts))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_every_public_module_has_a_docstring():
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
