"""A test stand: an empty database, an ini on it, and daemons as real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from pyramid.paster import get_app
from sqlalchemy import create_engine, make_url, text

from .application import metadata

ROOT = Path(__file__).parents[1]

URLS = {
    "postgresql": ("POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1/postgres"),
    "mariadb": ("MARIADB", "mysql+pymysql://root@127.0.0.1/mysql"),
    "amqp": ("AMQP", "amqp://guest:guest@127.0.0.1:5672//"),
    "redis": ("REDIS", "redis://127.0.0.1:6379/0"),
}
"""Where services are looked for: DURABLE_TEST_<name> in the environment, else here."""

PATIENCE = 300.0
"""Seconds for a measurement to come to its end; one that does not is broken, not slow."""


def service_url(kind: str) -> str:
    name, default = URLS[kind]
    return os.environ.get(f"DURABLE_TEST_{name}", default)


def wait_for(what: str, condition: Callable[[], Any], every: float = 0.02) -> Any:
    """Return the first true answer; RuntimeError when none comes."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(every)
    raise RuntimeError(f"waited {PATIENCE:.0f} s for {what}")


class Stand:
    """One store and one broker, with the application loaded in this process as the producer."""

    def __init__(self, folder: Path, store_url: str, broker_url: str, migrate: bool = True) -> None:
        self.ini = folder / "bench.ini"
        settings = {
            "use": "call:benchmarks.application:main",
            "sqlalchemy.url": store_url,
            "scheduler.broker.url": broker_url,
        }
        lines = "\n".join(f"{key} = {value.replace('%', '%%')}" for key, value in settings.items())
        self.ini.write_text(f"[app:main]\n{lines}\n")
        if migrate:
            self.run("--migrate")
        self.app = get_app(str(self.ini))
        self.scheduler = self.app.registry.scheduler
        self.engine = self.app.registry.dbengine
        metadata.create_all(self.engine)
        self.daemons: list[subprocess.Popen[bytes]] = []

    def _command(self, *arguments: str) -> list[str]:
        code = "import sys; from pyramid_durable.scripts.pscheduler import main; sys.exit(main())"
        return [sys.executable, "-c", code, str(self.ini), *arguments]

    def run(self, *arguments: str) -> None:
        """Run pscheduler to its end."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(self._command(*arguments), cwd=ROOT, env=environ, check=True)

    def start_daemons(self, number: int) -> None:
        """Start daemons, and wait until each has made itself known to the store."""
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        for _ in range(number):
            process = subprocess.Popen(self._command(), cwd=ROOT, env=environ)
            self.daemons.append(process)
        known = "SELECT count(*) FROM durable_daemon"
        wait_for("the daemons", lambda: self.ask(known)[0] >= number)

    def stop_daemons(self) -> None:
        """End the daemons, as their operator would."""
        for process in self.daemons:
            process.terminate()
        for process in self.daemons:
            process.wait(60)
        self.daemons.clear()

    def ask(self, question: str) -> tuple[Any, ...]:
        """The first row of the answer."""
        with self.engine.connect() as connection:
            return tuple(connection.execute(text(question)).one())

    def empty(self) -> None:
        """Remove all jobs, and what they left behind in the table."""
        with self.engine.connect() as connection:
            autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
            if self.engine.dialect.name == "sqlite":
                autocommit.execute(text("DELETE FROM durable_job"))
            else:
                autocommit.execute(text("TRUNCATE TABLE durable_job"))

    def close(self) -> None:
        for process in self.daemons:
            process.kill()
            process.wait()
        self.scheduler.shutdown()
        self.scheduler.store.dispose()
        self.engine.dispose()


@contextmanager
def stand(folder: Path, store: str, broker: str) -> Iterator[Stand]:
    """A stand on a database of its own, dropped at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    broker_url = (
        f"filesystem://{folder / 'broker'}" if broker == "embedded" else service_url(broker)
    )
    if store == "sqlite":
        made = Stand(folder, f"sqlite:///{folder / 'bench.sqlite'}", broker_url)
        try:
            yield made
        finally:
            made.close()
        return
    url = make_url(service_url(store))
    name = f"bench_{uuid4().hex[:12]}"
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        made = Stand(
            folder, url.set(database=name).render_as_string(hide_password=False), broker_url
        )
        try:
            yield made
        finally:
            made.close()
    finally:
        force = " WITH (FORCE)" if store == "postgresql" else ""
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}{force}"))
        server.dispose()
