"""python -m benchmarks.peers: this package beside its peers, in one run, on this machine."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from . import report as reports
from .chart import chart
from .contender import Contender
from .environments import environment
from .page import FIGURES, documents
from .place import check_redis
from .roster import every_contender
from .rounds import Run
from .table import lines
from .works import WORKS


def main() -> int:
    # So that what was started is ended, and what was made is dropped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    contenders = every_contender()
    options = _parse(contenders)
    report = reports.read(options.read) if options.read else measure(contenders, options)
    if options.note is not None:
        report = replace(report, note=options.note)
    print("\n".join(lines(report, WORKS, contenders)))
    if options.json:
        reports.write(report, options.json)
    if options.chart:
        options.chart.write_text(chart(report, WORKS, contenders))
    if options.docs:
        reports.write(report, FIGURES)
        for path, text in documents(report).items():
            path.write_text(text)
    return 0


def measure(contenders: list[Contender], options: argparse.Namespace) -> reports.Report:
    """Run all that was asked for."""
    chosen = [one for one in contenders if options.only is None or one.id in options.only]
    works = [one for one in WORKS if options.works is None or one.id in options.works]
    if any(contender.redis for contender in chosen):
        check_redis()
    for contender in chosen:
        environment(contender)
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    run = Run(chosen, works, options.jobs, options.most_seconds, folder)
    run.try_out()
    for number in range(options.rounds):
        run.round(number)
    if any(folder.iterdir()):
        print(f"  what failed left its logs in {folder}", file=sys.stderr)
    else:
        folder.rmdir()
    return reports.report_of(run, options.rounds)


def _parse(contenders: list[Contender]) -> argparse.Namespace:
    names = [contender.id for contender in contenders]

    def several(known: list[str]) -> Callable[[str], list[str]]:
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
    parser.add_argument("--note", help="a sentence on the circumstances, for table and page")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--chart", type=Path, help="write an SVG of them there")
    parser.add_argument(
        "--docs", action="store_true", help="write figures, chart and page into docs/"
    )
    parser.add_argument(
        "--read", type=Path, help="measure nothing; show figures of an earlier --json"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
