"""What the tests of outages share: servers to break, jobs asked for all the while, what is left."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyramid.paster import bootstrap
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.concurrent.servers import Server, own_mariadb, own_postgres, postgres_binaries
from tests.services import missing

from .application import note, note_and_nap
from .deployment import Deployment, wait_for

APPLICATION = "tests.processes.application:main"

LIMITS = {
    "scheduler__heartbeat": "300ms",
    "scheduler__lease": "3s",
    "scheduler__poll_interval": "300ms",
    "scheduler__threads": "4",
    # A job that loses its connection again and again is suspected; here it is the test that cuts.
    "scheduler__poison_limit": "50",
}

NAP = 0.2
"""Seconds that some jobs take, so that an outage finds them at work."""


@contextmanager
def own_server(kind: str) -> Iterator[Server]:
    """A database that may be broken; where its programs are not installed the test is skipped."""
    if kind == "postgresql":
        if (binaries := postgres_binaries()) is not None:
            with own_postgres(binaries) as server:
                yield server
            return
    else:
        install, binary = shutil.which("mariadb-install-db"), find_mariadbd()
        if install is not None and binary is not None:
            with own_mariadb(install, binary) as server:
                yield server
            return
    missing(f"a server of {kind} to break: its programs are not installed here")


def find_mariadbd() -> str | None:
    """Where the server is: mostly not on the PATH of a user."""
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")


def tell(url: str, *commands: str) -> None:
    """Tell a server something, as its administrator."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for command in commands:
            connection.execute(text(command))


class Pump:
    """Asks for one job after the other from this process, whatever becomes of the store.

    One in ``nap_every`` takes a while, with its effect written and not committed; 0 is none.
    ``asked`` has the ids of those that the store has confirmed. What failed may be there or not.
    """

    def __init__(self, app: Deployment, *, pause: float = 0.02, nap_every: int = 5) -> None:
        self.asked: list[str] = []
        self.failed = 0
        self._app = app
        self._pause = pause
        self._nap_every = nap_every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="pump", daemon=True)

    def __enter__(self) -> Pump:
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stop.set()
        self._thread.join(30)

    def goes_on(self, jobs: int = 10) -> None:
        """Wait until some more have been asked for."""
        enough = len(self.asked) + jobs
        wait_for("jobs to be asked for", lambda: len(self.asked) >= enough)

    def _ask(self) -> None:
        with bootstrap(str(self._app.ini), options=self._app.variables) as environment:
            scheduler = environment["registry"].scheduler
            number = 0
            while not self._stop.wait(self._pause):
                number += 1
                func, args = note, [number]
                if self._nap_every and number % self._nap_every == 0:
                    func, args = note_and_nap, [number, NAP]
                try:
                    self.asked.append(scheduler.add_async_job(func, args=args))
                except Exception:
                    self.failed += 1


UNENDED = "SELECT count(*) FROM durable_job WHERE state IN ('scheduled', 'running')"


def wait_for_the_end(app: Deployment) -> None:
    def ended() -> bool:
        with suppress(Exception):  # the first connections may be dead ones
            return app.ask(UNENDED) == [(0,)]
        return False

    wait_for("all jobs to end", ended)


def check_exactly_once(app: Deployment, asked: list[str]) -> None:
    """Every job that was confirmed is there; each has run once, in its first attempt."""
    jobs = app.ask("SELECT id, state, attempt FROM durable_job")
    strange = [row for row in jobs if row[1:] != ("succeeded", 1)]
    assert not strange, f"{len(strange)} of {len(jobs)} did not succeed at once: {strange[:5]}"
    ids = {id for id, _, _ in jobs}
    assert ids >= set(asked), "confirmed, and lost"
    ran = Counter(id for (id,) in app.ask("SELECT job FROM ran"))
    assert ran == Counter(ids), "not exactly once"


class Book:
    """A process's log, read from where it was last looked at."""

    def __init__(self, app: Deployment, name: str) -> None:
        self._app = app
        self._name = name
        self._seen = 0

    def new(self) -> list[str]:
        """What has been written since, a record a line (tracebacks and the like left out)."""
        year = time.strftime("%Y-")
        text = self._app.log(self._name)[self._seen :]
        return [line for line in text.splitlines() if line.startswith(year)]

    def own(self) -> list[str]:
        """The same without what is said of single jobs."""
        return [line for line in self.new() if "[pyramid_durable.runner]" not in line]

    def turn_over(self) -> None:
        """Read on from here."""
        self._seen = len(self._app.log(self._name))

    def waits(self, text: str, deadline: float = 30.0) -> None:
        """Wait until this is in it."""
        wait_for(f"{text!r} in the log", lambda: text in self._app.log(self._name), deadline)
