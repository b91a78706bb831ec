"""What the command says about itself."""

import subprocess
import sys
import time

import pytest
import support


@pytest.mark.parametrize(
    "command", [["train"], ["eval"], ["infer"], ["export"], ["config", "show"], ["config", "check"]]
)
def test_help_of_each_command_has_an_example(cli, command):
    done = cli(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"example: ppcls {' '.join(command)} " in " ".join(done.out.split())
    assert "-o PATH=VALUE" in done.out


def test_help_lists_the_commands(cli):
    done = cli("--help")
    assert done.code == 0
    for command in ("train", "eval", "infer", "export", "config"):
        assert f"\n    {command} " in done.out


@pytest.mark.parametrize("tool", ["train", "eval", "infer", "export_model"])
def test_tools_are_the_commands(tool, tmp_path):
    done = support.run([support.ROOT / "tools" / f"{tool}.py", "--help"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ppcls {tool.removesuffix('_model')} " in done.stdout


def test_help_does_not_import_paddle():
    started = time.perf_counter()
    code = "import sys\nfrom ppcls.cli import main\ntry: main(['train', '--help'])\n"
    code += "finally: sys.stderr.write(str('paddle' in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=support.environment()
    )
    assert done.stderr == "False"
    assert time.perf_counter() - started < 10


def test_version(cli):
    import ppcls

    assert cli("--version").out == f"ppcls {ppcls.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["trian"],
        ["config"],
        ["train"],
        ["train", "-c"],
        ["eval", "--epochs", "3"],
        ["infer", "--format", "xml", "a.png"],
    ],
)
def test_a_wrong_command_line_exits_with_two(cli, arguments):
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("usage: ppcls")
    assert "Traceback" not in done.err


def test_an_unknown_command_lists_those_there_are(cli):
    done = cli("trian")
    assert "trian" in done.err
    for command in ("train", "eval", "infer", "export"):
        assert command in done.err


def test_config_show_prints_what_can_be_run_again(cli, config_file, tmp_path):
    done = cli("config", "show", "--plain", config_file, "-o", "Global.epochs=4")
    assert (done.code, done.err) == (0, "")
    (tmp_path / "again.yaml").write_text(done.out)
    assert support.load(tmp_path / "again.yaml").Global.epochs == 4
    assert support.load(tmp_path / "again.yaml").Arch == support.load(config_file).Arch


def test_config_show_says_where_values_come_from(cli, config_file):
    done = cli("config", "show", config_file, "-o", "Global.epochs=4")
    [line] = [line for line in done.out.splitlines() if line.strip().startswith("epochs:")]
    assert "command-line" in line
    [line] = [line for line in done.out.splitlines() if line.strip().startswith("seed:")]
    assert f"{config_file.name}:" in line
    [line] = [line for line in done.out.splitlines() if line.strip().startswith("ignore_head:")]
    assert "default" in line


def test_config_check_goes_through_all_files(cli, config_file, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(config_file.read_text().replace("epochs: 1", "epochs: -1"))
    done = cli("config", "check", wrong, config_file)
    assert done.code == 2
    assert done.out == f"{config_file}: ok\n"
    assert f"{wrong}:" in done.err and "Global.epochs" in done.err


def test_shipped_configurations_are_right(cli):
    """Some of them; ``config/test_shipped_configs.py`` has all."""
    configs = support.ROOT / "configs"
    folders = ("quick_start", "ImageNet/MobileNeXt", "ImageNet/SqueezeNet", "ImageNet/PPLCNet")
    files = [path for folder in folders for path in sorted((configs / folder).glob("*.yaml"))]
    assert len(files) >= 19
    done = cli("config", "check", *files)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [f"{path}: ok" for path in files]
