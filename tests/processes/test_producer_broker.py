"""A web process that does not reach the store, and daemons that do: nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from kombu import Connection
from sqlalchemy import create_engine, inspect, make_url

from pyramid_durable.broker.address import Address
from tests.broker.proxy import Proxy
from tests.services import service_url

from .deployment import DEADLINE, ROOT, Deployment, database, wait_for

APPLICATION = "tests.processes.application:main"
BROKERS = ("amqp", "redis")


class Relay(Proxy):
    """Passes on also that a process was killed, whose connection is reset rather than closed.

    A database that does not learn of it would hold the locks of the dead.
    """

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        super()._forward(source, sink)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@dataclass
class Tiers:
    """The web tier with data of its own, the daemons' tier with the store, and what is between."""

    web: Deployment
    far: Deployment
    to_broker: Proxy
    to_store: Proxy
    prefix: str

    def ask(self, number: int) -> int:
        """Let the view write a row and ask for a job; returns the HTTP status."""
        try:
            with urllib.request.urlopen(f"{self.web.url}/ask?number={number}", timeout=20) as got:
                return int(got.status)
        except urllib.error.HTTPError as error:
            return error.code

    def start_web(self) -> None:
        self.web.start("pserve", name="web")
        wait_for("the web server", self.web.answers)

    def start_daemon(self, name: str) -> None:
        self.far.start("pscheduler", name=name)
        wait_for("the daemon", lambda: "listening to" in self.far.log(name))

    def asked(self) -> list[int]:
        return [row[0] for row in self.web.ask("SELECT number FROM asked ORDER BY number")]

    def ran(self) -> list[int]:
        return [row[0] for row in self.far.ask("SELECT number FROM ran ORDER BY number")]

    def end(self, numbers: list[int]) -> None:
        """Wait until all has run, and see that it ran once."""
        wait_for("the jobs", lambda: set(self.ran()) >= set(numbers))
        ended = f"SELECT count(*) FROM {self.prefix}job WHERE state = 'succeeded'"
        wait_for("their ends", lambda: self.far.ask(ended) == [(len(numbers),)])
        assert self.ran() == numbers
        assert self.far.ask(f"SELECT count(*) FROM {self.prefix}job") == [(len(numbers),)]


@pytest.fixture(params=BROKERS)
def tiers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tiers]:
    from .application import metadata

    kind = request.param
    prefix = f"p{uuid4().hex[:8]}_"
    settings = {
        "scheduler.producer": "broker",
        "scheduler.secret": "the-secret",
        "scheduler.jobstore.default.prefix": prefix,
        "scheduler.broker.url": service_url(kind),
        # A killed daemon's jobs are soon another's.
        "scheduler.heartbeat": "0.5s",
        "scheduler.lease": "2s",
    }
    if kind == "redis":
        # How long Redis waits before it takes a reader for dead.
        settings["scheduler.broker.options.visibility_timeout"] = "1"
    with database("postgresql", tmp_path) as store_url:
        url = make_url(store_url)
        url = url.set(port=url.port or 5432)
        shown = url.render_as_string(hide_password=False)
        with Relay(settings["scheduler.broker.url"]) as to_broker, Relay(shown) as to_store:
            for name in ("web", "far"):
                (tmp_path / name).mkdir()
            web = Deployment(
                tmp_path / "web",
                APPLICATION,
                {
                    **settings,
                    "sqlalchemy.url": f"sqlite:///{tmp_path / 'web' / 'own.sqlite'}",
                    "scheduler.broker.url": to_broker.url,
                },
            )
            far = Deployment(
                tmp_path / "far", APPLICATION, {**settings, "sqlalchemy.url": to_store.url}
            )
            # What the test looks at is not what it breaks.
            far.engine = create_engine(url)
            try:
                metadata.create_all(web.engine)
                metadata.create_all(far.engine)
                assert far.run("pscheduler", "--migrate") == 0
                yield Tiers(web, far, to_broker, to_store, prefix)
            finally:
                for each in (web, far):
                    for name in each.processes:
                        sys.stdout.write(f"--- {name}\n{each.log(name)}")
                    each.close()
                _clean(kind, settings["scheduler.broker.url"], prefix)


def _clean(kind: str, url: str, prefix: str) -> None:
    if kind == "redis":
        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter(f"*{prefix}*"):
                client.delete(key)
        return
    address = Address(url, namespace=prefix, options={})
    with Connection(url) as connection:
        connection.channel().queue_delete(address.commands("default").name)
        connection.channel().exchange_delete(address.exchange("default").name)


@contextmanager
def broken(proxy: Proxy) -> Iterator[None]:
    """Cut a connection, and refuse new ones meanwhile."""
    proxy.refuse(True)
    proxy.cut()
    yield
    proxy.refuse(False)


def test_jobs_of_a_web_process_without_the_store(tiers: Tiers) -> None:
    tiers.start_web()
    # Nobody is there yet: the broker keeps it.
    assert tiers.ask(1) == 200
    tiers.start_daemon("daemon")
    tiers.end([1])
    assert tiers.ask(2) == 200
    tiers.end([1, 2])
    assert tiers.asked() == [1, 2]
    assert inspect(tiers.web.engine).get_table_names() == ["asked", "ran"]

    # A broker that is gone fails the request, and its row with it.
    with broken(tiers.to_broker):
        assert tiers.ask(3) == 500
        assert "BrokerUnavailable" in tiers.web.log("web")
    assert tiers.ask(4) == 200
    # So does one that takes everything and answers nothing; it is not waited for without end.
    tiers.to_broker.stick()
    began = time.monotonic()
    assert tiers.ask(5) == 500
    assert time.monotonic() - began < 10
    tiers.to_broker.come_loose()
    tiers.to_broker.cut()
    assert tiers.ask(6) == 200
    assert tiers.asked() == [1, 2, 4, 6]
    tiers.end([1, 2, 4, 6])
    assert tiers.far.stop("daemon") == 0


def test_a_daemon_killed_with_commands_that_it_could_not_store(tiers: Tiers) -> None:
    tiers.start_web()
    tiers.start_daemon("first")
    with broken(tiers.to_store):
        for number in range(30):
            assert tiers.ask(number) == 200
        wait_for("a command in hand", lambda: "commands wait for" in tiers.far.log("first"))
        assert tiers.far.stop("first", signal.SIGKILL) == -signal.SIGKILL
    assert tiers.ran() == []
    tiers.start_daemon("second")
    tiers.end([*range(30)])


def test_a_daemon_killed_between_storing_and_acknowledging(tiers: Tiers) -> None:
    tiers.start_web()
    for number in range(3):
        assert tiers.ask(number) == 200
    for stored in (1, 2):
        dying = subprocess.run(
            [sys.executable, "-m", "tests.processes.dying_daemon", str(tiers.far.ini)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=DEADLINE,
            check=False,
        )
        assert dying.returncode == -signal.SIGKILL
        # Whether the second got the first one's command or another is the broker's business.
        count = tiers.far.ask(f"SELECT count(*) FROM {tiers.prefix}job")[0][0]
        assert 1 <= count <= stored
    tiers.start_daemon("daemon")
    tiers.end([*range(3)])
