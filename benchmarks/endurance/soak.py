"""Ten minutes at a steady rate: nothing may grow."""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import median, quantiles

from ..stand import Stand
from . import ledger, watching, work
from .results import Options, Result

WARM = 0.1
"""The share of the time that does not count: the daemons warm up, the table is small."""

WINDOWS = 50
"""Samples, and windows of lateness, over the whole time."""

ROUNDING = {
    "lateness p50, ms": 2.0,
    "lateness p99, ms": 10.0,
    "connections": 1.0,
    "open files": 2.0,
}
"""What a figure may rise by, whatever its start: a share of almost nothing says nothing."""

SHARE = 0.05
"""What memory may rise by; lateness by SHARE_LATE."""

SHARE_LATE = 0.25


def soak(options: Options) -> Result:
    """At half of what it can do, nothing grows: lateness, memory, connections, open files."""
    seconds, number = options.seconds or 600.0, options.daemons or 1
    with work.stand_for(options.store) as made:
        made.start_daemons(number)
        rate = options.rate or capacity(made, options.jobs or 20_000) / 2
        settings = {"seconds": seconds, "jobs a second": round(rate), "daemons": number}
        result = Result(measure="soak", place=work.place(options.store), settings=settings)
        book = made.ini.with_name("ledger")
        spec = {"func": ledger.noted, "args": [str(book)]}
        samples: dict[str, list[float]] = defaultdict(list)

        def sample() -> None:
            pids = [process.pid for process in made.daemons]
            samples["time"].append(time.time())
            samples["memory, MB"].append(sum(map(watching.memory, pids)))
            samples["open files"].append(sum(map(watching.open_files, pids)))
            samples["connections"].append(watching.connections(made))

        began = time.time()
        ids = work.add_steadily(made, rate, seconds, spec, sample, every=seconds / WINDOWS)
        work.wait_until_idle(made)
        made.stop_daemons()
        work.verified(made, ids)
        entries = ledger.check(book, ids)
    result.add({"jobs run": float(len(ids))})
    begin, end = began + seconds * WARM, began + seconds
    times = samples.pop("time")
    kept = [index for index, at in enumerate(times) if begin <= at <= end]
    for name, values in samples.items():
        if any(values):
            _judge(result, name, [times[at] for at in kept], [values[at] for at in kept])
    _judge_lateness(result, entries, begin, end)
    return result


def capacity(made: Stand, jobs: int) -> float:
    """Jobs a second from the first one asked for to the last one's end, as they are asked for."""
    book = made.ini.with_name("capacity")
    began = time.time()
    ids: list[str] = []
    while len(ids) < jobs:
        ids += work.add(made, 100, func=ledger.noted, args=[str(book)])
    work.wait_until_idle(made)
    span = work.verified(made, ids)
    ledger.check(book, ids)
    return jobs / (span.last.timestamp() - began)


def _judge(result: Result, name: str, times: list[float], values: list[float]) -> None:
    found = watching.growth(times, values)
    result.add(
        {
            f"{name}, at the start": found.start,
            f"{name}, at the end": found.end,
            f"{name}, growth an hour": found.slope * 3600,
        }
    )
    share = SHARE_LATE if name.startswith("lateness") else SHARE
    allowed = max(found.start * share, ROUNDING.get(name, 0.0))
    # What grows shows in both; a slow minute somewhere only in one.
    result.at_most(f"rise of {name},", round(allowed, 2), min(found.end - found.start, found.rise))


def _judge_lateness(result: Result, entries: list[ledger.Entry], begin: float, end: float) -> None:
    windows: dict[int, list[float]] = defaultdict(list)
    width = (end - begin) / WINDOWS
    for entry in entries:
        if begin <= entry.at < end:
            windows[int((entry.at - begin) / width)].append(entry.late * 1000)
    times = [begin + (window + 0.5) * width for window in sorted(windows)]
    rows = [windows[window] for window in sorted(windows)]
    _judge(result, "lateness p50, ms", times, [median(row) for row in rows])
    _judge(result, "lateness p99, ms", times, [quantiles(row, n=100)[98] for row in rows])
