"""``ppcls lr-find`` and ``ppcls batch-find`` as a person calls them."""

import re

import pytest

pytest.importorskip("paddle")


def test_lr_find_leaves_a_picture_and_says_what_to_set(cli, config_file, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    out = tmp_path / "found.png"
    before = set(tmp_path.rglob("*"))
    done = cli("lr-find", "-c", config_file, "--first", "1e-4", "--steps", "40", "--out", out)
    assert done.code == 0, done.err
    assert set(tmp_path.rglob("*")) - before == {out}
    assert out.read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^ +rate +loss +smoothed\n 1.00e-04 ", done.out, re.MULTILINE)
    assert "-o Optimizer.lr.learning_rate=" in done.out or "no suggestion" in done.out


def test_lr_find_refuses_a_falling_rate(cli, config_file):
    done = cli("lr-find", "-c", config_file, "--first", "1", "--last", "0.1")
    assert (done.code, done.err) == (
        2,
        "error: --last: expected a rate > the first, 1, received 0.1\n",
    )


def test_batch_find_prints_a_table_and_what_to_set(cli, config_file):
    done = cli("batch-find", "-c", config_file, "--memory", "4G", "--most", "8")
    assert done.code == 0, done.err
    assert re.search(r"^ +batch +memory +pictures/s\n +8 +0\.\d\d GiB +\d", done.out, re.MULTILINE)
    assert "-o DataLoader.Train.sampler.batch_size=8" in done.out
    assert "That is the configuration's own." in done.out


def test_batch_find_does_not_judge_what_it_has_not_tried(cli, config_file):
    done = cli("batch-find", "-c", config_file, "--memory", "4G", "--most", "2")
    assert "The configuration's 8 was not tried; the same total of 8 a step:" in done.out


def test_batch_find_fails_where_nothing_fits(cli, config_file):
    done = cli("batch-find", "-c", config_file, "--memory", "1M", "--most", "2")
    assert done.code == 1
    assert "Not even one picture a batch fits" in done.out


@pytest.mark.parametrize("text", ["4X", "0", "-1G", "G"])
def test_a_size_that_is_none(cli, config_file, text):
    done = cli("batch-find", "-c", config_file, f"--memory={text}")
    assert done.code == 2
    assert "expected a size such as 4G" in done.err
