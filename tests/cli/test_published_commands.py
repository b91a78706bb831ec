"""The commands of the documentation, from a checkout without ImageNet."""

import re

import pytest
import support

pytest.importorskip("paddle")

CONFIGS = "configs/ImageNet/MobileNeXt"
MESSAGE = (
    r"error: configs/\S+\.yaml:\d+: DataLoader\.(Train|Eval)\.dataset\.image_root: "
    r"expected a folder at '\./dataset/ILSVRC2012/', received none; "
    r"'python dataset/imagenet\.py --help' explains how to lay ImageNet out\n"
)


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like the checkout; results stay in it."""
    for name in ("configs", "tools"):
        (tmp_path / name).symlink_to(support.ROOT / name)
    return tmp_path


@pytest.mark.parametrize("name", ["MobileNeXt_100.yaml", "MobileNeXt_100_cooldown.yaml"])
def test_training_without_the_data_ends_with_one_clear_sentence(checkout, name):
    done = support.run(["tools/train.py", "-c", f"{CONFIGS}/{name}"], checkout)
    assert done.returncode == 1
    assert re.fullmatch(MESSAGE, done.stderr), done.stderr
    assert "[Train]" not in done.stdout
    assert not (checkout / "output" / "MobileNeXt_100" / "latest").exists()


@pytest.mark.slow
def test_several_processes_without_the_data_end_with_the_same_sentence(checkout):
    done = support.launch(
        2, ["tools/train.py", "-c", f"{CONFIGS}/MobileNeXt_100.yaml"], checkout, timeout=60
    )
    assert done.returncode not in (0, None)
    console = done.stdout + done.stderr
    assert re.search(MESSAGE, console), console
    assert "Traceback" not in console
    assert not support.processes_with(str(checkout))


@pytest.mark.parametrize("command", ["eval", "infer", "export_model"])
def test_the_other_commands_without_weights(checkout, command):
    overrides = ["Global.pretrained_model=output/MobileNeXt_100/best_model"]
    if command == "infer":
        overrides.append("Infer.infer_imgs=photo.jpeg")
    arguments = [f"tools/{command}.py", "-c", f"{CONFIGS}/MobileNeXt_100.yaml"]
    done = support.run([*arguments, *support.override_arguments(overrides)], checkout)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    if command == "eval":
        assert re.fullmatch(MESSAGE, done.stderr)
    else:
        assert line.startswith("error: output/MobileNeXt_100/best_model: no weights there")
