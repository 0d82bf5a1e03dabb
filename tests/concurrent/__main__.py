"""The long run: python -m tests.concurrent [--seconds N] [--seed N] [--on STORE+BROKER]...

The seconds are divided among the places. Exit code 1 when a law was broken; then the folder with the
logs and the books is kept.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from .chaos import PLACES, run_chaos, say

NAMES = ["+".join(place) for place in PLACES]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.concurrent", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of faults (default: 600)")
    parser.add_argument("--seed", help="to repeat a run's choices (default: a new one)")
    parser.add_argument("--on", action="append", choices=NAMES, help="only there")
    options = parser.parse_args(argv)
    seed = options.seed or str(random.SystemRandom().randrange(10**6))
    names = options.on or NAMES
    say(f"seed {seed}")
    folder = Path(tempfile.mkdtemp(prefix="durable-chaos-logs-"))
    broken = 0
    for name in names:
        store, broker = name.split("+")
        here = folder / name
        here.mkdir()
        report = run_chaos(here, store, broker, seed=seed, seconds=options.seconds / len(names))
        broken += len(report.violations)
    if broken:
        say(f"{broken} violations, seed {seed}; logs and books are in {folder}")
        return 1
    shutil.rmtree(folder)
    say(f"no law was broken, seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
