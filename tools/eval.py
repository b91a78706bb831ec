"""Evaluates weights: `ppcls eval` as a script. See `python tools/eval.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout, too

from ppcls.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
