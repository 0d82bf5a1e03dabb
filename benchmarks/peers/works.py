"""The works that every contender does; each returns its figures of one round, verified."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import quantiles

from .bench import Bench, Failure, Producer
from .contender import Contender

Figures = dict[str, float]

WARM = 50
PROBES = 300
PAUSE = 0.02
"""Seconds between two probes, or until the last has started: each finds the workers idle."""
EARLY = 0.05
"""Seconds before its time at which a job counts as run too early; clocks are compared."""
LEAD = 3.0
"""Seconds between the last job of a burst enqueued and the instant all are due."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A work, and how its figures are shown."""

    id: str
    about: str
    figures: dict[str, str]
    """The figures' names, with their units."""
    measure: Callable[[Bench, int], Figures]
    jobs: Callable[[int], int]
    """How many jobs it takes, of the number asked for on the command line."""
    by_rate: bool = False
    """Its figures are jobs a second: more is better, and a slow contender may be given fewer jobs."""
    more_than: Callable[[int], int] = lambda jobs: 0
    """Jobs that another work has already; whoever cannot be given more is left out."""
    suits: Callable[[Contender], bool] = lambda contender: True


def fill(bench: Bench, producer: Producer, jobs: int, first: int = 0) -> float:
    """Enqueue as fast as it can; seconds."""
    do = "many" if bench.contender.bulk else "each"
    return float(producer.ask(do, first=first, count=jobs)["seconds"])


def drain(bench: Bench, jobs: int) -> Figures:
    """Jobs wait; then the workers start. From the first start until all have ended, in its record too."""
    with bench.producer() as producer:
        fill(bench, producer, jobs)
    return {"rate": _run_all(bench, jobs)}


def trial(bench: Bench, jobs: int) -> Figures:
    """Rates of enqueueing and draining, roughly, and not verified."""
    with bench.producer() as producer:
        seconds = fill(bench, producer, jobs)
    bench.start_workers()
    ended = bench.wait_for_all(jobs)
    return {"filling": jobs / seconds, "draining": jobs / (ended - min(bench.witness.starts))}


def enqueue(bench: Bench, jobs: int) -> Figures:
    """One call a job, each its own commit; then they are run, so that none was lost."""
    with bench.producer() as producer:
        producer.ask("each", first=0, count=1)
        seconds = producer.ask("each", first=1, count=jobs - 1)["seconds"]
    _run_all(bench, jobs)
    return {"rate": (jobs - 1) / seconds}


def bulk(bench: Bench, jobs: int) -> Figures:
    """Its own call for many, a thousand at a time; then they are run."""
    with bench.producer() as producer:
        producer.ask("many", first=0, count=1)
        seconds = producer.ask("many", first=1, count=jobs - 1)["seconds"]
    _run_all(bench, jobs)
    return {"rate": (jobs - 1) / seconds}


def request(bench: Bench, jobs: int) -> Figures:
    """What a job adds to a web request that writes and commits anyway."""
    with bench.producer() as producer:
        return {"cost": producer.ask("request_cost")["microseconds"]}


def latency(bench: Bench, jobs: int) -> Figures:
    """From just before the call that enqueues (its commit is in it) to the start, workers idle."""
    with bench.producer(live=True) as producer:
        _warm_up(bench, producer)
        asked = producer.ask("probe", first=WARM, count=jobs - WARM, pause=PAUSE)["asked"]
        bench.wait_for_all(jobs)
    bench.stop_workers()
    bench.verify(jobs)
    starts = bench.witness.starts.tolist()[WARM:]
    late = [(start - at) * 1000 for start, at in zip(starts, asked, strict=True)]
    cuts = quantiles(late, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


def burst(bench: Bench, jobs: int) -> Figures:
    """All due at one instant, enqueued beforehand to idle workers; lateness of the start."""
    with bench.producer(live=True) as producer:
        _warm_up(bench, producer)
        first, count = WARM, jobs - WARM
        # How long will that take? A tenth of it, due at once, tells.
        tenth = count // 10
        begun = time.time()
        producer.ask("at", first=first, count=tenth, when=begun)
        lead = (time.time() - begun) * 10 * 1.5 + LEAD
        bench.wait_until("run", bench.witness.ran, first + tenth)
        first, count = first + tenth, count - tenth
        # Some know whole seconds only.
        when = math.ceil(time.time() + lead)
        ended = producer.ask("at", first=first, count=count, when=when)["ended"]
        if ended > when:
            raise Failure(f"enqueueing took {ended - when:.0f} s longer than its first tenth told")
        bench.wait_for_all(jobs)
    bench.stop_workers()
    bench.verify(jobs)
    late = [start - when for start in bench.witness.starts.tolist()[first:]]
    if (early := sum(1 for seconds in late if seconds < -EARLY)) != 0:
        raise Failure(f"{early} of {count} jobs ran before their time")
    return {"p99": quantiles(late, n=100)[98]}


def _run_all(bench: Bench, jobs: int) -> float:
    """Run what waits; jobs a second from the first start on."""
    bench.start_workers()
    ended = bench.wait_for_all(jobs)
    bench.stop_workers()
    bench.verify(jobs)
    return jobs / (ended - min(bench.witness.starts))


def _warm_up(bench: Bench, producer: Producer) -> None:
    """Start the workers, and let them run a first job and some more, which do not count."""
    bench.start_workers()
    producer.ask("each", first=0, count=1)
    bench.wait_until("run", bench.witness.ran, 1)
    producer.ask("probe", first=1, count=WARM - 1, pause=PAUSE)
    bench.wait_until("run", bench.witness.ran, WARM)


RATE = {"rate": "jobs a second"}

WORKS = [
    Work(
        id="drain",
        about="waiting empty jobs run by two worker processes",
        figures=RATE,
        measure=drain,
        jobs=lambda jobs: jobs,
        by_rate=True,
    ),
    Work(
        id="backlog",
        about="ten times as many jobs waiting",
        figures=RATE,
        measure=drain,
        jobs=lambda jobs: jobs * 10,
        more_than=lambda jobs: jobs,
        by_rate=True,
    ),
    Work(
        id="enqueue",
        about="jobs enqueued one by one, each its own commit",
        figures=RATE,
        measure=enqueue,
        jobs=lambda jobs: max(jobs // 5, 10),
        by_rate=True,
    ),
    Work(
        id="bulk",
        about="jobs enqueued a thousand at a time",
        figures=RATE,
        measure=bulk,
        suits=lambda contender: contender.bulk,
        jobs=lambda jobs: jobs,
        by_rate=True,
    ),
    Work(
        id="request",
        about="one more job in a web request that commits anyway",
        figures={"cost": "µs"},
        measure=request,
        suits=lambda contender: contender.requests,
        jobs=lambda jobs: 1,
    ),
    Work(
        id="latency",
        about="asked for to started, workers idle",
        figures={"p50": "p50, ms", "p99": "p99, ms"},
        measure=latency,
        jobs=lambda jobs: WARM + PROBES,
    ),
    Work(
        id="burst",
        about="jobs due at one instant: lateness of their start",
        figures={"p99": "p99, s"},
        measure=burst,
        jobs=lambda jobs: WARM + max(jobs // 2, 100),
    ),
]
