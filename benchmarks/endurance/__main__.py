"""python -m benchmarks.endurance: what has to hold with millions of jobs and for hours."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from .crowds import ended, future
from .daemons import daemons
from .memory import memory
from .overload import overload
from .results import Options, Result, print_result, write_results
from .soak import soak
from .work import BROKERS

MEASURES: dict[str, Callable[[Options], Result]] = {
    measure.__name__: measure for measure in (future, ended, daemons, memory, soak, overload)
}


def main() -> int:
    told = "\n".join(f"  {name:10}{measure.__doc__}" for name, measure in MEASURES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.endurance",
        description=f"{__doc__}\n\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("measures", nargs="+", metavar="NAME", help="which, or all")
    parser.add_argument("--store", choices=BROKERS, default="postgresql")
    parser.add_argument("--rows", type=int, default=1_000_000, help="other jobs (1000000)")
    parser.add_argument("--jobs", type=int, help="jobs to run (the measure's own default)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (3)")
    parser.add_argument("--seconds", type=float, help="how long (the measure's own default)")
    parser.add_argument("--rate", type=float, help="jobs a second (the measure's own default)")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds without a job (30)")
    parser.add_argument("--daemons", type=int, help="how many (the measure's own default)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    names = list(MEASURES) if given.measures == ["all"] else given.measures
    unknown = set(names) - set(MEASURES)
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    options = Options(**{one.name: getattr(given, one.name) for one in fields(Options)})
    results = []
    for name in names:
        results.append(MEASURES[name](options))
        print_result(results[-1])
        if given.json:
            write_results(given.json, results)
    return 0 if all(goal.met for result in results for goal in result.goals) else 1


if __name__ == "__main__":
    sys.exit(main())
