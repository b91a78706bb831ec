"""Nothing but the decoder, in as many processes as a reader has, for ``benchmark/reader.py``."""

from __future__ import annotations

import multiprocessing
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import simplejpeg

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmark.peers.turns import Epoch, children, parse, read_list, take_turns


def decode_file(path: str) -> int:
    """Reads a file, and decodes all of it; the pixels are thrown away."""
    simplejpeg.decode_jpeg(Path(path).read_bytes())
    return 1


def make(options: Namespace) -> Epoch:
    """Starts the processes."""
    paths = [path for path, _ in read_list(options)]
    pool = multiprocessing.get_context("fork").Pool(options.workers)

    def epoch() -> Iterator[int]:
        yield from pool.imap_unordered(decode_file, paths, chunksize=16)

    return epoch


if __name__ == "__main__":
    options = parse(__doc__)
    take_turns(lambda: make(options), children)
