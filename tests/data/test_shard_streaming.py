"""Shards from a web server: equal bits, a cache smaller than the data, and servers that fail."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ppcls import transfer
from ppcls.cache import locked
from ppcls.data import shard_cache
from ppcls.data.datasets.packed import PackedDataset
from ppcls.data.loader import DataLoader
from ppcls.data.pack import pack
from ppcls.data.samplers.packed import ShardSampler
from ppcls.data.transforms.crop import RandCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.normalize import NormalizeImage
from ppcls.errors import ArgumentError, DataError, EnvironmentProblem

pytestmark = pytest.mark.timeout(60)


def transforms() -> list:
    return [DecodeImage(), RandCropImage(size=32), NormalizeImage(order="")]


@dataclass
class Server:
    """Files of a folder, with ranges, over real sockets.

    Attributes:
        broken: name -> status codes of its next answers, or -n: only n bytes arrive.
        asked: (name, Range header) of each request.
    """

    folder: Path
    url: str = ""
    ranges: bool = True
    broken: dict[str, list[int]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def names(self) -> list[str]:
        return [name for name, _ in self.asked]


@pytest.fixture
def server(list_file, tmp_path, monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    out = tmp_path / "served/packed"
    pack(list_file.parent, out, list_file=list_file, shard_mb=0.011, shuffle=False)
    site = Server(out.parent)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            name, wanted = self.path.partition("?")[0].lstrip("/"), self.headers.get("Range")
            site.asked.append((name.rpartition("/")[2], wanted))
            faults = site.broken.get(name.rpartition("/")[2], [])
            fault = faults.pop(0) if faults else 0
            path = site.folder / name
            if fault > 0 or not path.is_file():
                self.send_error(fault or 404)
                return
            data, tag = path.read_bytes(), f'"{path.stat().st_mtime_ns}"'
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "") if site.ranges else None
            if found and self.headers.get("If-Range", tag) == tag:
                first, last = int(found[1]), int(found[2] or len(data) - 1)
                if first >= len(data):
                    self.send_error(416)
                    return
                part = data[first : last + 1]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/*")
            else:
                part = data
                self.send_response(200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[: -fault or None])

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{listener.server_port}/packed"
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    yield site
    listener.shutdown()
    listener.server_close()
    thread.join()


def opened(server: Server, **arguments: object) -> PackedDataset:
    return PackedDataset(server.url, transforms(), **arguments)


def local(server: Server) -> PackedDataset:
    return PackedDataset(str(server.folder / "packed"), transforms())


def sizes(server: Server) -> list[int]:
    return [path.stat().st_size for path in sorted((server.folder / "packed").glob("*.tar"))]


def cached(home: Path) -> list[Path]:
    return sorted(home.rglob("*.tar"))


def space_taken(home: Path) -> int:
    """Bytes of the shards in the cache, while some are being fetched.

    A part can become a whole shard at any moment, so a shard is looked for under both names,
    and one that is found under both is counted once.
    """
    found: dict[str, int] = {}
    for pattern in ("*.tar.part", "*.tar"):
        for path in home.rglob(pattern):
            with suppress(FileNotFoundError):
                found[path.name.removesuffix(".part")] = path.stat().st_size
    return sum(found.values())


def loader(dataset: PackedDataset, workers: int = 0, **arguments: object) -> DataLoader:
    facts = {"sample_count": len(dataset), "shards": dataset.shards, "seed": 3}
    sampler = ShardSampler(4, 5, **facts)
    return DataLoader(dataset, sampler, seed=3, num_workers=workers, **arguments)


def epochs(dataset: PackedDataset, workers: int = 0) -> list[tuple[bytes, list[int]]]:
    with loader(dataset, workers) as reader:
        return [(b.images.tobytes(), b.labels.tolist()) for e in (0, 1) for b in reader.epoch(e)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kept", ["all", "two", "none"])
def test_same_bits_as_local_shards(server, tmp_path, workers, kept):
    limit = {"all": 1.0, "two": 2 * max(sizes(server)) / 1e9, "none": 0}[kept]
    assert len(sizes(server)) > 4
    dataset = opened(server, cache_gb=limit)
    assert epochs(dataset, workers) == epochs(local(server))
    fetched = [name for name, _ in server.asked if name.endswith(".tar")]
    if kept == "all":
        assert sorted(fetched) == sorted(set(fetched)), "each shard once"
        assert [p.stat().st_size for p in cached(tmp_path / "home")] == sizes(server)
    elif kept == "two":
        assert len(fetched) > len(sizes(server)), "it cannot have kept them all"
    else:
        assert cached(tmp_path / "home") == []


@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_keeps_its_size(server, tmp_path, workers):
    limit = 3 * max(sizes(server))
    assert sum(sizes(server)) > 2 * limit
    fullest = 0
    with loader(opened(server, cache_gb=limit / 1e9), workers) as reader:
        for _ in reader.epoch(0):
            with locked(next((tmp_path / "home").rglob("room.lock"))):  # no shard makes room
                held = space_taken(tmp_path / "home")
            assert held <= limit
            fullest = max(fullest, held)
        assert fullest > limit / 2


def test_shards_opened_longest_ago_make_room(server, tmp_path):
    dataset = opened(server, cache_gb=2 * max(sizes(server)) / 1e9)
    firsts = np.unique(dataset.shards, return_index=True)[1].tolist()
    for first in firsts[:4]:
        dataset.source.read(first)
    assert [path.name for path in cached(tmp_path / "home")] == [
        "shard-000002.tar",
        "shard-000003.tar",
    ]
    held = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    held = [name for name in held if f"{tmp_path}/home" in name and ".tar" in name]
    assert len(held) == 2, "a removed shard gives its space back"
    assert not any("deleted" in name for name in held)


def test_a_second_run_fetches_the_index_only(server):
    epochs(opened(server))
    server.asked.clear()
    epochs(opened(server))
    assert server.names() == ["index.json"]


def test_without_a_network_the_cache_serves(server, caplog):
    expected = epochs(opened(server))
    server.broken = {"index.json": [503] * 4}
    assert epochs(opened(server)) == expected
    assert "503 Service Unavailable" in caplog.text


def test_another_packing_at_the_same_address(server, list_file):
    epochs(opened(server))
    (server.folder / "packed").rename(server.folder / "old")
    pack(list_file.parent, server.folder / "packed", list_file=list_file, shard_mb=0.011, seed=9)
    assert epochs(opened(server)) == epochs(local(server))


def test_a_broken_transfer_goes_on(server):
    server.broken = {"shard-000001.tar": [-3000, -2000]}
    assert epochs(opened(server)) == epochs(local(server))
    wanted = [r for name, r in server.asked if name == "shard-000001.tar"]
    assert wanted == [None, "bytes=3000-", "bytes=5000-"]


def test_train_and_val_behind_one_address(server, list_file):
    (server.folder / "both/train").mkdir(parents=True)
    for split in ("train", "val"):
        folder = server.folder / f"classes/{split}/a"
        folder.mkdir(parents=True)
        (folder / f"{split}.jpg").write_bytes((list_file.parent / "folder 0/ü #2.jpg").read_bytes())
    (server.folder / "both/train").rmdir()
    pack(server.folder / "classes", server.folder / "both")
    server.url = server.url.replace("/packed", "/both")
    for mode, split in (("Train", "train"), ("Eval", "val")):
        dataset = opened(server, mode=mode)
        assert dataset.describe(0).endswith(f"/both/{split}/shard-000000.tar/000000000.jpg"
                                            f" (a/{split}.jpg)")  # fmt: skip
        assert len(epochs(dataset)) == 2


def test_a_query_stays_behind_every_address(server):
    server.url += "/?signature=a%2Fb"
    dataset = opened(server)
    dataset.source.read(0)
    assert dataset.path(0).startswith(
        server.url.partition("?")[0].rstrip("/") + "/shard-000000.tar?"
    )


@pytest.mark.parametrize("cache_gb", [1.0, 0])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_that_fails_is_named(server, cache_gb, workers):
    dataset = opened(server, cache_gb=cache_gb)
    server.broken = {"shard-000002.tar": [500] * 100}
    with pytest.raises(DataError) as caught:
        epochs(dataset, workers)
    message = str(caught.value)
    assert f"{server.url}/shard-000002.tar: 500 Internal Server Error" in message
    assert "(folder " in message, "and the picture"


def test_a_passing_fault_is_gone_over(server):
    server.broken = {"shard-000002.tar": [503, 503]}
    for cache_gb in (1.0, 0):
        assert epochs(opened(server, cache_gb=cache_gb)) == epochs(local(server))


def test_a_shard_that_failed_is_not_asked_for_with_every_picture(server):
    dataset = opened(server, on_error="skip", max_bad_ratio=1)
    server.broken = {"shard-000002.tar": [500] * 100}
    told: list[str] = []
    with loader(dataset, on_bad_sample=told.append) as reader:
        list(reader.epoch(0))
    assert len(told) == int((dataset.shards == 2).sum()) > 1
    # By the reader, and by the thread that fetches ahead of it.
    assert server.names().count("shard-000002.tar") <= 2 * transfer.ATTEMPTS


def test_of_a_file_that_is_too_large_little_is_fetched(server, monkeypatch):
    path = server.folder / "packed/shard-000001.tar"
    size = path.stat().st_size
    with path.open("ab") as file:
        file.truncate(10**8)
    received, real = [], transfer._write
    monkeypatch.setattr(
        transfer,
        "_write",
        lambda reply, part, *rest: (real(reply, part, *rest), received.append(part.stat().st_size)),
    )
    with pytest.raises(DataError, match=f"is another file: expected {size} bytes, received more"):
        epochs(opened(server))
    assert size < max(received) < 10**6


@pytest.mark.parametrize(
    ("damage", "reason"),
    [("cut", "is truncated: expected {} bytes, received {}"), ("flip", "is damaged: its SHA-256")],
)
def test_a_damaged_shard_on_the_server_is_named(server, tmp_path, damage, reason):
    path = server.folder / "packed/shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data if damage == "flip" else data[:-512])
    dataset = opened(server)
    with pytest.raises(DataError) as caught:
        epochs(dataset)
    expected = reason.format(len(data), len(data) - 512)
    assert f"{server.url}/shard-000001.tar: {expected}" in str(caught.value)
    assert "shard-000001.tar" not in [p.name for p in cached(tmp_path / "home")]


def test_parts_of_a_truncated_shard(server):
    path = server.folder / "packed/shard-000001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"/shard-000001\.tar( is truncated|: 416)"):
        epochs(opened(server, cache_gb=0))
    server.ranges = False
    with pytest.raises(
        DataError, match=r"/shard-0.*: the server gives whole files only.*set cache_gb above 0"
    ):
        epochs(opened(server, cache_gb=0))


def test_requests_for_parts_bring_several_samples_in_sequence(server):
    dataset = opened(server, cache_gb=0)
    expected = local(server)
    server.asked.clear()
    for index in range(23):
        assert dataset.source.read(index) == expected.source.read(index)
    assert len(server.asked) == 2 * len(sizes(server))
    server.asked.clear()
    dataset = opened(server, cache_gb=0)
    server.asked.clear()
    for index in range(22, -1, -1):
        dataset.source.read(index)
    assert len(server.asked) == 23, "nothing is fetched that nobody asked for"


def test_nothing_at_the_address(server):
    with pytest.raises(
        DataError, match=r"/nowhere/index\.json: 404 Not Found; is the address right\?$"
    ):
        PackedDataset(server.url.replace("packed", "nowhere"))
    with pytest.raises(DataError, match="expected http://host/file"):
        PackedDataset("s3://bucket/packed")


def test_a_cache_too_small_for_a_shard(server):
    with pytest.raises(
        ArgumentError, match=r"expected a cache_gb of 0 or at least 1\..*e-05, the size of"
    ):
        opened(server, cache_gb=1e-9)


def test_a_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "file"))
    with pytest.raises(EnvironmentProblem, match=r"cannot write .*: Not a directory"):
        opened(server)


def test_processes_fetch_a_shard_once_and_wait_for_room(server, tmp_path):
    """Three processes read in different orders through a cache of one shard."""
    limit = max(sizes(server)) / 1e9
    expected = [local(server).source.read(index) for index in range(23)]
    opened(server)
    children = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            dataset = opened(server, cache_gb=limit)
            order = np.random.default_rng(number).permutation(23)
            os._exit(int(any(dataset.source.read(int(i)) != expected[i] for i in order)))
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert sum(path.stat().st_size for path in cached(tmp_path / "home")) <= limit * 1e9
    assert shard_cache.POLL < 1


def test_a_process_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path):
    with locked(tmp_path / "lock"):
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
    released = threading.Event()

    def take():
        with locked(tmp_path / "lock"):
            released.set()

    thread = threading.Thread(target=take)
    thread.start()
    try:
        assert released.wait(10)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        thread.join()


def wait_for(condition, seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def test_shards_are_fetched_ahead_of_the_readers(server):
    dataset = opened(server, cache_gb=6 * max(sizes(server)) / 1e9)
    order = np.argsort(-dataset.shards, kind="stable")  # from the last shard to the first
    dataset.expect(order)
    last = len(sizes(server)) - 1
    assert wait_for(lambda: f"shard-{last - 1:06d}.tar" in server.names())
    time.sleep(0.2)
    fetched = [name for name in server.names() if name.endswith(".tar")]
    assert fetched == [f"shard-{last:06d}.tar", f"shard-{last - 1:06d}.tar"], "two ahead"
    pid = os.fork()  # a reader process
    if pid == 0:
        dataset.source.read(int(order[0]))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert wait_for(lambda: f"shard-{last - 2:06d}.tar" in server.names())
    assert server.names().count(f"shard-{last:06d}.tar") == 1
    dataset.expect(np.arange(23))
    assert wait_for(lambda: "shard-000001.tar" in server.names())
    for index in range(23):
        dataset.source.read(index)
    del dataset
    ended = lambda: "shards-ahead" not in [t.name for t in threading.enumerate()]  # noqa: E731
    assert wait_for(ended)


def test_a_small_cache_fetches_nothing_ahead(server):
    dataset = opened(server, cache_gb=2 * max(sizes(server)) / 1e9)
    dataset.expect(np.arange(23))
    time.sleep(0.2)
    assert not any(name.endswith(".tar") for name in server.names())
