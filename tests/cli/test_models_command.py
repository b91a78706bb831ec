"""``ppcls models``."""

import json
import subprocess
import sys

import support


def test_the_table_has_all_networks(cli):
    import ppcls

    done = cli("models")
    assert (done.code, done.err) == (0, "")
    head, *rows = done.out.splitlines()
    assert head.split() == ["Network", "Parameters", "MACs", "Input", "Top-1", "Weights"]
    names = [name for row in rows for name in row.replace("(", "").replace(")", "").split()]
    assert set(ppcls.list_models()) <= {name.rstrip(",") for name in names}


def test_a_row(cli):
    done = cli("models", "MobileNetV2")
    [_, row] = done.out.splitlines()
    assert row.split("  ")[0] == "MobileNetV2 (MobileNetV2_x1_0)"
    assert row.split()[2:7] == ["3.51", "M", "314", "M", "224"]
    assert row.endswith("72.15 PaddleClas")


def test_columns_stand_below_each_other(cli):
    lines = cli("models", "*Swin*").out.splitlines()
    column = lines[0].index("Top-1")
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines)


def test_json_is_an_object_a_line(cli):
    done = cli("models", "MobileNeXt_1*", "--format", "json")
    first, second = map(json.loads, done.out.splitlines())
    assert (first["name"], second["name"]) == ("MobileNeXt_x1_0", "MobileNeXt_x1_4")
    assert first["aliases"] == ["MobileNeXt_100"]
    assert (first["params"], first["macs"], first["image_size"]) == (3535416, 311342592, 224)
    assert first["top1"]["authors"] == 74.02
    assert first["paper"] == "https://arxiv.org/abs/2007.02269"
    assert first["weights"]["library"] == "PaddleClas"
    assert second["weights"] is None


def test_no_match_is_a_wrong_command_line(cli):
    done = cli("models", "MobilNetV2*")
    assert (done.code, done.out) == (2, "")
    assert "no network's name matches 'MobilNetV2*'; did you mean 'MobileNetV2" in done.err


def test_help(cli):
    done = cli("models", "--help")
    assert done.code == 0
    assert "example: ppcls models '" in done.out
    assert "\n    models " in cli("--help").out


def test_it_does_not_import_paddle():
    code = "import sys\nfrom ppcls.cli import main\nmain(['models', 'MobileNetV2'])\n"
    code += "sys.exit('paddle' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=support.environment()
    )
    assert (done.returncode, done.stderr) == (0, "")
