"""A store that is cut off, restarted or read-only for a while: the daemon says so, and goes on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.concurrent.servers import Server, end_connections

from .application import metadata
from .deployment import Deployment, deployed_on, free_port, wait_for
from .outages import (
    APPLICATION,
    LIMITS,
    Book,
    Pump,
    check_exactly_once,
    own_server,
    tell,
    wait_for_the_end,
)

AWAY = 2.6
"""Seconds that the server is gone: longer than the daemon may start jobs on its lease of 3 s."""

Outage = Callable[[Server, str, Pump], None]


def cut(server: Server, url: str, pump: Pump) -> None:
    """Let the database end all connections, twice: also those that were just made."""
    for _ in range(2):
        end_connections(admin(server, url), 1.0, random.Random(1))
        pump.goes_on()


def restart(server: Server, url: str, pump: Pump) -> None:
    """End the server hard, and leave it away for longer than a lease."""
    server.stop()
    time.sleep(AWAY)
    server.start()


def standby(server: Server, url: str, pump: Pump) -> None:
    """Let it answer and refuse to write, as the old server does after a failover."""
    on, off = {
        "postgresql": (
            ["ALTER DATABASE app SET default_transaction_read_only = on"],
            ["ALTER DATABASE app RESET default_transaction_read_only"],
        ),
        "mysql": (["SET GLOBAL read_only = 1"], ["SET GLOBAL read_only = 0"]),
    }[url.partition("+")[0]]
    tell(server.url, *on)
    end_connections(admin(server, url), 1.0, random.Random(1))
    failed = pump.failed
    time.sleep(1)
    assert pump.failed > failed, "it did write"
    tell(server.url, *off)
    end_connections(admin(server, url), 1.0, random.Random(1))


def admin(server: Server, url: str) -> str:
    """The application's database, as the administrator."""
    return f"{server.url.rpartition('/')[0]}/app" if "postgresql" in url else f"{server.url}/app"


def endure(app: Deployment, server: Server, url: str, outages: list[Outage]) -> None:
    """Let a daemon live through outages, one after the other, with jobs asked for all the while."""
    daemon = app.start("pscheduler", name="daemon")
    book = Book(app, daemon)
    book.waits("daemon started")
    with Pump(app) as pump:
        pump.goes_on()
        for outage in outages:
            book.turn_over()
            outage(server, url, pump)
            pump.goes_on()
            wait_for("the daemon to go on", lambda: is_over(book.new()))
            assert app.processes[daemon].poll() is None, f"{outage.__name__}: it has ended"
            check_said(book.own(), *TIMES[outage])
    wait_for_the_end(app)
    assert app.stop(daemon) == 0
    check_exactly_once(app, pump.asked)


TIMES = {cut: (0, 2), restart: (1, 1), standby: (1, 3)}
"""How often the daemon has to wait. Connections that are cut are made anew, and mostly nobody has to
wait at all; a standby here begins and ends with a cut."""


def is_over(lines: list[str]) -> bool:
    """Whether all waiting that was begun has ended."""
    waits = sum("waiting for the store" in line for line in lines)
    return waits == sum("the store is there again" in line for line in lines)


def check_said(lines: list[str], fewest: int, most: int) -> None:
    """What the daemon waits for is said once by each part that waits, and when it is over."""
    shown = "\n".join(lines)
    waits = [line for line in lines if "waiting for the store" in line]
    assert fewest <= len(waits) <= most, shown
    assert all("the database of the store" in line for line in waits), shown
    assert len(lines) <= 4 + 6 * most, f"a flood:\n{shown}"


@pytest.mark.parametrize("kind", ["postgresql", pytest.param("mariadb", marks=pytest.mark.outage)])
def test_a_store_that_goes_and_comes_back(tmp_path: Path, kind: str) -> None:
    with own_server(kind) as server:
        if kind == "postgresql":
            tell(server.url, "CREATE DATABASE app")
            url = admin(server, "postgresql")
        else:
            url = f"mysql+pymysql://app@{server.host}:{server.port}/app"
        broker = f"filesystem://{tmp_path / 'broker'}"
        with deployed_on(tmp_path, APPLICATION, url, broker, **LIMITS) as app:
            metadata.create_all(app.engine)
            assert app.run("pscheduler", "--migrate") == 0
            endure(app, server, url, [cut, restart, standby])


@pytest.mark.parametrize(
    "arguments", [(), pytest.param(("--processes", "2"), marks=pytest.mark.outage)]
)
def test_a_store_that_is_away_at_the_start_ends_it_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The service manager starts it again; a URL that is wrong is seen at once."""
    url = f"postgresql+psycopg://someone:hush@127.0.0.1:{free_port()}/app"
    broker = f"filesystem://{tmp_path / 'broker'}"
    with deployed_on(tmp_path, APPLICATION, url, broker, **LIMITS) as app:
        assert app.run("pscheduler", *arguments) == 1
        (line,) = app.log("pscheduler0").splitlines()
        assert line.startswith("pscheduler: the database of the store postgresql+psycopg://someone")
        assert "hush" not in line
