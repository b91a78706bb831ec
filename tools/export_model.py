"""Exports a network: `ppcls export` as a script. See `python tools/export_model.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout, too

from ppcls.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
