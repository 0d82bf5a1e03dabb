"""python -m benchmarks: measure on the stores named, print a table of medians with their spread."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

from . import measures
from .stand import Stand, stand

BROKERS = {"postgresql": "amqp", "mariadb": "redis", "sqlite": "embedded"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("stores", nargs="*", default=["postgresql", "sqlite"], metavar="STORE")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs to drain (20000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measure (3)")
    parser.add_argument("--only", help="measures whose name contains this")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    unknown = set(options.stores) - set(BROKERS)
    if unknown:
        parser.error(f"unknown store {', '.join(unknown)}; there are {', '.join(BROKERS)}")
    figures: dict[str, dict[str, list[float]]] = {}
    for store in options.stores:
        with (
            tempfile.TemporaryDirectory() as folder,
            stand(Path(folder) / store, store, BROKERS[store]) as made,
        ):
            rounds = [measure_all(made, options.jobs, options.only) for _ in range(options.rounds)]
        found = defaultdict(list)
        for one in rounds:
            for name, value in one.items():
                found[name].append(value)
        figures[f"{store} and {BROKERS[store]}"] = dict(found)
    print_table(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    return 0


def measure_all(made: Stand, jobs: int, only: str | None) -> dict[str, float]:
    """One round of every measure."""
    every: dict[str, Callable[[], dict[str, float]]] = {
        "enqueue": lambda: measures.enqueue_cost(made),
        "bulk": lambda: measures.bulk_rate(made, jobs),
        "drain1": lambda: measures.drain_rate(made, jobs, 1),
        "drain2": lambda: measures.drain_rate(made, jobs, 2),
        "latency": lambda: measures.latency(made),
    }
    figures: dict[str, float] = {}
    for name, measure in every.items():
        if only is None or only in name:
            made.empty()
            figures |= measure()
            print(f"  {made.engine.dialect.name}: {name} done", file=sys.stderr)
    return figures


def print_table(figures: dict[str, dict[str, list[float]]]) -> None:
    """Print medians with the least and the greatest of the rounds."""
    print(f"\nPython {platform.python_version()} on {platform.machine()}; median (least - most)")
    print("Each round verified: every job there, succeeded, and run once.\n")
    for place, found in figures.items():
        print(place)
        for name, values in found.items():
            spread = f"{min(values):,.1f} - {max(values):,.1f}"
            print(f"  {name:38} {median(values):>12,.1f}   ({spread})")


if __name__ == "__main__":
    sys.exit(main())
