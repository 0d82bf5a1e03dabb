"""Jobs for a stand: adding them, having them run, and seeing that each ran once."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import and_, exists, func, or_, select

from ..application import nothing
from ..stand import Stand, stand, wait_for

QUEUE = "default"
PRIORITY = 5
AT_A_TIME = 1000
TICK = 0.05
"""Seconds between two batches of jobs that are added steadily."""

BROKERS = {"postgresql": "amqp", "mariadb": "redis", "sqlite": "embedded"}


Kind = TypeVar("Kind")


class Span(NamedTuple):
    """When the first of some jobs started and the last one ended."""

    first: datetime
    last: datetime

    @property
    def seconds(self) -> float:
        return (self.last - self.first).total_seconds()


@contextmanager
def stand_for(store: str) -> Iterator[Stand]:
    """A stand in a folder of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        stand(Path(folder) / store, store, BROKERS[store]) as made,
    ):
        yield made


def place(store: str) -> str:
    """The store and its broker, in words."""
    return f"{store} and {BROKERS[store]}"


def parts(many: Sequence[Kind], size: int = AT_A_TIME) -> Iterator[Sequence[Kind]]:
    """Divide ids, or new jobs, into what one statement takes."""
    for begin in range(0, len(many), size):
        yield many[begin : begin + size]


def add(made: Stand, jobs: int, **spec: Any) -> list[str]:
    """Add so many empty jobs, or others; returns their ids."""
    specs = [{"func": nothing, **spec}] * jobs
    return [id for part in parts(specs) for id in made.scheduler.add_jobs(part)]


def add_steadily(
    made: Stand,
    rate: float,
    seconds: float,
    spec: Mapping[str, Any],
    look: Callable[[], None],
    every: float,
) -> list[str]:
    """Add jobs at this rate (a second) for so long, and look now and then; returns their ids.

    Who falls behind makes up for it with larger batches.
    """
    ids: list[str] = []
    looked = 0
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        if passed >= looked * every:
            looked += 1
            look()
        ids += add(made, int(passed * rate) - len(ids), **spec)
        next_tick = (passed // TICK + 1) * TICK
        time.sleep(max(0.0, began + next_tick - time.monotonic()))
    return ids


def wait_until_idle(
    made: Stand, meanwhile: Callable[[], None] = lambda: None, every: float = 0.1
) -> None:
    """Wait until no job is due, claimed or running; two probes of indexes, in one snapshot."""
    store = made.scheduler.store
    c = store.tables.job.c
    now = store.dialect.now()
    due = exists().where(and_(c.queue == QUEUE, c.priority == PRIORITY, c.due_at <= now))
    question = select(or_(due, exists().where(c.owner.is_not(None))))

    def is_idle() -> bool:
        meanwhile()
        with store.read() as connection:
            return not connection.execute(question).scalar_one()

    wait_for("the jobs", is_idle, every=every)


def verified(made: Stand, ids: Sequence[str]) -> Span:
    """See that each of these jobs is there, has succeeded, and was run once."""
    c = made.scheduler.store.tables.job.c
    firsts: list[datetime] = []
    lasts: list[datetime] = []
    ran = (func.count(), func.min(c.attempt), func.max(c.attempt))
    with made.engine.connect() as connection:
        for part in parts(ids):
            question = select(*ran, func.min(c.started_at), func.max(c.finished_at))
            question = question.where(c.id.in_(part), c.state == "succeeded")
            *found, first, last = connection.execute(question).one()
            assert found == [len(part), 1, 1], found
            firsts.append(first)
            lasts.append(last)
    assert len(set(ids)) == len(ids)
    return Span(min(firsts), max(lasts))


def drain(made: Stand, jobs: int) -> tuple[float, list[str]]:
    """Have the running daemons run so many empty jobs; gives the jobs a second, and their ids.

    The queue is paused while they are added, so that all daemons begin at once.
    """
    made.scheduler.pause_queue(QUEUE)
    ids = add(made, jobs)
    made.scheduler.resume_queue(QUEUE)
    wait_until_idle(made)
    return jobs / verified(made, ids).seconds, ids
