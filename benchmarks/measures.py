"""The measurements: each returns one figure of one round, after it has verified the work."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import datetime, timezone
from statistics import quantiles

from sqlalchemy import func, select
from webtest import TestApp

from .application import nothing
from .stand import Stand, wait_for

REQUESTS = 150
JOBS_A_REQUEST = 10
PROBES = 200
PAUSE = 0.02
"""Seconds between two probes of the latency: the daemon is idle again by then."""


def enqueue_cost(stand: Stand) -> dict[str, float]:
    """What one job adds to a request that writes and commits anyway, in µs."""
    browser = TestApp(stand.app)
    browser.get("/?jobs=1")
    plain = with_jobs = 0.0
    for _ in range(REQUESTS):
        start = time.perf_counter()
        browser.get("/?jobs=0")
        middle = time.perf_counter()
        browser.get(f"/?jobs={JOBS_A_REQUEST}")
        plain += middle - start
        with_jobs += time.perf_counter() - middle
    (found,) = stand.ask("SELECT count(*) FROM durable_job")
    assert found == REQUESTS * JOBS_A_REQUEST + 1, found
    cost = (with_jobs - plain) / (REQUESTS * JOBS_A_REQUEST)
    return {"enqueue in a request, µs a job": cost * 1e6}


def bulk_rate(stand: Stand, jobs: int) -> dict[str, float]:
    """How many jobs a second ``add_jobs`` takes, in batches of a thousand."""
    specs = [{"func": nothing}] * 1000
    start = time.perf_counter()
    for _ in range(jobs // len(specs)):
        stand.scheduler.add_jobs(specs)
    spent = time.perf_counter() - start
    (found,) = stand.ask("SELECT count(*) FROM durable_job")
    assert found == jobs // len(specs) * len(specs), found
    return {"add_jobs, jobs a second": found / spent}


def drain_rate(stand: Stand, jobs: int, daemons: int) -> dict[str, float]:
    """How many waiting empty jobs a second the daemons run, first start to last end."""
    stand.empty()
    bulk_rate(stand, jobs)
    stand.start_daemons(daemons)
    ended = "SELECT count(*) FROM durable_job WHERE state = 'succeeded'"
    wait_for("the jobs", lambda: stand.ask(ended)[0] == jobs, every=0.1)
    stand.stop_daemons()
    once = "SELECT count(*), count(DISTINCT id), sum(attempt), max(attempt) FROM durable_job"
    assert tuple(map(int, stand.ask(once))) == (jobs, jobs, jobs, 1)
    job = stand.scheduler.store.tables.job.c
    with stand.engine.connect() as connection:
        started = select(job.started_at).order_by(job.started_at).limit(1)
        finished = select(job.finished_at).order_by(job.finished_at.desc()).limit(1)
        first = connection.execute(started).scalar_one()
        last = connection.execute(finished).scalar_one()
    name = f"drain with {daemons} daemon{'s' if daemons > 1 else ''}, jobs a second"
    return {name: jobs / (last - first).total_seconds()}


def latency(stand: Stand) -> dict[str, float]:
    """From the commit to the start of the job on an idle daemon, in ms."""
    stand.empty()
    stand.start_daemons(1)
    cuts = quantiles(lateness(stand).values(), n=100)
    stand.stop_daemons()
    return {"latency p50, ms": cuts[49], "latency p99, ms": cuts[98]}


def lateness(stand: Stand) -> dict[str, float]:
    """Of single jobs on idle daemons, by their ids: from the commit to the start, in ms."""
    store = stand.scheduler.store
    job = store.tables.job.c

    def ended(ids: Collection[str]) -> bool:
        question = select(func.count()).where(job.id.in_(ids), job.state == "succeeded")
        with store.read() as connection:
            return bool(connection.execute(question).scalar_one() == len(ids))

    first = stand.scheduler.add_async_job(nothing)
    wait_for("the first job", lambda: ended([first]))
    committed: dict[str, datetime] = {}
    for _ in range(PROBES):
        id = stand.scheduler.add_async_job(nothing)
        committed[id] = datetime.now(timezone.utc)
        time.sleep(PAUSE)
    wait_for("the jobs", lambda: ended(committed))
    question = select(job.id, job.started_at).where(job.id.in_(committed))
    with stand.engine.connect() as connection:
        started = dict(tuple(row) for row in connection.execute(question))
    return {id: (started[id] - at).total_seconds() * 1000 for id, at in committed.items()}
