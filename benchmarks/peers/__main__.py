"""python -m benchmarks.peers: this package beside its peers, in one run, on this machine."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from . import report as reports
from .contender import Contender
from .roster import every_contender
from .environments import environment
from .rounds import Run
from .table import lines
from .works import WORKS


def main() -> int:
    contenders = every_contender()
    options = _parse(contenders)
    chosen = [one for one in contenders if options.only is None or one.id in options.only]
    works = [one for one in WORKS if options.works is None or one.id in options.works]
    for contender in chosen:
        environment(contender)
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    run = Run(chosen, works, options.jobs, options.most_seconds, folder)
    run.try_out()
    for number in range(options.rounds):
        run.round(number)
    report = reports.report_of(run, options.rounds)
    print("\n".join(lines(report, works, chosen)))
    if options.json:
        reports.write(report, options.json)
    return 0


def _parse(contenders: list[Contender]) -> argparse.Namespace:
    names = [contender.id for contender in contenders]

    def several(known: list[str]) -> object:
        def split(text: str) -> list[str]:
            unknown = [name for name in text.split(",") if name not in known]
            if unknown:
                raise argparse.ArgumentTypeError(
                    f"unknown: {', '.join(unknown)}; there are {', '.join(known)}"
                )
            return text.split(",")

        return split

    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", type=several(names), help=f"of {', '.join(names)}")
    works = [work.id for work in WORKS]
    parser.add_argument("--works", type=several(works), help=f"of {', '.join(works)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each work (3)")
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs to drain (10000)")
    parser.add_argument(
        "--most-seconds",
        type=float,
        default=60,
        help="a contender that would take longer for a work is given fewer jobs (60)",
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
