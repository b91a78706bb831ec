"""Weights from the web, fetched from a real server."""

from __future__ import annotations

import hashlib
import http.client
import os
import pickle
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import support
from web import Site, served

import ppcls
from ppcls import transfer
from ppcls.errors import EnvironmentProblem, WeightsError
from ppcls.weights import find_weights, load_weights
from ppcls.weights.download import fetch, place_of

DATA = np.random.RandomState(0).bytes(700_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = "/zoo/net.pdparams"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache, and no waiting between attempts."""
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(transfer, "TIMEOUT", 5.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def site():
    with served(Site({NAME: DATA})) as running:
        yield running


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once(site, home, capsys):
    path = find_weights(site.url + NAME)
    assert path.read_bytes() == DATA
    host = site.url.removeprefix("http://").replace(":", "_")
    assert path == home / "weights" / host / "zoo/net.pdparams"
    assert f"downloading {site.url}{NAME} to {path}" in capsys.readouterr().err
    assert find_weights(site.url + NAME) == path
    assert site.asked == [(NAME, None)]
    assert files(home) == ["net.pdparams", "net.pdparams.lock"], "nothing half-done is left"


def test_an_interrupted_transfer_goes_on(site):
    site.breaks = [300_000, 100_000]
    assert fetch(site.url + NAME, SHA256).read_bytes() == DATA
    assert site.asked == [(NAME, None), (NAME, "bytes=300000-"), (NAME, "bytes=400000-")]


def test_what_an_earlier_process_left_is_gone_on_with(site, monkeypatch, home):
    site.breaks = [300_000]
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    with pytest.raises(WeightsError, match="broke off after 300000 of 700000 bytes"):
        fetch(site.url + NAME)
    assert "net.pdparams.part" in files(home)
    assert fetch(site.url + NAME).read_bytes() == DATA
    assert site.asked[1:] == [(NAME, "bytes=300000-")]


def test_a_file_that_changed_in_the_meantime_starts_anew(site, monkeypatch):
    site.breaks = [300_000]
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    with pytest.raises(WeightsError):
        fetch(site.url + NAME)
    site.tag, site.files[NAME] = '"2"', DATA[::-1]
    assert fetch(site.url + NAME).read_bytes() == DATA[::-1]


@pytest.mark.parametrize("change", [{"ranges": False}, {"tag": None}, {"tag": 'W/"weak"'}])
def test_without_ranges_a_transfer_starts_anew(site, change):
    for name, value in change.items():
        setattr(site, name, value)
    site.breaks = [300_000, 100]
    assert fetch(site.url + NAME).read_bytes() == DATA
    assert len(site.asked) == 3


def test_a_part_as_long_as_the_file_starts_anew(site, home):
    part = place_of(site.url + NAME).with_suffix(".pdparams.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA)
    part.with_suffix(".part.tag").write_text(site.tag)
    assert fetch(site.url + NAME).read_bytes() == DATA
    assert [wanted for _, wanted in site.asked] == ["bytes=700000-", None]


def test_a_server_with_a_passing_fault_is_asked_again(site):
    site.answers = [503, 500]
    assert fetch(site.url + NAME).read_bytes() == DATA
    assert len(site.asked) == 3


def test_a_fault_that_stays_ends_the_attempts(site):
    site.answers = [503] * 10
    with pytest.raises(WeightsError, match="503 Service Unavailable"):
        fetch(site.url + NAME)
    assert len(site.asked) == transfer.ATTEMPTS


@pytest.mark.parametrize("digits", [SHA256, SHA256[:8], SHA256[:10]])
def test_a_right_checksum_passes(site, digits):
    assert fetch(f"{site.url}{NAME}#sha256={digits.upper()}").read_bytes() == DATA
    assert fetch(site.url + NAME, digits).read_bytes() == DATA


def test_a_wrong_checksum_ends_a_download_but_keeps_what_was_there(site, home):
    wrong = "0" * 64
    with pytest.raises(WeightsError) as caught:
        find_weights(f"{site.url}{NAME}#sha256={wrong}")
    message = str(caught.value)
    assert SHA256 in message and wrong in message
    assert "net.pdparams" not in files(home) and "net.pdparams.part" not in files(home)
    path = fetch(site.url + NAME)
    with pytest.raises(WeightsError, match=wrong):
        fetch(site.url + NAME, wrong)
    assert path.read_bytes() == DATA, "the digits may be at fault"
    assert fetch(site.url + NAME, SHA256) == path


@pytest.mark.parametrize("fragment", ["md5=0123456789abcdef", "sha256", "top", SHA256])
def test_an_unknown_fragment_is_refused(site, fragment):
    with pytest.raises(WeightsError, match="expected #sha256="):
        fetch(f"{site.url}{NAME}#{fragment}")
    assert site.asked == []


@pytest.mark.parametrize("digits", ["", "123", "x" * 64, "0" * 65])
def test_a_checksum_that_is_none_is_refused(site, digits):
    url = f"{site.url}{NAME}#sha256={digits}"
    if digits:
        with pytest.raises(WeightsError, match="hexadecimal"):
            fetch(url)
        assert site.asked == []
    else:
        assert fetch(url).is_file()


def test_a_missing_file_is_told_at_once(site, home):
    with pytest.raises(WeightsError) as caught:
        fetch(site.url + "/zoo/none.pdparams")
    message = str(caught.value)
    assert f"{site.url}/zoo/none.pdparams: 404 Not Found" in message
    assert message.endswith("; is the address right?")
    assert len(site.asked) == 1
    assert "none.pdparams" not in files(home)


def test_a_web_page_is_no_file(site):
    site.content_type = "text/html; charset=utf-8"
    with pytest.raises(WeightsError, match="the server sent a web page"):
        fetch(site.url + NAME)
    assert len(site.asked) == 1


@pytest.mark.parametrize("is_published", [True, False])
def test_a_server_that_does_not_answer(is_published):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}{NAME}"
    with pytest.raises(WeightsError) as caught:
        fetch(url, is_published=is_published)
    message = str(caught.value)
    assert message.startswith(f"cannot download {url}: [Errno")
    assert ("the server does not answer" in message) == (not is_published)
    by_hand = f"where there is a network, fetch it by hand and put it at {place_of(url)}"
    assert (by_hand in message) == is_published
    place_of(url).write_bytes(DATA)
    assert fetch(url).read_bytes() == DATA


def test_a_server_that_falls_silent_times_out(monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.1)
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}{NAME}"
        with pytest.raises(WeightsError, match="timed out"):
            fetch(url)


def test_redirects_are_followed_to_the_web_only(site, tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    site.redirects = {
        "/a.pdparams": NAME,
        "/b.pdparams": (tmp_path / "secret").as_uri(),
        "/c.pdparams": "ftp://127.0.0.1/c.pdparams",
    }
    assert fetch(site.url + "/a.pdparams").read_bytes() == DATA
    with pytest.raises(WeightsError, match=r"'file:.*' is not allowed"):
        fetch(site.url + "/b.pdparams")
    with pytest.raises(WeightsError, match="403 leads to ftp:"):
        fetch(site.url + "/c.pdparams")


def test_a_redirect_does_not_give_up_encryption():
    handler, request = transfer._Redirects(), urllib.request.Request("https://h/a.pth")
    assert handler.redirect_request(request, None, 302, "Found", {}, "https://i/a.pth")
    with pytest.raises(urllib.error.HTTPError, match="leads to http:"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://i/a.pth")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/w.pdparams",
        "ftp://h/w.pdparams",
        "s3://bucket/w.pdparams",
        "http:///w.pdparams",
        "http://h:port/w.pdparams",
        "http://h:0/w.pdparams",
        "http://h:99999/w.pdparams",
        "http://../w.pdparams",
        "http://a..b/w.pdparams",
        "http://.h/w.pdparams",
        "http://[::1]/w.pdparams",
        "http://h h/w.pdparams",
        "http://ä.example/w.pdparams",
        f"http://{'a' * 64}.example/w.pdparams",
        "http://h/\udc80.pdparams",
        "https://h/w.zip",
        "https://h/w",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(WeightsError) as caught:
        find_weights(url)
    assert str(caught.value).startswith((f"{url}: ", f"{url!r}: "))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://h/a/b.pth", "h/a/b.pth"),
        ("https://user:secret@h:8080/b.pth", "h_8080/b.pth"),
        ("https://h/../../b.pth", "h/b_*.pth"),
        ("https://h/%2e%2e/%2e%2e%2f../b.pth", "h/b_*.pth"),
        ("https://h/a b/c%20d.pth", "h/a_b/c_d_*.pth"),
        ("https://h/b.pth?download=1&t=../x", "h/b_download_1_t____x_*.pth"),
        ("https://h", "h/file_*"),
    ],
)
def test_a_place_in_the_cache_is_below_the_host(home, url, place):
    digits = hashlib.sha256(url.encode()).hexdigest()[:8]
    assert place_of(url) == home / "weights" / place.replace("*", digits)


def test_different_addresses_have_different_places():
    long = "https://h/b.pth?key=" + 100 * "x"
    urls = [long + "1", long + "2", "https://h/b.pth", "https://h/b.pth?", "https://h//b.pth"]
    urls += [f"https://h/{name}.pth" for name in ("a:b", "a b", "a%20b", "a_b", "a_b?c", "a_b_c")]
    assert len({place_of(url) for url in urls}) == len(urls) - 1, "an empty query is none"


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/ä b.pdparams", "/%C3%A4%20b.pdparams"),
        ("/%C3%A4%20b.pdparams", "/%C3%A4%20b.pdparams"),
        ("/b.pdparams?x=ü\t&y=%41", "/b.pdparams?x=%C3%BC&y=%41"),  # tabs are left out of URLs
    ],
)
def test_an_address_is_quoted(site, path, asked):
    site.files[asked] = DATA
    assert fetch(site.url + path).read_bytes() == DATA
    assert site.asked == [(asked, None)]


@pytest.mark.parametrize("mirror", ["file://{file}", "mirror.example/a.pth", "http://a..b/a.pth"])
def test_what_stands_for_an_address_is_one_too(home, tmp_path, mirror):
    (tmp_path / "a.pth").write_bytes(DATA)
    with pytest.raises(WeightsError, match="is no address of a file"):
        fetch("https://h.example/a.pth", address=mirror.format(file=tmp_path / "a.pth"))
    assert not home.exists()


@pytest.mark.parametrize("kind", [http.client.InvalidURL, UnicodeError, ValueError])
def test_an_address_that_the_network_layer_refuses_is_not_tried_again(monkeypatch, kind):
    def refuse(*_, **__):
        asked.append(1)
        raise kind("no")

    asked = []
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refuse)
    with pytest.raises(WeightsError, match=r"cannot download http://h\.example/a\.pth: no"):
        fetch("http://h.example/a.pth")
    assert asked == [1]


def test_the_cache_can_stand_elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv("PPCLS_HOME")
    monkeypatch.delenv("PPCLS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place_of("https://h/b.pth") == tmp_path / ".cache/ppcls/weights/h/b.pth"
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "cache"))
    assert place_of("https://h/b.pth") == tmp_path / "cache/ppcls/weights/h/b.pth"
    monkeypatch.setenv("PPCLS_HOME", "~/own")
    assert place_of("https://h/b.pth") == tmp_path / "own/weights/h/b.pth"


def test_a_cache_that_cannot_be_written_is_named(site, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "file"))
    with pytest.raises(EnvironmentProblem, match=r"cannot write .*: Not a directory"):
        fetch(site.url + NAME)


def test_a_full_disk_is_no_reason_to_try_again(site, monkeypatch):
    real = Path.open

    def full(path, mode="r", *rest, **more):
        if path.name.endswith(".part") and "w" in mode:
            path = Path("/dev/full")
        return real(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        fetch(site.url + NAME)
    assert len(site.asked) == 1


def test_two_processes_at_once_download_once(site):
    code = f"from ppcls.weights import find_weights; print(find_weights({site.url + NAME!r}))"
    environment = {**os.environ, "PYTHONPATH": str(support.ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert paths == {str(place_of(site.url + NAME))}
    assert Path(paths.pop()).read_bytes() == DATA
    assert site.asked == [(NAME, None)]


def test_a_network_is_loaded_from_a_url(site):
    net = ppcls.create_model("MobileNeXt_x0_1", class_num=3)
    arrays = {name: value.numpy() for name, value in net.state_dict().items()}
    site.files[NAME] = pickle.dumps(arrays, 4)
    other = ppcls.create_model("MobileNeXt_x0_1", class_num=3, pretrained=site.url + NAME)
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), arrays[name])
    assert load_weights(net, site.url + NAME).missing == []
