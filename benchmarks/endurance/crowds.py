"""A million other jobs: those that wait for the future, and those that have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles

from sqlalchemy import select

from pyramid_durable.store import LOOKING
from pyramid_durable.times import utcnow

from .. import measures
from ..stand import Stand
from . import filling, watching, work
from .results import Options, Result

CLAIMS = 30
"""Claims of each size whose median is a round's figure; those of the two stores alternate."""

DUE = 100

Stands = Mapping[str, Stand]
"""The empty and the full one, by name, in the order to measure them in."""


def future(options: Options) -> Result:
    """A million jobs of the future cost a daemon nothing."""
    jobs = options.jobs or 20_000
    result = _result("future", options, jobs)
    result.settings["idle seconds"] = options.idle

    def measure(stands: Stands) -> None:
        result.add(claims(stands))
        for name, made in stands.items():
            figures = life(made, jobs, options.idle)
            result.add({f"{what}, {name}": value for what, value in figures.items()})

    _paired(options, filling.fill_future, measure)
    _compare(result, "drain, jobs a second", least=0.9)
    for what in ("claim of 1, ms", f"claim of {DUE}, ms", "start, s", "latency p50, ms"):
        _compare(result, what, most=1.2)
    _compare(result, "latency p99, ms", most=1.5)
    _compare(result, "memory, MB", most=1.05)
    for name in ("empty", "full"):
        idle = median(result.figures[f"idle, % of a core, {name}"])
        result.at_most(f"idle CPU, {name},", 1, idle, " %")
    return result


def ended(options: Options) -> Result:
    """A million ended jobs that are kept cost a drain nothing."""
    jobs = options.jobs or 20_000
    result = _result("ended", options, jobs)

    def measure(stands: Stands) -> None:
        for name, made in stands.items():
            made.start_daemons(1)
            rate, ids = work.drain(made, jobs)
            made.stop_daemons()
            filling.remove(made, ids)
            result.add({f"drain, jobs a second, {name}": rate})

    _paired(options, filling.fill_ended, measure)
    _compare(result, "drain, jobs a second", least=0.9)
    return result


def _result(measure: str, options: Options, jobs: int) -> Result:
    settings = {"rows": options.rows, "jobs": jobs, "rounds": options.rounds}
    return Result(measure=measure, place=work.place(options.store), settings=settings)


def _paired(
    options: Options, fill: Callable[[Stand, int], None], measure: Callable[[Stands], None]
) -> None:
    """Measure on an empty store and on a full one, now this first, now that."""
    with work.stand_for(options.store) as empty, work.stand_for(options.store) as full:
        fill(full, options.rows)
        stands = {"empty": empty, "full": full}
        for _ in range(options.rounds):
            measure(stands)
            stands = dict(reversed(stands.items()))


def _compare(
    result: Result, what: str, *, least: float | None = None, most: float | None = None
) -> None:
    found = result.ratio(f"{what}, full", f"{what}, empty")
    name = f"{what.partition(',')[0]}, full to empty,"
    if least is not None:
        result.at_least(name, least, found)
    if most is not None:
        result.at_most(name, most, found)


def claims(stands: Stands) -> dict[str, float]:
    """What a look and a claim take, from the question to the commit, where 100 jobs are due."""
    ids = {name: work.add(made, DUE) for name, made in stands.items()}
    figures = {}
    for limit in (1, DUE):
        taken: dict[str, list[float]] = {name: [] for name in stands}
        for _ in range(CLAIMS):
            for name, made in stands.items():
                taken[name].append(claim(made, limit))
        for name, times in taken.items():
            figures[f"claim of {limit}, ms, {name}"] = median(times) * 1000
    for name, made in stands.items():
        filling.remove(made, ids[name])
    return figures


def claim(made: Stand, limit: int) -> float:
    """Look and claim as a daemon does, and give back what was claimed; the first two in seconds."""
    store = made.scheduler.store
    start = time.perf_counter()
    with store.begin(LOOKING) as connection:
        look = store.looks.look(connection, [work.QUEUE])
        found = store.claims.take(connection, "nobody", look, limit)
    taken = time.perf_counter() - start
    assert len(found) == limit, len(found)
    with store.begin() as connection:
        assert store.holdings.release(connection, found) == limit
    return taken


def life(made: Stand, jobs: int, idle: float) -> dict[str, float]:
    """One daemon's: its start, single jobs, a time without any, and a drain."""
    began = utcnow()
    made.start_daemons(1)
    daemon = made.scheduler.store.tables.daemon.c
    with made.engine.connect() as connection:
        started = connection.execute(select(daemon.started_at)).scalar_one()
    late = measures.lateness(made)
    cuts = quantiles(late.values(), n=100)
    (process,) = made.daemons
    before = watching.cpu_seconds(process.pid)
    time.sleep(idle)
    used = watching.cpu_seconds(process.pid) - before
    memory = watching.memory(process.pid)
    rate, ids = work.drain(made, jobs)
    drained = watching.memory(process.pid)
    made.stop_daemons()
    work.verified(made, list(late))
    filling.remove(made, [*ids, *late])
    return {
        "start, s": (started - began).total_seconds(),
        "latency p50, ms": cuts[49],
        "latency p99, ms": cuts[98],
        "idle, % of a core": used / idle * 100,
        "drain, jobs a second": rate,
        "memory, MB": memory,
        "memory after the drain, MB": drained,
    }
