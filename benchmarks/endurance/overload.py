"""More jobs than the daemons can run: they wait in the store, and nowhere else."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import datetime

from sqlalchemy import func, select

from pyramid_durable.pacing import Pace, buffer_size

from ..stand import Stand
from . import ledger, watching, work
from .results import Options, Result

JOB = 0.005
"""Seconds that a job takes: ten threads run 2,000 a second at most."""

THREADS = 10
"""Of a daemon, by default."""

FACTOR = 2.0
"""How many times what the daemons could run at best is asked for."""

BACKLOG = 1000
"""Jobs that have to wait when the producers stop; else it was no overload."""

HONEST = 0.05
"""Seconds by which the age that ``stats`` tells may lie outside of what is possible, after what a
question of our own said before it and another one after it."""


def overload(options: Options) -> Result:
    """Asked for twice what they can run, daemons stay small, and all is run in the end."""
    number, seconds = options.daemons or 2, options.seconds or 30.0
    rate = options.rate or FACTOR * number * THREADS / JOB
    settings = {"daemons": number, "seconds": seconds, "asked for a second": round(rate)}
    result = Result(measure="overload", place=work.place(options.store), settings=settings)
    samples: dict[str, list[float]] = defaultdict(list)
    with work.stand_for(options.store) as made:
        made.start_daemons(number)
        book = made.ini.with_name("ledger")
        spec = {"func": ledger.noted, "args": [str(book), JOB]}

        def look() -> None:
            for name, value in sample(made).items():
                samples[name].append(value)

        began = time.time()
        ids = work.add_steadily(made, rate, seconds, spec, look, every=1.0)
        stopped = time.time()
        look()
        behind = samples["waiting"][-1]
        work.wait_until_idle(made, look, every=1.0)
        made.stop_daemons()
        last = work.verified(made, ids).last.timestamp()
        ledger.check(book, ids)
    result.add(
        {
            "asked for, jobs a second": len(ids) / (stopped - began),
            "run, jobs a second": len(ids) / (last - began),
            "waiting when the producers stopped": behind,
            "drained after, s": last - stopped,
        }
    )
    result.at_least("jobs waiting when the producers stopped,", BACKLOG, behind)
    _judge(result, samples, number)
    return result


def sample(made: Stand) -> dict[str, float]:
    """What can be seen at a moment: of the daemons, in the store, and as ``stats`` tells it."""
    store = made.scheduler.store
    c = store.tables.job.c
    with store.read() as connection:
        waiting = select(func.count()).where(c.due_at.is_not(None))
        # Some of these have started, or even ended, and are about to be written.
        unstarted = select(func.count()).where(c.owner.is_not(None), c.started_at.is_(None))
        found = {
            "waiting": float(connection.execute(waiting).scalar_one()),
            "unstarted": float(connection.execute(unstarted).scalar_one()),
        }
    began, before = time.monotonic(), oldest(made)
    told = made.scheduler.stats().queues[work.QUEUE].oldest_due or 0.0
    after, spent = oldest(made), time.monotonic() - began
    # The oldest one gets older with the clock, and younger only when it is claimed.
    off = max(told - (before + spent), after - spent - told, 0.0)
    memory = sum(watching.memory(process.pid) for process in made.daemons)
    return {**found, "oldest": told, "off": off, "memory": memory, "at": time.monotonic()}


def oldest(made: Stand) -> float:
    """The age of the oldest due job in seconds, 0 where none is: a plain question of our own."""
    store = made.scheduler.store
    with store.read() as connection:
        now = store.now(connection)
        c = store.tables.job.c
        due: datetime | None = connection.execute(select(func.min(c.due_at))).scalar_one()
    return 0.0 if due is None else max(0.0, (now - due).total_seconds())


def _judge(result: Result, samples: dict[str, list[float]], daemons: int) -> None:
    size = watching.growth(samples["at"], samples["memory"])
    result.add(
        {
            "oldest due job at most, s": max(samples["oldest"]),
            "what stats told was off by at most, s": max(samples["off"]),
            "claimed, start not noted, at most": max(samples["unstarted"]),
            "memory of the daemons at the start, MB": size.start,
            "memory of the daemons at the end, MB": size.end,
        }
    )
    result.at_most("what stats told off by", HONEST, max(samples["off"]), " s")
    # What waits in a daemon, as much again that has run and is being written, and what runs.
    buffered = buffer_size(Pace(seconds=JOB), moving=THREADS)
    result.at_most(
        "jobs claimed whose start is not noted,",
        daemons * (2 * buffered + THREADS),
        max(samples["unstarted"]),
    )
    result.at_most("rise of the memory", 10, (size.end / size.start - 1) * 100, " %")
