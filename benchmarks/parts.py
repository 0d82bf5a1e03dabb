"""python -m benchmarks.parts: where a job's microseconds go, part by part, in one process."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from webtest import TestApp

from pyramid_durable.endings import ending_of
from pyramid_durable.records import Claim
from pyramid_durable.runner import Runner
from pyramid_durable.store import LOOKING
from pyramid_durable.telling import Telling

from . import measures
from .__main__ import BROKERS
from .application import nothing
from .stand import Stand, stand

BATCH = 500
"""Jobs in a claim and in a writing of ends: what a busy daemon's have."""

OWNER = "00000000-0000-0000-0000-000000000000"


class Part(NamedTuple):
    """What one job costs in a part: µs of this process, and µs in all (the rest is waiting)."""

    name: str
    own: float
    wall: float


def best(do: Callable[[], Any], times: int, jobs: int) -> tuple[float, float]:
    """The least µs a job, of the process and in all: what is slower was disturbed."""
    own = wall = float("inf")
    for _ in range(times):
        began, used = time.perf_counter(), time.process_time()
        do()
        own = min(own, time.process_time() - used)
        wall = min(wall, time.perf_counter() - began)
    return own / jobs * 1e6, wall / jobs * 1e6


def measure(made: Stand, times: int) -> list[Part]:
    """Every part, in the order in which a job goes through them."""
    scheduler, store = made.scheduler, made.scheduler.store
    specs = [{"func": nothing}] * 1000
    parts = [Part("added, with others", *best(lambda: scheduler.add_jobs(specs), times, 1000))]
    parts.append(Part("added by itself", *best(lambda: scheduler.add_async_job(nothing), 200, 1)))
    browser = TestApp(made.app)
    browser.get("/?jobs=1")
    one, eleven = (
        best(lambda jobs=jobs: browser.get(f"/?jobs={jobs}"), 60, 1)  # type: ignore[misc]
        for jobs in (1, 11)
    )
    rest = [(many - few) / 10 for few, many in zip(one, eleven, strict=True)]
    parts.append(Part("one more in a request", rest[0], rest[1]))

    made.empty()
    measures.bulk_rate(made, times * 1000)
    claims: list[list[Claim]] = []
    runner = Runner(made.app.registry, Telling(scheduler.listeners))

    def claim() -> None:
        with store.begin(LOOKING) as connection:
            look = store.looks.look(connection, ["default"])
            claims.append(store.claims.take(connection, OWNER, look, BATCH, starting=0))

    parts.append(Part("claimed", *best(claim, times, BATCH)))

    def run() -> list[Any]:
        return [ending_of(one, runner.run(one)) for one in claims.pop()]

    ends: list[list[Any]] = []
    parts.append(Part("run: request, call", *best(lambda: ends.append(run()), times, BATCH)))

    def write() -> None:
        with store.begin() as connection:
            assert len(store.completions.write(connection, ends.pop())) == BATCH

    parts.append(Part("its end written", *best(write, times, BATCH)))
    return parts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__)
    parser.add_argument("stores", nargs="*", default=["postgresql"], metavar="STORE")
    parser.add_argument("--times", type=int, default=20, help="repetitions; the best counts (20)")
    options = parser.parse_args()
    for store in options.stores:
        with (
            tempfile.TemporaryDirectory() as folder,
            stand(Path(folder) / store, store, BROKERS[store]) as made,
        ):
            parts = measure(made, options.times)
        print(f"\n{store}: µs a job, the least of {options.times} batches of {BATCH}")
        print(f"  {'':34}{'process':>9}{'in all':>9}")
        for part in parts:
            print(f"  {part.name:34}{part.own:9.1f}{part.wall:9.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
