"""A broker that is away, or says nothing: requests go on as before, and so do jobs."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

import pytest

from tests.broker.proxy import Proxy
from tests.services import service_url

from .application import metadata
from .deployment import Deployment, database, deployed_on, wait_for
from .outages import APPLICATION

BOUND = 0.1
"""Seconds that a dead broker may add to a request: what docs/guarantees.rst says."""

BUSY = 1.5
"""Seconds that a machine with other things to do may add to any one request."""

POLL = 1.0
"""The default of poll_interval, in seconds: within them a job starts without a broker."""

REQUESTS = int(os.environ.get("DURABLE_TEST_REQUESTS", "40"))
"""Requests in each state of the broker; for the figures in the documentation there were 1000."""

SETTINGS = {
    "scheduler__poll_interval": f"{POLL:g}s",
    "scheduler__queues": "default patient",
    "sqlalchemy__pool_pre_ping": "true",
}


class Visitor:
    """Somebody who asks for one job after the other over one connection."""

    def __init__(self, app: Deployment) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=20)
        self._numbers = itertools.count()

    def ask(self, queue: str = "default") -> str:
        """Ask for a job as a view does; returns its id."""
        self._connection.request("GET", f"/ask?number={next(self._numbers)}&queue={queue}")
        answer = self._connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, body
        return body

    def times(self) -> list[float]:
        """The seconds that requests take, each."""
        found = []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            self.ask()
            found.append(time.perf_counter() - began)
        return found


@contextmanager
def site(folder: Path, kind: str) -> Iterator[tuple[Deployment, Proxy]]:
    """A web process, a daemon that polls as by default, and one that relies on announcements."""
    with (
        Proxy(service_url(kind)) as proxy,
        database("postgresql", folder) as store,
        deployed_on(folder, APPLICATION, store, proxy.url, **SETTINGS) as app,
    ):
        ini = app.ini.read_text()
        app.ini.write_text(ini.replace(f"= {POLL:g}s\n", "= %(poll)s\n"))
        app.variables = {"poll": f"{POLL:g}s"}
        metadata.create_all(app.engine)
        assert app.run("pscheduler", "--migrate") == 0
        app.start("pserve", name="web")
        app.start("pscheduler", "-q", "default", name="daemon")
        app.start("pscheduler", "poll=1h", "-q", "patient", name="patient")
        for name in ("daemon", "patient"):
            wait_for(f"{name} to listen", lambda name=name: "listening to" in app.log(name))
        wait_for("the web server", app.answers)
        yield app, proxy


def started(app: Deployment, id: str) -> bool:
    return app.ask(f"SELECT count(*) FROM ran WHERE job = '{id}'") == [(1,)]


def runs(app: Deployment, visitor: Visitor, deadline: float) -> None:
    id = visitor.ask()
    wait_for("the job", lambda: started(app, id), deadline)


def is_announced(app: Deployment, visitor: Visitor) -> None:
    """A job that only an announcement can bring to the daemon that does not poll."""

    def heard() -> bool:
        # Again and again: the breaker lets one try now and then.
        id = visitor.ask("patient")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            if started(app, id):
                return True
            time.sleep(0.02)
        return False

    wait_for("an announcement to arrive", heard)


@pytest.mark.parametrize("kind", ["redis", pytest.param("amqp", marks=pytest.mark.outage)])
def test_requests_and_jobs_do_not_wait_for_a_dead_broker(tmp_path: Path, kind: str) -> None:
    with site(tmp_path, kind) as (app, proxy):
        visitor = Visitor(app)
        is_announced(app, visitor)
        figures = {"up": visitor.times()}

        proxy.refuse(True)
        proxy.cut()
        figures["refused"] = visitor.times()
        runs(app, visitor, POLL + 5)

        proxy.refuse(False)
        # It has a connection again, for the proxy to fall silent on.
        wait_for("the breaker", lambda: visitor.ask() and "publishing to" in app.log("web"))
        proxy.stick()
        figures["silent"] = visitor.times()
        runs(app, visitor, POLL + 5)

        proxy.come_loose()
        proxy.cut()
        is_announced(app, visitor)
        for name in ("web", "daemon", "patient"):
            assert app.processes[name].poll() is None
            assert "Traceback" not in app.log(name)
    show(figures)
    for state in ("refused", "silent"):
        assert median(figures[state]) < median(figures["up"]) + BOUND / 2, state
        assert max(figures[state]) < BOUND + BUSY, state


def show(figures: dict[str, list[float]]) -> None:
    """Say in milliseconds what was measured; pytest shows it with -s."""
    rows = {
        state: {
            "median": round(median(times) * 1000, 1),
            "99 of 100 below": round(quantiles(times, n=100)[98] * 1000, 1),
            "slowest": round(max(times) * 1000, 1),
        }
        for state, times in figures.items()
    }
    sys.stdout.write(f"{json.dumps(rows, indent=1)}\n")
