"""A producing process: it asks for jobs in transactions of its own, and books what it was told.

python -m tests.concurrent.producer INI STORE_PORT FOLDER NAME SEED RATE
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zope.sqlalchemy
from pyramid.paster import get_app, setup_logging
from pyramid.scripting import prepare
from sqlalchemy.exc import DBAPIError

from . import application
from .book import COMMITTED, ROLLED_BACK, UNKNOWN, Book, Entry

log = logging.getLogger(__name__)

LARGEST = 12
"""Jobs in one transaction."""

ROLL_BACK = 0.15
"""The share of transactions that the application itself rolls back."""

ALONE = 0.1
"""The share of jobs that are asked for outside of any transaction."""

DEADLY_EVERY = 40
"""Transactions between two jobs that kill their daemon; each costs a restart of some seconds."""

POISON_EVERY = 4
"""Every so many of them is one that never stops killing."""


@dataclass
class Wish:
    """A job to be asked for."""

    entry: Entry
    func: Any
    args: list[Any] = field(default_factory=list)
    delay: float | None = None
    cancel_after: float | None = None

    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"func": self.func, "args": self.args, "name": self.entry.key}
        if self.delay is not None:
            spec["date"] = f"{self.delay:.3f}s"
        return spec

    def ask(self, scheduler: Any) -> str:
        spec = self.spec()
        if self.delay is None:
            return str(scheduler.add_async_job(spec.pop("func"), **spec))
        return str(scheduler.add_date_job(spec.pop("func"), spec.pop("date"), **spec))


class Producer:
    """Asks until it is told to stop."""

    def __init__(self, registry: Any, book: Book, name: str, seed: str, rate: float) -> None:
        self._registry = registry
        self._book = book
        self._name = name
        self._rng = random.Random(f"{seed}-{name}")
        self._rate = rate
        self._number = itertools.count(1)
        self._to_cancel: list[tuple[float, str]] = []
        self.stop = threading.Event()

    def run(self) -> None:
        for turn in itertools.count(1):
            if self._rng.random() < ALONE:
                self._alone()
            else:
                self._transact(turn)
            self._cancel_some()
            if self.stop.wait(self._rng.expovariate(self._rate)):
                return

    def _transact(self, turn: int) -> None:
        wishes = [self._wish() for _ in range(self._rng.randint(1, LARGEST))]
        if turn % DEADLY_EVERY == DEADLY_EVERY // 2:
            poison = (turn // DEADLY_EVERY) % POISON_EVERY == POISON_EVERY - 1
            wishes.append(self._deadly(poison))
        rolls_back = self._rng.random() < ROLL_BACK
        at_once = self._rng.random() < 0.5
        entries = [wish.entry for wish in wishes]
        self._book.asking(entries)
        with prepare(registry=self._registry) as env:
            request = env["request"]
            try:
                request.tm.begin()
                ids = self._ask(request, wishes, at_once)
                if rolls_back:
                    raise RolledBackOnPurpose
            except Exception as error:
                self._book.told(entries, ROLLED_BACK, repr(error))
                _abort(request)
                return
            try:
                request.tm.commit()
            except Exception as error:
                self._book.told(entries, UNKNOWN, repr(error))
                _abort(request)
                return
        self._book.told(entries, COMMITTED)
        now = time.monotonic()
        for wish, id in zip(wishes, ids, strict=True):
            if wish.cancel_after is not None:
                self._to_cancel.append((now + wish.cancel_after, id))

    def _ask(self, request: Any, wishes: list[Wish], at_once: bool) -> list[str]:
        """Write the request's own rows and ask for the jobs, in one transaction."""
        if at_once:
            ids = request.scheduler.add_jobs([wish.spec() for wish in wishes])
        else:
            ids = [wish.ask(request.scheduler) for wish in wishes]
        rows = [
            {"asked_key": wish.entry.key, "job": id} for wish, id in zip(wishes, ids, strict=True)
        ]
        request.dbsession.execute(application.asked.insert(), rows)
        zope.sqlalchemy.mark_changed(request.dbsession, transaction_manager=request.tm)
        return list(ids)

    def _alone(self) -> None:
        wish = self._wish(in_request=False)
        self._book.asking([wish.entry])
        try:
            wish.ask(self._registry.scheduler)
        except Exception as error:
            self._book.told([wish.entry], UNKNOWN, repr(error))
        else:
            self._book.told([wish.entry], COMMITTED)

    def _cancel_some(self) -> None:
        now = time.monotonic()
        due = [id for at, id in self._to_cancel if at <= now]
        self._to_cancel = [pair for pair in self._to_cancel if pair[0] > now]
        for id in due:
            try:
                self._registry.scheduler.cancel_job(id)
            except Exception as error:
                log.warning("cancelling %s: %r", id, error)

    def _wish(self, in_request: bool = True) -> Wish:
        kind = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        rng = self._rng
        entry = Entry(key=self._key(kind), kind=kind, in_request=in_request)
        if kind == "nap":
            return Wish(
                entry, application.nap, [round(rng.uniform(0.1, 1.5), 2), rng.random() < 0.5]
            )
        if kind == "again":
            failures = rng.randint(1, 3)
            entry = Entry(**{**vars(entry), "attempts": failures + 1})
            return Wish(entry, application.again, [failures])
        if kind == "fail":
            return Wish(Entry(**{**vars(entry), "attempts": application.FAILS}), application.fail)
        if kind == "stoppable":
            seconds, after = round(rng.uniform(0.5, 2.5), 2), rng.uniform(0.0, 2.0)
            return Wish(entry, application.stoppable, [seconds], cancel_after=after)
        if kind == "outside":
            return Wish(entry, application.outside)
        delay = rng.uniform(0.1, 3.0) if kind == "later" else None
        return Wish(entry, application.note, delay=delay)

    def _deadly(self, poison: bool) -> Wish:
        kind = "poison" if poison else "deadly"
        entry = Entry(key=self._key(kind), kind=kind)
        return Wish(entry, application.deadly, [10**6 if poison else 1])

    def _key(self, kind: str) -> str:
        return f"{self._name}.{next(self._number)}.{kind}"


WEIGHTS = {
    "note": 45,
    "later": 10,
    "nap": 8,
    "again": 10,
    "fail": 8,
    "stoppable": 7,
    "outside": 12,
}


def _abort(request: Any) -> None:
    """Roll back; where the connection is gone, the server does."""
    with contextlib.suppress(DBAPIError):
        request.tm.abort()


class RolledBackOnPurpose(Exception):
    """The application's own reason to roll back."""


def main(argv: list[str]) -> int:
    ini, store_port, folder, name, seed, rate = argv
    setup_logging(ini)
    registry = get_app(ini, options={"store_port": store_port}).registry
    with Book(Path(folder) / f"{name}.book") as book:
        producer = Producer(registry, book, name, seed, float(rate))
        signal.signal(signal.SIGTERM, lambda number, frame: producer.stop.set())
        producer.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
